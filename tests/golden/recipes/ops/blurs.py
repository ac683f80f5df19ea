"""The kernel that a blur applies, at the border too, and what samples share of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.golden.recipes.ops.asked import Asked, draws
from tests.golden.recipes.registry import unequal, unmapped

SIGMA = 2.0  # the widest of all recorded, at which a kernel of few taps shows
LOST = 0.01  # of a kernel, to what an unlimited one has: about 11 taps at SIGMA
SIDE = 61  # pixels of the pictures, and so the most taps that can be seen
PIL = "PIL.ImageFilter.GaussianBlur(radius=sigma)"


def _alone(asked: Asked, **options: Any) -> Any:
    return asked.variant(**{"sigma": [SIGMA, SIGMA], "p": 1.0, **options})


def response(asked: Asked) -> Tensor:
    """``[SIDE]`` the kernel along one axis at SIGMA, for the size of the view."""
    x = torch.zeros(1, 3, SIDE, SIDE)
    x[..., SIDE // 2, SIDE // 2] = 1.0
    return _alone(asked)(x, draws(1))[0, 0].double().sum(0)


def taps_of(asked: Asked) -> int:
    """Taps of the kernel, all of which show where it is nearly flat."""
    x = torch.zeros(1, 3, SIDE, SIDE)
    x[..., SIDE // 2, SIDE // 2] = 1.0
    return int((_alone(asked, sigma=[SIDE, SIDE])(x, draws(1))[0, 0].sum(0) > 1e-4).sum())


def gaussian(taps: int) -> Tensor:
    place = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    weight = torch.exp(-0.5 * (place / SIGMA).square()) * (place.abs() <= taps // 2)
    return weight / weight.sum()


def boxes(passes: int = 3) -> Tensor:
    """Pillow's approximation: three boxes with fractions of a pixel at their ends (Gwosdek et al. 2011)."""
    length = math.sqrt(12 * SIGMA**2 / passes + 1)
    radius = int((length - 1) / 2)
    edge = (2 * radius + 1) * (radius * (radius + 1) - 3 * SIGMA**2 / passes)
    edge /= 6 * (SIGMA**2 / passes - (radius + 1) ** 2)
    place = (torch.arange(SIDE, dtype=torch.float64) - SIDE // 2).abs()
    box = torch.where(place <= radius, 1.0, torch.where(place == radius + 1, edge, 0.0)) / (2 * radius + 1 + 2 * edge)
    kernel = box
    for _ in range(passes - 1):
        kernel = torch.nn.functional.conv1d(kernel.view(1, 1, -1), box.view(1, 1, -1), padding=SIDE // 2).flatten()
    return kernel


def apart(one: Tensor, other: Tensor) -> float:
    """The share of a pixel that lies elsewhere."""
    return float((one - other).abs().sum() / 2)


def kernel(subject: str, wanted: Any, asked: Asked) -> Iterator[str]:
    """A number of taps; or Pillow's, which is not cut off: ours must not be either, as far as anyone sees."""
    ours, cut = response(asked), asked.theirs.get("truncated")
    taps = taps_of(asked)
    if isinstance(wanted, int) and cut is not False:
        if taps != wanted or apart(ours, gaussian(wanted)) > 1e-4:
            yield f"{subject}: {taps} taps at sigma {SIGMA:g} for a view of {asked.view.size}, recorded {wanted} taps"
    elif wanted == PIL and cut is not True:
        off = min(apart(ours, gaussian(SIDE)), apart(ours, boxes()))
        if off > LOST:
            view = f"for a view of {asked.view.size}"
            yield f"{subject}: {taps} taps lose {off:.1%} at sigma {SIGMA:g} {view}, recorded {wanted!r}, not cut off"
    else:
        yield unmapped(subject, f"{wanted} with truncated {cut}")


def truncated(subject: str, wanted: Any, asked: Asked) -> Iterator[str]:
    """Compared with the kernel; alone it says nothing."""
    if asked.theirs.get("kernel") is None or not isinstance(wanted, bool):
        yield unmapped(subject, wanted)


def padding(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    """A white picture gets dark edges if there are zeros around it."""
    edge = float(_alone(asked)(torch.ones(1, 3, SIDE, SIDE), draws(1))[0, 0, SIDE // 2, 0])
    dark = {"zeros (SAME)": True, "SAME (zeros)": True, "zeros": True, "reflect": False}
    if wanted not in dark:
        yield unmapped(subject, wanted)
    elif dark[wanted] != (edge < 0.9):
        yield f"{subject}: a white picture is {edge:.2f} at its edge, recorded {wanted!r}"


def library(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    """cv2 mirrors at the border and gives ``kernel`` taps."""
    if wanted != "cv2":
        yield unmapped(subject, wanted)
    else:
        yield from padding(subject, "reflect", asked)


def sigma_per(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    """Whether the samples of a batch have one width in common."""
    common = {"batch and view": True, "image": False}
    if wanted not in common:
        yield unmapped(subject, wanted)
        return
    x = torch.zeros(16, 3, SIDE, SIDE)
    x[..., SIDE // 2, SIDE // 2] = 1.0
    peaks = _alone(asked, sigma=[0.5, SIGMA])(x, draws(16))[:, 0, SIDE // 2, SIDE // 2]
    if bool(peaks.std() < 1e-6) != common[wanted]:
        yield unequal(subject, "batch and view" if peaks.std() < 1e-6 else "image", wanted)


def coin_per(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    """Whether some samples of a batch are blurred and others not."""
    common = {"image": False, "batch": True, "batch and view": True}
    if wanted not in common:
        yield unmapped(subject, wanted)
        return
    x = torch.zeros(64, 3, SIDE, SIDE)
    x[..., SIDE // 2, SIDE // 2] = 1.0
    blurred = _alone(asked, p=0.5)(x, draws(64))[:, 0, SIDE // 2, SIDE // 2] < 0.99
    if bool(blurred.all() or not blurred.any()) != common[wanted]:
        yield unequal(subject, f"{int(blurred.sum())} of 64 samples are blurred", wanted)
