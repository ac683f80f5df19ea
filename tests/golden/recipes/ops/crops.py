"""How random boxes are drawn, and how what they hold is resized."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden.recipes.ops.asked import Asked, draws, picture
from tests.golden.recipes.words import Grammar

ROWS, SHAPE = 8_000, (60, 150)
SCALE, RATIO = (0.5, 1.0), (0.5, 2.0)  # with which many boxes do not fit into the image
ATTEMPTS = 10  # of torchvision's rule
WITHIN = 0.03  # of means over ROWS boxes: four deviations at least
TORCHVISION = "attempts, then the largest central box"  # where nothing else is recorded
TENSORFLOW = "tf.image.sample_distorted_bounding_box"  # in the note of a crop: another rule, and no antialiasing


def _drawn(rng: np.random.Generator, attempts: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = SHAPE
    area = height * width * rng.uniform(*SCALE, (ROWS, attempts))
    ratio = np.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1]), (ROWS, attempts)))
    return np.sqrt(area / ratio).round(), np.sqrt(area * ratio).round()


@cache
def _clamped() -> np.ndarray:
    h, w = _drawn(np.random.default_rng(0), 1)
    return np.stack([h[:, 0].clip(max=SHAPE[0]), w[:, 0].clip(max=SHAPE[1])], 1)


@cache
def _retried() -> np.ndarray:
    h, w = _drawn(np.random.default_rng(0), ATTEMPTS)
    fits = (h <= SHAPE[0]) & (w <= SHAPE[1])
    first = fits.argmax(1)
    rows = np.arange(ROWS)
    found = np.stack([h[rows, first], w[rows, first]], 1)
    central = [SHAPE[0], round(SHAPE[0] * RATIO[1])]  # the image is wider than any allowed box of its height
    return np.where(fits.any(1)[:, None], found, central)


@cache
def _bounded() -> np.ndarray:
    """One box after another: a ratio, then a height with which the box fits; a tenth of the image at least."""
    rng, (height, width), found = np.random.default_rng(0), SHAPE, []
    while len(found) < ROWS:
        ratio = rng.uniform(*RATIO)
        low, high = (round(math.sqrt(share * height * width / ratio)) for share in SCALE)
        high = min(high, height, int((width + 0.5) / ratio))
        h = rng.integers(min(low, high), high, endpoint=True)
        if max(SCALE[0], 0.1) <= h * round(h * ratio) / (height * width) <= SCALE[1]:
            found.append([h, round(h * ratio)])
    return np.array(found)


def _statistics(sides: np.ndarray) -> np.ndarray:
    """Means of the sides, and shares of boxes as high and as wide as the image."""
    share = sides / np.array(SHAPE)
    return np.concatenate([share.mean(0), (share == 1).mean(0)])


def _ours(asked: Asked) -> np.ndarray:
    module: Any = asked.variant(scale=list(SCALE), ratio=list(RATIO))
    return module.boxes(draws(ROWS), *SHAPE).numpy()


def _rule(sides: Any) -> Any:
    def ask(match: re.Match[str], asked: Asked) -> str | None:
        boxes = _ours(asked)
        off = np.abs(_statistics(boxes[:, 2:]) - _statistics(sides())).max()
        return None if off < WITHIN else f"boxes are drawn by another rule (statistics differ by {off:.2f})"

    return ask


def _uniform_offset(match: re.Match[str], asked: Asked) -> str | None:
    module: Any = asked.variant(scale=[0.1, 0.1], ratio=[1.0, 1.0])  # every box fits
    boxes = module.boxes(draws(ROWS), 100, 100).numpy()
    place = boxes[:, :2] / (100 - boxes[:, 2:])
    even = abs(place.mean(0) - 0.5).max() < WITHIN and abs(place.std(0) - 12**-0.5).max() < WITHIN
    return None if even else "boxes do not lie anywhere in the image with equal chance"


RULES = Grammar(
    (r"one draw of area and log-ratio", _rule(_clamped)),
    (r"height and width rounded and clamped to the image", _rule(_clamped)),
    (r"uniform offset", _uniform_offset),
    (r"no retries", _rule(_clamped)),
    (r"no centre-crop fallback", _rule(_clamped)),
    (r"attempts, then the largest central box", _rule(_retried)),
    (r"tf\.image\.sample_distorted_bounding_box", _rule(_bounded)),
)


def rule(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    yield from RULES.differences(subject, wanted, asked)


def antialias(subject: str, wanted: bool, asked: Asked) -> Iterator[str]:
    """Resize a box to fewer pixels, with the recorded kernel: bilinear or bicubic, widened or not."""
    size, mode = 16, str(asked.theirs.get("interpolation"))
    module: Any = asked.variant(size=size)
    x, draw = picture(4, 72, 64), draws(4)
    out = module(x, draw)
    cut = [x[i : i + 1, :, top : top + h, left : left + w] for i, (top, left, h, w) in enumerate(draw.reports["box"])]
    wide = torch.cat([_resized(box, size, mode) for box in cut])
    thin = [torch.cat(one) for one in zip(*(_sampled(box, size, mode) for box in cut), strict=True)]
    fits = {"with": _close(out, wide), "without": any(_close(out, one) for one in thin)}
    if not fits["with" if wanted else "without"]:
        found = [name for name, fit in fits.items() if fit]
        yield f"{subject}: boxes are resized {(found or ['neither with nor without'])[0]} it, recorded {wanted!r}"


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs.clamp(0, 1)).abs().max() < 1e-3)


def _resized(box: Tensor, size: int, mode: str) -> Tensor:
    return F.interpolate(box, size=(size, size), mode=mode, antialias=True)


def _sampled(box: Tensor, size: int, mode: str) -> list[Tensor]:
    """Without antialiasing, with torch's cubic kernel (a = -3/4) and with Keys' of TensorFlow and JAX (a = -1/2)."""
    plain = F.interpolate(box, size=(size, size), mode=mode)
    if mode != "bicubic":
        return [plain]
    rows, columns = (_keys(side, size) for side in box.shape[-2:])
    return [plain, rows @ box @ columns.mT]


def _keys(source: int, size: int) -> Tensor:
    """``[size, source]`` weights of Keys' cubic convolution; pixels beyond the border do not count."""
    centre = (torch.arange(size) + 0.5) * source / size - 0.5
    distance = (centre[:, None] - torch.arange(source)).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weight = torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros(())))
    return weight / weight.sum(1, keepdim=True)
