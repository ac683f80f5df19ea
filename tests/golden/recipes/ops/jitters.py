"""What each part of a colour jitter does to a picture, and how strong it is."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from tests.golden.recipes.ops.asked import Asked, draws, picture
from tests.golden.recipes.registry import unequal
from tests.golden.recipes.words import Grammar, number

ROWS = 256
PARTS = ("brightness", "contrast", "saturation", "hue")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
# What a strength changes, in torchvision's rules.
TORCHVISION = {
    "brightness_rule": "multiplicative: x * U(1 - b, 1 + b)",
    "contrast_rule": "about the mean grey value",
    "saturation_rule": "about the grey value",
    "hue_rule": "in HSV",
}

# A rule as ``x, t -> changed``, and the t that it needs to make ``y`` of ``x`` in each pixel.
Base = Callable[[Tensor], Tensor]


def _grey(x: Tensor) -> Tensor:
    return TF.rgb_to_grayscale(x).expand_as(x)


BASES: dict[str, Base] = {  # a part moves away from a base: base + t * (x - base)
    "nothing": torch.zeros_like,
    "mean grey value": lambda x: _grey(x).mean((1, 2, 3), keepdim=True).expand_as(x),
    "channel's mean": lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
    "grey value": _grey,
    "brightest channel": lambda x: x.amax(1, keepdim=True).expand_as(x),
}


def _alone(asked: Asked, part: str) -> tuple[Tensor, Tensor]:
    """A picture for many samples, and what this part of the jitter alone makes of it."""
    others: dict[str, Any] = {name: 0.0 for name in PARTS if name != part}
    module: Any = asked.variant(**others, p=1.0)
    x = picture(ROWS, 6, 6, 0.25, 0.6)
    return x, module(x.clone(), draws(ROWS))


def _factors(x: Tensor, y: Tensor, base: Base) -> Tensor | None:
    """``[ROWS]`` factors with which pixels move away from ``base``; None: they do not."""
    centre = base(x)
    usable = ((x - centre).abs() > 0.02) & (y > 0.01) & (y < 0.99)
    ratio = torch.where(usable, (y - centre) / (x - centre), torch.nan).flatten(1)
    factor = ratio.nanmedian(1).values
    return _checked(factor, (centre + factor.view(-1, 1, 1, 1) * (x - centre)).clamp(0, 1), y)


def _shifts(x: Tensor, y: Tensor) -> Tensor | None:
    shift = torch.where((y > 0.01) & (y < 0.99), y - x, torch.nan).flatten(1).nanmedian(1).values
    return _checked(shift, (x + shift.view(-1, 1, 1, 1)).clamp(0, 1), y)


def _turns(x: Tensor, y: Tensor) -> Tensor | None:
    hue = [[colorsys.rgb_to_hsv(*image[:, 0, 0].tolist())[0] for image in images] for images in (x, y)]
    turn = torch.tensor([(new - old + 0.5) % 1 - 0.5 for old, new in zip(*hue, strict=True)])
    some = slice(0, ROWS, 16)  # torchvision turns one image at a time
    pairs = zip(x[some], turn[some].clamp(-0.5, 0.5).tolist(), strict=True)
    off = (torch.stack([TF.adjust_hue(image, t) for image, t in pairs]) - y[some]).abs().max()
    return turn if off < 2e-3 else None


def _checked(t: Tensor, made: Tensor, y: Tensor) -> Tensor | None:
    known = ~t.isnan()
    return t[known] if known.sum() > ROWS // 4 and (made - y)[known].abs().max() < 2e-3 else None


def _away_from(base: str) -> Callable[[Tensor, Tensor], Tensor | None]:
    return lambda x, y: _factors(x, y, BASES[base])


def _asks(part: str, read: Callable[[Tensor, Tensor], Tensor | None], words: str) -> Any:
    """A question whether a part changes pictures by a rule, in the range that the phrase names."""

    def ask(match: re.Match[str], asked: Asked) -> str | None:
        x, y = _alone(asked, part)
        if torch.equal(x, y):  # no strength, which is told where that is compared
            return None
        t = read(x, y)
        if t is None:
            return f"{part} does not change pictures {words}"
        if not any(match.groups()):
            return None
        low, high = (number(text) for text in match.groups())
        room = 0.04 * (high - low)
        inside = low - 1e-3 <= t.min() < low + room and high - room < t.max() <= high + 1e-3
        return None if inside else f"{part} {words} by {t.min():.3f} to {t.max():.3f}"

    return ask


RULES = {
    "brightness_rule": Grammar(
        (rf"additive: x \+ U\(({NUMBER}), ({NUMBER})\)", _asks("brightness", _shifts, "by adding")),
        (r"multiplicative: x \* U\(1 - b, 1 \+ b\)", _asks("brightness", _away_from("nothing"), "by a factor")),
    ),
    "contrast_rule": Grammar(
        (
            rf"about the channel's own mean, x U\(({NUMBER}), ({NUMBER})\)",
            _asks("contrast", _away_from("channel's mean"), "about the mean of each channel"),
        ),
        (
            r"about the mean grey value",
            _asks("contrast", _away_from("mean grey value"), "about the mean grey value"),
        ),
    ),
    "saturation_rule": Grammar(
        (
            rf"in HSV, x U\(({NUMBER}), ({NUMBER})\)",
            _asks("saturation", _away_from("brightest channel"), "in HSV"),
        ),
        (r"about the grey value", _asks("saturation", _away_from("grey value"), "about the grey value")),
    ),
    "hue_rule": Grammar(
        (rf"in HSV(?:, \+ U\(({NUMBER}), ({NUMBER})\))?", _asks("hue", _turns, "in HSV")),
    ),
}


def rule(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    yield from RULES[subject.rpartition(".")[2]].differences(subject, wanted, asked)


def strength(subject: str, wanted: float, asked: Asked) -> Iterator[str]:
    """A number b is the range [1 - b, 1 + b], of the hue [-b, b]."""
    part = subject.rpartition(".")[2]
    ours, middle = asked.option(part), 0.0 if part == "hue" else 1.0
    pair = list(ours) if isinstance(ours, (list, tuple)) else [max(0.0, middle - ours), middle + ours]
    low = middle - wanted if part == "hue" else max(0.0, middle - wanted)
    pair = [-ours, ours] if part == "hue" and not isinstance(ours, (list, tuple)) else pair
    if max(abs(pair[0] - low), abs(pair[1] - middle - wanted)) > 1e-9:
        yield unequal(subject, ours, wanted)


def clip(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    """Each part alone stays within the bounds on black and white pixels too, and brightness reaches them."""
    match = re.fullmatch(rf"\[({NUMBER}), ({NUMBER})\] after every part", wanted)
    if match is None:
        yield f"{subject}: cannot map {wanted!r}"
        return
    low, high = (number(text) for text in match.groups())
    for part in PARTS:
        module: Any = asked.variant(**{name: 0.0 for name in PARTS if name != part}, p=1.0)
        x = picture(ROWS, 6, 6)
        x[..., 0, 0], x[..., 1, 1] = 0.0, 1.0
        y = module(x, draws(ROWS))
        if y.min() < low or y.max() > high or (part == "brightness" and not (y.min() == low and y.max() == high)):
            yield f"{subject}: {part} gives {y.min():.3f} to {y.max():.3f}, recorded {wanted!r}"
