"""The parameters follow torchvision's distributions: two-sample Kolmogorov-Smirnov tests against ``get_params``."""

import pytest
import torch
from scipy import stats
from torchvision import transforms

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, stream_key

N = 4000


@pytest.fixture
def theirs():
    """Torchvision reads the global generator; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def draw(n=N):
    return Draw(stream_key(0, "distribution", 0), torch.arange(n))


def same(a, b):
    return stats.ks_2samp(a, b).pvalue > 1e-3


@pytest.mark.parametrize("shape, scale", [((32, 32), (0.08, 1.0)), ((40, 100), (0.3, 1.0)), ((96, 96), (0.05, 0.14))])
def test_boxes(theirs, shape, scale):
    ours = registry.build({"image/random_resized_crop": {"scale": scale}}, 32).boxes(draw(), *shape).double()
    image = torch.zeros(3, *shape)
    get_params = transforms.RandomResizedCrop.get_params
    other = torch.tensor([get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(N)]).double()
    for i in range(4):
        assert same(ours[:, i].numpy(), other[:, i].numpy()), "top left height width".split()[i]
    assert same((ours[:, 2] * ours[:, 3]).numpy(), (other[:, 2] * other[:, 3]).numpy())
    assert same((ours[:, 3] / ours[:, 2]).numpy(), (other[:, 3] / other[:, 2]).numpy())
    assert ((ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2]).max() <= shape[0]
            and (ours[:, 1] + ours[:, 3]).max() <= shape[1])


def test_jitter_factors_and_orders(theirs):
    options = {"brightness": 0.4, "contrast": 1.2, "saturation": [0.5, 0.9], "hue": 0.1}
    order, factors = registry.build({"image/color_jitter": options}, 32).parameters_of(draw())
    jitter = transforms.ColorJitter(0.4, 1.2, (0.5, 0.9), 0.1)
    other = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(N)]
    for i in range(4):
        assert same(factors[:, i].numpy(), [params[1 + i] for params in other])
    ours, seen = ([tuple(x.tolist()) for x in xs] for xs in (order, [params[0] for params in other]))
    kinds = sorted(set(ours) | set(seen))
    assert len(kinds) == 24
    assert stats.chi2_contingency([[xs.count(kind) for kind in kinds] for xs in (ours, seen)]).pvalue > 1e-3


def test_blur_widths(theirs):
    op = registry.build({"image/gaussian_blur": {"kernel": 9}}, 32)
    weights = op.kernels(draw().uniform("sigma"))
    sigma = torch.sqrt(-0.5 / torch.log(weights[:, 5] / weights[:, 4])).double()     # back from the shape of the kernel
    other = [transforms.GaussianBlur.get_params(0.1, 2.0) for _ in range(N)]
    measured = sigma > 0.2                                                          # narrower ones underflow
    assert same(sigma[measured].numpy(), [s for s in other if s > 0.2])
    assert torch.allclose(weights.sum(1), torch.ones(N))


@pytest.mark.parametrize("entry, changed", [
    ({"image/flip": {"p": 0.3}}, 0.3), ({"image/grayscale": {"p": 0.2}}, 0.2), ({"image/solarize": {"p": 0.2}}, 0.2),
    ({"image/gaussian_blur": {"p": 0.1, "sigma": [1.0, 2.0]}}, 0.1),
    ({"image/color_jitter": {"brightness": [0.5, 0.6], "p": 0.8}}, 0.8),
])
def test_share_of_samples_that_change(entry, changed):
    x = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(0)).expand(N, -1, -1, -1)
    y = registry.build(entry, 10)(x, draw())
    count = int((y != x).flatten(1).any(1).sum())
    assert stats.binomtest(count, N, changed).pvalue > 1e-3


def test_random_crop_pad_corners_are_uniform():
    d = draw()
    registry.build("image/random_crop_pad", 4)(torch.zeros(N, 1, 4, 4), d)
    for corner in d.reports["corner"].unbind(1):
        assert stats.chisquare(torch.bincount(corner, minlength=9).numpy()).pvalue > 1e-3
