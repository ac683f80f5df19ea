"""Shifts with mirrored borders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.augmentations.image_cases import build, draw, images


def test_each_image_is_shifted_by_what_was_drawn() -> None:
    x, d = images(64), draw(64)
    y = build("image/translate", pixels=3, p=0.5)(x, d)
    shifts = d.reports["shift"].tolist()
    padded = F.pad(x, [3] * 4, mode="reflect")
    for row, (down, right), got in zip(padded, shifts, y, strict=True):
        assert torch.equal(got, row[:, 3 - down : 35 - down, 3 - right : 35 - right])
    assert {s for pair in shifts for s in pair} == set(range(-3, 4))
    assert 16 < sum(pair == [0, 0] for pair in shifts) < 48


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="pixels is -1, it must not be negative"):
        build("image/translate", pixels=-1)
    with pytest.raises(ValueError, match="an image of 4x4 cannot be mirrored by 4 pixels"):
        build("image/translate", pixels=4)(torch.zeros(1, 3, 4, 4), draw(1))
