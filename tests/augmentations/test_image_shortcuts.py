"""What hides the place of a tile: by hand, by distribution, and by its message."""

import pytest
import torch
from scipy import stats

from ssl_zoo.augmentations.image.tone import autocontrast, posterize, sharpen
from ssl_zoo.augmentations.rng import RecordedDraw
from tests.augmentations.image_cases import as_uint8, build, draw, images, largest


def test_standardised_channels_are_apart_or_together():
    x = torch.tensor([[[[0.0, 1.0]], [[0.4, 0.4]]]])                     # [1, 2, 1, 2]: one channel is constant
    # Unbiased: deviation of 0 and 1 is the root of a half.
    apart = build("image/standardise", channels="apart")(x, draw(1))
    torch.testing.assert_close(apart, torch.tensor([[[[-(0.5**0.5), 0.5**0.5]], [[0.0, 0.0]]]]))
    together = build("image/standardise", channels="together")(x, draw(1))
    # Mean 0.45; mean square of -0.45, 0.55, -0.05, -0.05 is 0.1275.
    torch.testing.assert_close(together, torch.tensor([[[[-0.45, 0.55]], [[-0.05, -0.05]]]]) / 0.1275**0.5)
    flat = build("image/standardise", channels="together")(torch.full((1, 3, 4, 4), 0.3), draw(1))
    assert flat.abs().max() < 1e-3


def test_one_channel_stays_and_the_others_are_noise_of_its_size():
    x, d = images(300), draw(300)
    y = build("image/drop_colours", noise=0.1, rms=2.0)(x, d)
    kept = d.reports["kept"]
    torch.testing.assert_close(y.square().mean((1, 2, 3)).sqrt(), torch.full((300,), 2.0))
    assert stats.chisquare(torch.bincount(kept, minlength=3).numpy()).pvalue > 1e-3
    rows = torch.arange(300)
    channel, own = y[rows, kept], x[rows, kept]
    own = own - own.mean((1, 2), keepdim=True)
    scale = (channel * own).sum((1, 2)) / own.square().sum((1, 2))       # [B]
    torch.testing.assert_close(channel, own * scale[:, None, None], atol=1e-4, rtol=1e-4)
    noise = y[rows, (kept + 1) % 3] / scale[:, None, None]
    assert noise.abs().max() <= 0.05 * 1.001 and abs(noise.std().item() - 0.1 / 12**0.5) < 1e-3
    grey = build("image/drop_colours")(x[:, :1], draw(300))
    torch.testing.assert_close(grey.mean((1, 2, 3)), torch.zeros(300), atol=1e-5, rtol=0)


def test_green_and_magenta_become_grey_and_blue_against_yellow_stays():
    green, opponent = torch.tensor([-1.0, 2.0, -1.0]), torch.tensor([1.0, 0.0, -1.0])
    x = torch.stack((0.5 + 0.1 * green, 0.5 + 0.1 * opponent))[:, :, None, None].expand(2, 3, 2, 2)
    y = build("image/drop_green_magenta")(x, draw(2))
    torch.testing.assert_close(y[0], torch.full((3, 2, 2), 0.5))
    torch.testing.assert_close(y[1], x[1])


def test_channels_are_shifted_by_whole_grey_values():
    x = torch.full((600, 3, 1, 1), 0.5)
    steps = ((build("image/shift_channels")(x, draw(600)) - x) * 255).squeeze()
    assert largest(steps, steps.round()) < 1e-3
    counts = torch.bincount((steps.round() + 2).long().flatten(), minlength=4)
    assert len(counts) == 4 and stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert not torch.equal(steps[:, 0], steps[:, 1])
    assert build("image/shift_channels", low=-3, high=-3)(torch.zeros(1, 3, 1, 1), draw(1)).abs().max() == 0


def test_some_images_have_fewer_pixels():
    op, x = build("image/degrade", p=0.4, smallest=4), images(400)
    y = op(x, draw(400))
    changed = (y != x).flatten(1).any(1)
    assert abs(changed.float().mean().item() - 0.4) < 0.08
    # An image of 32 is brought to 4 x 4: nothing between the smallest cells is left.
    values = {"area": torch.zeros(1), "apply": torch.zeros(1)}
    coarse = op(x[:1], RecordedDraw(values))
    small = torch.nn.functional.interpolate(x[:1], (4, 4), mode="bilinear", align_corners=False)
    wanted = torch.nn.functional.interpolate(small, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(coarse, wanted, atol=1e-5, rtol=1e-5)
    assert largest(op(x[:1], RecordedDraw({**values, "area": torch.ones(1)})), x[:1]) > 0
    ramp = torch.arange(32.0).expand(1, 1, 32, 32) / 32
    assert largest(op(ramp, RecordedDraw({**values, "area": torch.ones(1)})), ramp) < 0.03   # 31 pixels


def test_the_four_of_pirl_are_done_in_their_order():
    x = (images(40) * 255).round() / 255
    d = {"bits": torch.full((40,), 1), "factor": torch.full((40,), 0.5), "apply": torch.zeros(40)}
    y = build("image/photometric", p=1.0)(x, RecordedDraw({**d, "threshold": torch.full((40,), 100)}))
    step = sharpen(posterize(x, torch.full((40,), 5)), torch.full((40,), 1.0))
    wanted = autocontrast(torch.where((step * 255).round() >= 100, 1 - step, step))
    assert largest(y, wanted) == 0
    never = build("image/photometric", p=1.0)(x, RecordedDraw({**d, "threshold": torch.full((40,), 256)}))
    assert largest(never, autocontrast(step)) == 0
    assert torch.equal(as_uint8(build("image/photometric", p=0.0)(x, draw(40))), as_uint8(x))


@pytest.mark.parametrize(("name", "options", "words"), [
    ("standardise", {"channels": "each"}, "channels=each: there are: apart, together"),
    ("drop_colours", {"rms": 0.0}, "noise is 0.0039.* and rms 0.0: wanted at least 0, and above 0"),
    ("shift_channels", {"low": 2}, "low is 2 and high 1: wanted low <= high"),
    ("degrade", {"smallest": 0}, "smallest is 0, it must be at least 1"),
])
def test_settings_that_make_no_sense(name, options, words):
    with pytest.raises(ValueError, match=words):
        build(f"image/{name}", **options)


def test_images_that_are_too_small_to_be_made_smaller():
    with pytest.raises(ValueError, match="images of 8x8 cannot be made smaller to 10x10; set smallest to 7 or less"):
        build("image/degrade", p=1.0)(images(2, height=8, width=8), draw(2))
