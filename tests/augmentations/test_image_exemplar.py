"""Exemplar-CNN's operations: colours by scikit's conversion and numpy's components, and where crops come from."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.anchor_crop import AnchorCrop, edge_places, window_matrix
from ssl_zoo.augmentations.image.exemplar import HSVContrast, HueShift, PCAColor, stretched
from ssl_zoo.augmentations.image.sampling import resample
from ssl_zoo.augmentations.rng import RecordedDraw
from tests.augmentations.image_cases import build, draw, images, largest


def by_pixel(x: torch.Tensor, change) -> torch.Tensor:
    """``change`` of hue, saturation and value of every pixel; outside of [0, 1] as the formula goes on."""
    out = np.empty(x.shape)
    for b, _, i, j in np.ndindex(*x.shape):
        h, s, v = change(*colorsys.rgb_to_hsv(*x[b, :, i, j].tolist()))
        sector, part = int(h * 6), h * 6 - int(h * 6)
        p, q, t = v * (1 - s), v * (1 - s * part), v * (1 - s * (1 - part))
        out[b, :, i, j] = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][sector % 6]
    return stretched(torch.from_numpy(out))


def test_contrast_of_saturation_and_value_is_that_of_the_usual_conversion() -> None:
    x = images(3, height=6, width=7).double()
    numbers = torch.tensor([[0.5, 1.3, 0.05], [2.0, 0.8, -0.1], [4.0, 1.0, 0.1]], dtype=torch.float64)
    got = HSVContrast().changed(x, numbers)
    for row in range(3):
        power, factor, addition = numbers[row].tolist()
        wanted = by_pixel(x[row : row + 1],
                          lambda h, s, v: (h, s**power * factor + addition, v**power * factor + addition))  # noqa: B023
        assert largest(got[row], wanted[0]) < 1e-9


def test_a_shift_of_the_hue_is_that_of_the_usual_conversion() -> None:
    x, turn = images(2, height=6, width=7).double(), torch.tensor([0.09, 0.02], dtype=torch.float64)
    got = HueShift().turned(x, turn)
    for row in range(2):
        wanted = by_pixel(x[row : row + 1], lambda h, s, v: ((h + turn[row].item()) % 1, s, v))  # noqa: B023
        assert largest(got[row], wanted[0]) < 1e-9


def test_colours_are_scaled_along_the_components_of_the_whole_image() -> None:
    x, factors = images(2).double(), torch.tensor([[0.5, 1.5, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    got = PCAColor(by_column=False).scaled(x, factors)
    pixels = x[0].flatten(1).T.numpy()
    values, vectors = np.linalg.eigh(np.cov(pixels.T))
    centred = (pixels - pixels.mean(0)) @ vectors[:, ::-1]
    wanted = (centred * factors[0].numpy()) @ vectors[:, ::-1].T + pixels.mean(0)
    assert largest(got[0], stretched(torch.from_numpy(wanted.T).view(1, 3, 32, 32))[0]) < 1e-9
    assert largest(got[1], stretched(x[1:])[0]) < 1e-9  # nothing but stretched


def test_draws_cover_their_ranges() -> None:
    seen = {}
    op = PCAColor()
    op.scaled = lambda x, factors: seen.setdefault("pca", factors)  # type: ignore[method-assign]
    op(images(2000, height=3, width=8), draw(2000))
    assert 0.5 <= seen["pca"].min() < 0.51 and 1.98 < seen["pca"].max() < 2.0
    assert abs(seen["pca"].mean() - 1.25) < 0.02


def test_an_image_of_one_value_stays_finite() -> None:
    for name in ("image/pca_color", "image/hsv_contrast", "image/hue_shift", "image/anchor_crop"):
        for value in (0.0, 0.3, 1.0):
            assert build(name)(torch.full((4, 3, 32, 32), value), draw(4)).isfinite().all()


def test_the_anchor_lies_on_an_edge_and_belongs_to_the_image() -> None:
    x = torch.zeros(40, 3, 24, 30)
    x[:, :, :, 11:] = 1.0
    x[:, 0, 0, 0] = torch.arange(40) / 255  # forty images that differ in one pixel
    places = edge_places(x)
    away = places[(places > 2).any(1)]
    assert ((away[:, 0] - 10.5).abs() <= 1).all() and len(away) > 20 and len(away[:, 1].unique()) > 8
    assert torch.equal(edge_places(x.flip(0)), places.flip(0))
    assert edge_places(torch.full((1, 3, 24, 30), 0.5)).tolist() == [[15, 12]]


def test_places_are_drawn_by_the_strength_of_the_edge() -> None:
    x = torch.zeros(4000, 3, 9, 40)
    x[:, :, :, 10:] = 51 / 255
    x[:, :, :, 30:] = 1.0  # four times as strong
    x[:, 0, 0, 20] += torch.arange(4000) % 50 / 255
    x[:, 1, 4, 39] -= torch.arange(4000) // 50 / 255
    column = edge_places(x)[:, 0]
    strong, weak = ((column - at).abs() <= 1 for at in (29.5, 9.5))
    assert strong.sum() / weak.sum() == pytest.approx(4, rel=0.15)


def test_a_window_is_the_crop_of_the_resized_image() -> None:
    x = images(1, height=40, width=48).double()
    for scaled_height, scaled_width in ((29, 35), (40, 48), (55, 66)):
        rows = window_matrix(torch.tensor([5]), torch.tensor([scaled_height]), 40, 20)
        columns = window_matrix(torch.tensor([9]), torch.tensor([scaled_width]), 48, 20)
        whole = F.interpolate(x, size=(scaled_height, scaled_width), mode="bilinear", antialias=True)
        assert largest(resample(x, rows, columns), whole[..., 5:25, 9:29]) < 1e-5


def test_the_middle_of_an_image_without_shift_and_scale() -> None:
    x, still = images(2, height=40, width=48), RecordedDraw({"scale": torch.zeros(2), "shift": torch.zeros(2, 2)})
    op = AnchorCrop(16, [1.0, 1.0], anchor="centre")
    assert largest(op(x, still), x[:, :, 12:28, 16:32]) < 1e-6
    assert op(x, RecordedDraw({"scale": torch.zeros(2), "shift": torch.full((2, 2), 99.0)})).equal(x[..., 24:, 32:])


def test_small_images_are_scaled_to_the_view_and_workers_cut_the_same() -> None:
    x = (images(6, height=20, width=28) * 255).round() / 255
    op = registry.build({"image/anchor_crop": {}}, 32)
    whole = op(x, draw(6))
    assert whole.shape == (6, 3, 32, 32) and 0 <= whole.min() and whole.max() <= 1
    stored = op((x * 255).to(torch.uint8), draw(6))
    assert stored.dtype == torch.uint8 and largest(stored / 255.0, whole) < 0.51 / 255


def test_a_rotation_may_bring_the_mirrored_image_from_outside() -> None:
    x = torch.full((8, 3, 16, 16), 0.7)
    for reflect in (True, False):
        turned = build("image/random_rotation", degrees=20, interpolation="bilinear", reflect=reflect)(x, draw(8))
        assert (largest(turned, x) < 1e-5) == reflect


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("image/anchor_crop", {"shift": -1.0}, "shift is -1.0, it must not be negative"),
        ("image/anchor_crop", {"anchor": "edge"}, "anchor=edge: did you mean 'edges'"),
        ("image/pca_color", {"factor": [2.0, 0.5]}, r"factor is \[2.0, 0.5\], it must be \[low, high\]"),
        ("image/hue_shift", {"turn": [-0.6, 0.1]}, r"turn is \[-0.6, 0.1\], it must be \[low, high\] with -0.5"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build(name, **options)
