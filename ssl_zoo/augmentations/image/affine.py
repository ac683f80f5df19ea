"""Rotations, shears and translations: one sampling of the whole batch for maps that differ from sample to sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import full_precision, per_channel
from ssl_zoo.augmentations.image.geometry import interval
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.errors import require

SAMPLINGS = ("nearest", "bilinear")


def check_sampling(interpolation: str) -> str:
    """Return ``interpolation`` if it is one of nearest and bilinear."""
    require("interpolation", interpolation, SAMPLINGS)
    return interpolation


def inverse_affine(angle: Tensor, translate: tuple[Tensor, Tensor], scale: Tensor, shear: tuple[Tensor, Tensor],
                   centre: tuple[Tensor, Tensor]) -> Tensor:
    """Where each pixel of the result comes from, for translate * centre * rotate * scale * shear * centre^-1.

    Args:
        angle: ``[B]`` radians, clockwise on the screen.
        translate: ``[B]`` pixels to the right and down.
        scale: ``[B]``, > 0.
        shear: ``[B]`` radians along x and y, as in torchvision's ``affine``.
        centre: ``[B]`` x and y of the point that stays, in pixels from the centre of the image.

    Returns:
        ``[B, 2, 3]``, acts on (x, y, 1) in pixels from the centre of the image.
    """
    (sx, sy), (cx, cy) = shear, centre
    a = torch.cos(angle - sy) / torch.cos(sy)
    b = -a * torch.tan(sx) - torch.sin(angle)
    c = torch.sin(angle - sy) / torch.cos(sy)
    d = -c * torch.tan(sx) + torch.cos(angle)
    rows = []
    for p, q, shift in ((d, -b, cx), (-c, a, cy)):   # the forward matrix has determinant scale^2
        p, q = p / scale, q / scale
        rows.append(torch.stack((p, q, shift - p * (cx + translate[0]) - q * (cy + translate[1])), dim=1))
    return torch.stack(rows, dim=1)


def sample_affine(x: Tensor, matrix: Tensor, interpolation: str = "nearest",
                  fill: float | Sequence[float] | None = None, reflect: bool = False) -> Tensor:
    """``[B, C, H, W]`` at the places that ``matrix [B, 2, 3]`` names (:func:`inverse_affine`).

    Outside is the mirrored image if ``reflect``, else ``fill``, None for zeros. Between inside and outside a bilinear
    ``fill`` weighs the image twice, as torchvision does.
    """
    height, width = x.shape[-2:]
    dtype, device = x.dtype, x.device
    across = torch.linspace(0.5 - width / 2, width / 2 - 0.5, width, dtype=dtype, device=device)
    down = torch.linspace(0.5 - height / 2, height / 2 - 0.5, height, dtype=dtype, device=device)
    pixels = torch.stack((across.expand(height, width), down.view(-1, 1).expand(height, width),
                          torch.ones((), dtype=dtype, device=device).expand(height, width)), dim=-1)
    half = torch.stack([matrix.new_full((), width / 2), matrix.new_full((), height / 2)]).to(dtype)
    # Divided in the precision of the pixels, as torchvision does, so that nearest neighbours round alike.
    grid = pixels.view(-1, 3) @ (matrix.to(dtype).transpose(1, 2) / half)                        # [B, H * W, 2]
    grid = grid.view(-1, height, width, 2)
    if fill is None or reflect:
        return _grid_sample(x, grid, interpolation, "reflection" if reflect else "zeros")
    background = per_channel("fill", fill, x)
    x = _grid_sample(torch.cat((x, torch.ones_like(x[:, :1])), dim=1), grid, interpolation)
    return torch.lerp(background, x[:, :-1], x[:, -1:])


def _grid_sample(x: Tensor, grid: Tensor, interpolation: str, outside: str = "zeros") -> Tensor:
    return F.grid_sample(x, grid, mode=interpolation, padding_mode=outside, align_corners=False)


def _span(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """``value`` as a range, [-value, value] for one number."""
    if isinstance(value, Sequence):
        return interval(name, value, low=-math.inf)
    if value < 0:
        raise ValueError(f"{name} is {value}, one number must not be negative; write [low, high]")
    return -float(value), float(value)


def _between(span: tuple[float, float], number: Tensor) -> Tensor:
    return span[0] + (span[1] - span[0]) * number


@register("image/random_rotation")
class RandomRotation(nn.Module):
    """Turn around the centre (torchvision ``RandomRotation``); the corners come from outside.

    Reports ``angle``: ``[B]`` degrees, counter-clockwise.

    Args:
        degrees: the angle is uniform in [-degrees, degrees], or in the [low, high] given.
        interpolation: nearest or bilinear.
        fill: of what comes from outside: one number, one for each channel, or null for zeros.
        reflect: the mirrored image comes from outside instead (Exemplar-CNN).
    """

    per_channel = ("fill",)

    def __init__(self, degrees: float | Sequence[float], interpolation: str = "nearest",
                 fill: float | Sequence[float] | None = None, reflect: bool = False):
        super().__init__()
        self.degrees = _span("degrees", degrees)
        self.interpolation = check_sampling(interpolation)
        self.fill, self.reflect = fill, reflect

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        angle = _between(self.degrees, draw.uniform("angle").double())
        draw.report("angle", angle)
        none = torch.zeros_like(angle)
        matrix = inverse_affine(-angle.deg2rad(), (none, none), none + 1.0, (none, none), (none, none))
        return sample_affine(x, matrix, self.interpolation, self.fill, self.reflect)


@register("image/random_affine")
class RandomAffine(nn.Module):
    """Rotation, translation, scale and shear around the centre in one sampling (torchvision ``RandomAffine``).

    Args:
        degrees: the angle is uniform in [-degrees, degrees], or in the [low, high] given; clockwise.
        translate: largest shift across and down, as shares of the width and the height; whole pixels are drawn.
        scale: range of the magnification, uniform.
        shear: degrees along x in [-shear, shear] or [low, high]; four numbers give the range along y too.
        interpolation: nearest or bilinear.
        fill: of what comes from outside: one number, one for each channel, or null for zeros.
    """

    per_channel = ("fill",)

    def __init__(self, degrees: float | Sequence[float] = 0.0, translate: Sequence[float] = (0.0, 0.0),
                 scale: Sequence[float] = (1.0, 1.0), shear: float | Sequence[float] = 0.0,
                 interpolation: str = "nearest", fill: float | Sequence[float] | None = None):
        super().__init__()
        self.degrees = _span("degrees", degrees)
        if len(translate) != 2 or not all(0.0 <= share <= 1.0 for share in translate):
            raise ValueError(f"translate is {list(translate)}, it must be two shares in [0, 1]: across and down")
        self.translate = tuple(translate)
        self.scale = interval("scale", scale, low=1e-6)
        ranges = shear if isinstance(shear, Sequence) and len(shear) == 4 else None
        self.shear = [_span("shear", ranges[:2] if ranges else shear), _span("shear", ranges[2:] if ranges else 0.0)]
        self.interpolation = check_sampling(interpolation)
        self.fill = fill

    def parameters_of(self, draw: Draw, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[B]`` degrees, ``[B, 2]`` pixels, ``[B]`` scale, ``[B, 2]`` degrees of shear; float64."""
        number = draw.uniform("affine", 6).double()
        shifts = [_between((-share * side, share * side), number[:, 1 + i]).round()
                  for i, (share, side) in enumerate(zip(self.translate, (width, height), strict=True))]
        shears = [_between(span, number[:, 4 + i]) for i, span in enumerate(self.shear)]
        return (_between(self.degrees, number[:, 0]), torch.stack(shifts, dim=1),
                _between(self.scale, number[:, 3]), torch.stack(shears, dim=1))

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        angle, shift, scale, shear = self.parameters_of(draw, *x.shape[-2:])
        none = torch.zeros_like(angle)
        along_x, along_y = shear.deg2rad().unbind(1)
        matrix = inverse_affine(angle.deg2rad(), (shift[:, 0], shift[:, 1]), scale, (along_x, along_y), (none, none))
        return sample_affine(x, matrix, self.interpolation, self.fill)
