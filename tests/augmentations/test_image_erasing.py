"""What is erased, and what replaces it."""

import pytest
import torch
import torchvision.transforms.functional as TF

from ssl_zoo.augmentations import registry
from tests.augmentations.image_cases import build, draw, images, largest


@pytest.mark.parametrize("value", [0.0, [0.1, 0.5, 0.9]])
@pytest.mark.parametrize("shape", [(32, 32), (20, 48)])
def test_random_erasing_is_torchvisions_erase(value, shape):
    x, d = images(64, height=shape[0], width=shape[1]), draw(64)
    y = build("image/random_erasing", p=0.6, value=value)(x, d)
    content = torch.tensor(value).view(-1, 1, 1)
    wanted = [TF.erase(row, *box, content) for row, box in zip(x, d.reports["box"].tolist(), strict=True)]
    erased = (d.reports["box"][:, 2] > 0).sum()
    assert 25 < erased < 52
    assert torch.equal(y, torch.stack(wanted))


def test_random_erasing_with_noise():
    x, d = torch.full((400, 3, 16, 16), 0.5), draw(400)
    y = build("image/random_erasing", p=1.0, scale=[0.2, 0.3], value="random")(x, d)
    hit = (y != x).all(dim=1)                                    # [B, H, W]: all channels or none
    assert torch.equal(hit, (y != x).any(dim=1))
    assert torch.equal(hit.flatten(1).sum(1), d.reports["box"][:, 2] * d.reports["box"][:, 3])
    noise = y.permute(0, 2, 3, 1)[hit]
    assert abs(noise.mean().item()) < 0.01 and abs(noise.std().item() - 1) < 0.01
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.02


def test_a_box_that_never_fits_erases_nothing():
    # As torchvision: a box must be smaller than the image on both sides, and one of 100 % of its area never is.
    d = draw()
    assert torch.equal(build("image/random_erasing", p=1.0, scale=[1, 1])(images(), d), images())
    assert d.reports["box"].abs().sum() == 0


@pytest.mark.parametrize("side", [1, 8, 9, 100])
def test_cutout_is_a_square_cut_off_at_the_border(side):
    x, d = torch.ones(200, 3, 32, 24), draw(200)
    y = build("image/cutout", side=side, p=0.7)(x, d)
    applied = d.uniform("apply") < 0.7
    place = d.uniform("place", 2).double() * torch.tensor([32, 24])
    for out, hit, (row, column) in zip(y, applied.tolist(), place.floor().long().tolist(), strict=True):
        wanted = torch.ones(3, 32, 24)
        if hit:
            top, left = row - side // 2, column - side // 2
            wanted[:, max(top, 0):max(top + side, 0), max(left, 0):max(left + side, 0)] = 0
        assert torch.equal(out, wanted)


@pytest.mark.parametrize("entry, message", [
    ({"image/random_erasing": {"value": "noise"}},
     "value is 'noise', it must be a number, one for each channel, or random"),
    ({"image/random_erasing": {"scale": [0.1, 1.2]}}, "scale is [0.1, 1.2], it must be [low, high] with 0 <= low <="),
    ({"image/cutout": {"side": 0}}, "side is 0, it must be a whole number of at least 1: pixels"),
])
def test_wrong_options_are_named(entry, message):
    (problem,) = registry.check([entry])
    assert problem.startswith(f"{next(iter(entry))}: {message}")


def test_gaussian_noise():
    x, d = torch.full((300, 3, 20, 20), 0.5), draw(300)
    y = build("image/gaussian_noise", sigma=[0.02, 0.1], p=0.5)(x, d)
    applied, sigma = d.uniform("apply") < 0.5, 0.02 + 0.08 * d.uniform("sigma")
    assert torch.equal(y[~applied], x[~applied])
    measured = (y - x)[applied].flatten(1).std(1)
    assert ((measured / sigma[applied] - 1).abs() < 0.12).all()   # 1200 pixels: 2 % of standard error
    strong = build("image/gaussian_noise", sigma=5.0, p=1.0)(x, d)
    assert strong.min() == 0 and strong.max() == 1
    assert build("image/gaussian_noise", sigma=5.0, p=1.0, clamp=False)(x, d).min() < -5


def test_sobel_of_edges_worked_out_by_hand():
    # The authors' kernels: [[1, 0, -1], [2, 0, -2], [1, 0, -1]] and [[1, 2, 1], [0, 0, 0], [-1, -2, -1]], zeros around.
    x = torch.zeros(2, 3, 5, 5)
    x[0, :, :, 3:] = 1.0                                         # bright on the right
    x[1, 0, 2, 2] = 3.0                                          # one red pixel: grey 1
    y = build("image/sobel")(x, draw(2))
    assert y.shape == (2, 2, 5, 5)
    assert y[0, 0, 2].tolist() == [0, 0, -4, -4, 4] and y[0, 0, 0].tolist() == [0, 0, -3, -3, 3]
    assert y[0, 1, 2].abs().max() == 0 and y[0, 1, 0].tolist() == [0, 0, -1, -3, -3]
    assert y[1, 0, 1:4, 1:4].tolist() == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    assert y[1, 1, 1:4, 1:4].tolist() == [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]


def test_sobel_normalises_first():
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normalised = TF.normalize(images(), mean, std)
    assert largest(build("image/sobel", mean=mean, std=std)(images(), draw()), build("image/sobel")(
        normalised, draw())) < 1e-5
    with pytest.raises(ValueError, match="image/sobel: mean is .* it must be one number or 1, one for each channel"):
        build("image/sobel", mean=mean, std=std)(images(channels=1), draw())
