"""The parameters follow torchvision's distributions: two-sample Kolmogorov-Smirnov tests against ``get_params``."""

import pytest
import torch
from scipy import stats
from torchvision import transforms

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, stream_key

N = 20000


@pytest.fixture
def theirs():
    """Torchvision reads the global generator; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def draw(n=N):
    return Draw(stream_key(0, "distribution", 0), torch.arange(n))


CROPS = [
    ((32, 32), (0.08, 1.0)),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (((40, 100), (0.3, 1.0)), ((96, 96), (0.05, 0.14)))),
]


def same(a, b):
    return stats.ks_2samp(a, b).pvalue > 1e-3


@pytest.mark.parametrize("shape, scale", CROPS)
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
    ({"image/color_jitter": {"brightness": [0.5, 0.6], "p": 0.8}}, 0.8), ({"image/vertical_flip": {"p": 0.7}}, 0.7),
    ({"image/invert": {"p": 0.1}}, 0.1), ({"image/autocontrast": {"p": 0.3}}, 0.3),
    ({"image/posterize": {"bits": 2, "p": 0.6}}, 0.6), ({"image/sharpness": {"factor": 2, "p": 0.25}}, 0.25),
    ({"image/gaussian_noise": {"p": 0.4}}, 0.4), ({"image/random_erasing": {"scale": [0.2, 0.3], "p": 0.9}}, 0.9),
    ({"image/rotate90": {}}, 0.75), ({"image/cutout": {"side": 2, "p": 0.8}}, 0.8),
])
def test_share_of_samples_that_change(entry, changed):
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).expand(N, -1, -1, -1)
    y = registry.build(entry, 6)(x, draw())
    count = int((y != x).flatten(1).any(1).sum())
    assert stats.binomtest(count, N, changed).pvalue > 1e-3


def test_random_crop_pad_corners_are_uniform():
    d = draw()
    registry.build("image/random_crop_pad", 4)(torch.zeros(N, 1, 4, 4), d)
    for corner in d.reports["corner"].unbind(1):
        assert stats.chisquare(torch.bincount(corner, minlength=9).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    "shape, scale", [((32, 32), (0.02, 0.33)), pytest.param((24, 60), (0.1, 0.9), marks=pytest.mark.slow)]
)
def test_erased_boxes(theirs, shape, scale):
    op = registry.build({"image/random_erasing": {"scale": scale}}, 32)
    box = op.boxes(draw(), *shape).double()
    image, get_params = torch.zeros(1, *shape), transforms.RandomErasing.get_params
    other = torch.tensor([get_params(image, scale, (0.3, 3.3), [0.0])[:4] for _ in range(N)]).double()
    other[other[:, 2] == shape[0]] = 0                       # the whole image: its word for no box
    for i in range(4):
        assert same(box[:, i].numpy(), other[:, i].numpy()), "top left height width".split()[i]
    assert same((box[:, 2] * box[:, 3]).numpy(), (other[:, 2] * other[:, 3]).numpy())
    found, seen = box[:, 2] > 0, other[:, 2] > 0
    assert same((box[found, 2] / box[found, 3]).numpy(), (other[seen, 2] / other[seen, 3]).numpy())


def test_angles(theirs):
    d = draw()
    registry.build({"image/random_rotation": {"degrees": [-20, 50]}}, 4)(torch.zeros(N, 1, 4, 4), d)
    other = [transforms.RandomRotation.get_params([-20.0, 50.0]) for _ in range(N)]
    assert same(d.reports["angle"].numpy(), other)


def test_affine_parameters(theirs):
    options = {"degrees": 30, "translate": [0.1, 0.3], "scale": [0.7, 1.4], "shear": [-10, 20, -5, 9]}
    angle, shift, scale, shear = registry.build({"image/random_affine": options}, 32).parameters_of(draw(), 40, 64)
    get_params = transforms.RandomAffine.get_params
    other = [get_params((-30.0, 30.0), (0.1, 0.3), (0.7, 1.4), [-10.0, 20.0, -5.0, 9.0], [64, 40]) for _ in range(N)]
    columns = [[p[0], *p[1], p[2], *p[3]] for p in other]
    ours = torch.stack((angle, *shift.unbind(1), scale, *shear.unbind(1)), dim=1)
    for i, name in enumerate(("angle", "x", "y", "scale", "shear x", "shear y")):
        assert same(ours[:, i].numpy(), [column[i] for column in columns]), name


def chosen(monkeypatch, transform):
    """(name, magnitude) of every operation that torchvision's ``transform`` applies in N calls."""
    calls = []
    monkeypatch.setattr(transforms.autoaugment, "_apply_op", lambda img, name, magnitude, **_: calls.append(
        (name, magnitude)) or img)
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    for _ in range(N // getattr(transform, "num_ops", 1)):
        transform(image)
    return calls


@pytest.mark.parametrize("name, transform", [
    ("image/rand_augment", transforms.RandAugment(2, 11)), ("image/trivial_augment", transforms.TrivialAugmentWide())])
@pytest.mark.slow
def test_operations_and_magnitudes(theirs, monkeypatch, name, transform):
    options = {"num_ops": 2, "magnitude": 11} if name == "image/rand_augment" else {}
    op = registry.build({name: options}, 32)
    kinds, values = (t.flatten() for t in (op.parameters_of(draw(N // 2), 32, 32) if options else
                                           op.parameters_of(draw())))
    calls = chosen(monkeypatch, transform)
    names = list(transforms.RandAugment()._augmentation_space(31, (32, 32)))
    counts = [torch.bincount(kinds, minlength=14).tolist(), [sum(n == m for n, _ in calls) for m in names]]
    assert stats.chisquare(counts[0]).pvalue > 1e-3
    assert stats.chi2_contingency(counts).pvalue > 1e-3
    for kind in (1, 2, 3, 4, 5, 6, 10, 11):                  # shears, translations, rotate, brightness, posterize, ...
        other = torch.tensor([m for n, m in calls if n == names[kind]]).double()
        scale, offset = {6: (1.0, 1.0), 11: (1 / 255, 0.0)}.get(kind, (1.0, 0.0))
        other = (other.trunc() if kind in (3, 4) else other) * scale + offset
        assert same(values[kinds == kind].numpy().round(4), other.numpy().round(4)), names[kind]


def test_noise_is_normal():
    noise = registry.build({"image/gaussian_noise": {"sigma": 1.0, "p": 1.0, "clamp": False}}, 4)(
        torch.zeros(N, 1, 4, 4), draw())
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    assert 4.0 < noise.abs().max() < 5.5                     # 24 bits reach 5.4
    pixels = torch.corrcoef(noise.flatten(1).T) - torch.eye(16)
    assert pixels.abs().max() < 5 / N**0.5


def test_orders_of_tiles_are_uniform():
    d = draw()
    registry.build({"image/jigsaw": {"size": 1, "grid": 2}}, 1)(torch.zeros(N, 1, 2, 2), d)
    counts = torch.unique(d.reports["permutation"], dim=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts.numpy()).pvalue > 1e-3
