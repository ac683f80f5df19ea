"""Colour operations. Each equals torchvision's functional of the same name for the parameters of each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.accelerated import kernels_for
from ssl_zoo.augmentations.image.common import apply_to, full_precision
from ssl_zoo.augmentations.image.geometry import interval, probability
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)   # torchvision's numbering of the four adjustments
Step = Callable[[Tensor, Tensor], Tensor]   # images and a number for each of them
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]   # images, and for each of them which adjustment and its number


def luminance(x: Tensor) -> Tensor:
    """``[B, 1, H, W]`` grey value with torchvision's weights; one channel is its own, of others it is the mean."""
    if x.shape[1] == 1:
        return x
    if x.shape[1] != 3:
        return x.mean(dim=1, keepdim=True)
    red, green, blue = x.unbind(1)
    return torch.add(red * 0.2989, green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def rotate_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of RGB images ``[B, 3, H, W]`` by ``turn [B]`` of a full circle (``adjust_hue``).

    HSV is left in the form ``channel = value - chroma * clamp(2 - 6 d, 0, 1)`` with ``d`` the distance on the circle
    between the hue and the one at which the channel is smallest, in turns: no saturation, none of the six cases of the
    usual conversion. Cases are weighed with numbers that are 0 or 1: comparing and choosing take torch ten times as
    long on a CPU as an addition.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)                                       # [B, H, W]
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red, is_green = (red - value).sign_().add_(1.0), (green - value).sign_().add_(1.0)
    sixths = torch.lerp((red - green).add_(chroma, alpha=4.0), (blue - red).add_(chroma, alpha=2.0), is_green)
    sixths = torch.lerp(sixths, green - blue, is_red).div_(chroma.clamp(min=1e-30))              # grey: 0
    hue = sixths.mul_(1 / 6).add_(turn.view(-1, 1, 1))
    distance = torch.stack([hue - lowest for lowest in (0.5, 5 / 6, 1 / 6)], dim=1)              # red, green, blue
    distance = distance.sub_(distance.round()).abs_()
    share = distance.mul_(-6.0).add_(2.0).clamp_(0.0, 1.0)                                       # [B, 3, H, W]
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1.0)


@register("image/color_jitter")
class ColorJitter(nn.Module):
    """Brightness, contrast, saturation and hue in an order of their own for each sample (torchvision ``ColorJitter``).

    Args:
        brightness, contrast, saturation: the factor is uniform in [max(0, 1 - x), 1 + x], or in the [low, high] given.
        hue: the turn is uniform in [-x, x] of a full circle, x <= 0.5, or in the [low, high] given.
        p: share of the samples that are changed at all.
    """

    colour = ("saturation", "hue")
    neutral = (1.0, 1.0, 1.0, 0.0)   # what changes nothing, of each adjustment

    def __init__(self, brightness: float | Sequence[float] = 0.0, contrast: float | Sequence[float] = 0.0,
                 saturation: float | Sequence[float] = 0.0, hue: float | Sequence[float] = 0.0, p: float = 1.0):
        super().__init__()
        self.ranges = [self._factors("brightness", brightness), self._factors("contrast", contrast),
                       self._factors("saturation", saturation), self._turns(hue)]
        self.p = probability(p)

    @staticmethod
    def _factors(name: str, value: float | Sequence[float]) -> tuple[float, float]:
        if isinstance(value, Sequence):
            return interval(name, value)
        if value < 0:
            raise ValueError(f"{name} is {value}, it must not be negative")
        return max(0.0, 1.0 - value), 1.0 + value

    @staticmethod
    def _turns(value: float | Sequence[float]) -> tuple[float, float]:
        return interval("hue", value if isinstance(value, Sequence) else [-value, value], low=-0.5, high=0.5)

    def parameters_of(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """``[B, 4]`` the adjustment at each position, ``[B, 4]`` the number of each adjustment (``neutral``: none)."""
        number = draw.uniform("factors", 4)
        columns = [low + (high - low) * number[:, i] for i, (low, high) in enumerate(self.ranges)]
        applied = draw.uniform("apply") < self.p
        columns = [torch.where(applied, *pair) for pair in zip(columns, self.neutral, strict=True)]
        return draw.permutation(4, "order"), torch.stack(columns, dim=1)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        order, factors = self.parameters_of(draw)
        factors = factors.to(x.dtype)
        kernels = kernels_for(x)
        if kernels is not None and x.shape[1] == 3:
            return kernels.jitter(x, order, factors)
        turns = self.ranges[HUE] != (0.0, 0.0)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return jitter_by_order(x, order, factors, _STEPS, self.neutral)
        return jitter_by_mask(x, order, factors, turns, blend)


def jitter_by_order(x: Tensor, order: Tensor, factors: Tensor, kinds: Sequence[Step],
                    neutral: Sequence[float]) -> Tensor:
    """On a CPU samples of one order go through their four steps together: each is done once, where it is its turn, and
    so few images at a time stay in the cache of a core.

    Args:
        kinds: The four adjustments, which may write into their input, by torchvision's numbers.
        neutral: The number with which each of them changes nothing.
    """
    same = factors == factors.new_tensor(neutral)                                                # [B, 4] nothing to do
    steps = torch.where(same.gather(1, order), len(kinds), order)                                # [B, 4]
    code = (steps * steps.new_tensor([125, 25, 5, 1])).sum(dim=1)
    code, rows = code.sort()
    _, counts = code.unique_consecutive(return_counts=True)
    parts: list[Tensor] = []
    for turns, own in zip(steps[rows[counts.cumsum(0) - 1]].tolist(), rows.split(counts.tolist()), strict=True):
        part = x.clone() if len(own) == len(x) else x.index_select(0, own)
        for step in turns:
            if step < len(kinds):
                part = kinds[step](part, factors[own, step])
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts).index_select(0, rows.argsort())


def _brighter(x: Tensor, factor: Tensor) -> Tensor:
    return x.mul_(factor.view(-1, 1, 1, 1)).clamp_(0.0, 1.0)


def _contrasted(x: Tensor, factor: Tensor) -> Tensor:
    means = x.mean(dim=(2, 3))                                                                   # [n, C]
    grey = luminance(means[:, :, None, None])                                                    # [n, 1, 1, 1]
    factor = factor.view(-1, 1, 1, 1)
    return x.mul_(factor).add_((1.0 - factor) * grey).clamp_(0.0, 1.0)


def _saturated(x: Tensor, factor: Tensor) -> Tensor:
    factor = factor.view(-1, 1, 1, 1)
    grey = luminance(x) * (1.0 - factor)
    return x.mul_(factor).add_(grey).clamp_(0.0, 1.0)


_STEPS = (_brighter, _contrasted, _saturated, rotate_hue)   # in place but the last; by torchvision's numbers


def jitter_by_mask(x: Tensor, order: Tensor, factors: Tensor, turns: bool, mix: Mix) -> Tensor:
    """On an accelerator nothing may depend on a count: three blends before the hue, the hue, three after it.

    A sample whose hue comes second takes part in the first blend before it and the last two after it.

    Args:
        turns: Whether there is any hue to turn.
        mix: Brightness, contrast and saturation, as :func:`blend` takes them.
    """
    hue_at = (order == HUE).int().argmax(dim=1)                                                  # [B]
    idle = order.new_full((), HUE)
    for position in range(3):
        x = _adjust(x, torch.where(hue_at > position, order[:, position], idle), factors, mix)
    if turns:
        turned = (factors[:, HUE] != 0).view(-1, 1, 1, 1)
        x = torch.where(turned, rotate_hue(x, factors[:, HUE]), x)
    for position in range(1, 4):
        x = _adjust(x, torch.where(hue_at < position, order[:, position], idle), factors, mix)
    return x


def _adjust(x: Tensor, adjustment: Tensor, factors: Tensor, mix: Mix) -> Tensor:
    """One step of each sample; a sample at its hue step is left as it is (factor 1)."""
    factor = factors.gather(1, adjustment.unsqueeze(1)).squeeze(1)
    return mix(x, adjustment, torch.where(adjustment == HUE, 1.0, factor))


def blend(x: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Brightness, contrast and saturation are one formula, ``factor * x + (1 - factor) * base``: black, the mean grey
    value of the image, its grey value.

    Args:
        kind: ``[B]``, BRIGHTNESS, CONTRAST or SATURATION; with anything else the factor must be 1.
        factor: ``[B]``, not negative.
    """
    kind, factor = kind.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    grey = luminance(x)                                                                          # [B, 1, H, W]
    rest = 1.0 - factor
    local = torch.where(kind == SATURATION, rest, 0.0)
    flat = torch.where(kind == CONTRAST, rest * grey.mean(dim=(2, 3), keepdim=True), 0.0)
    return (x * factor).add_(torch.addcmul(flat, grey, local)).clamp_(0.0, 1.0)


@register("image/grayscale")
class Grayscale(nn.Module):
    """Grey value in all three channels with probability ``p`` (torchvision ``RandomGrayscale``)."""

    needs_rgb = True

    def __init__(self, p: float = 0.1):
        super().__init__()
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return apply_to(x, draw.uniform("apply") < self.p, lambda images: luminance(images).expand_as(images))


@register("image/solarize")
class Solarize(nn.Module):
    """Invert what is at least ``threshold`` bright, with probability ``p`` (torchvision ``RandomSolarize``).

    Args:
        threshold: in [0, 1]; 128 of 256 is 0.5.
    """

    def __init__(self, p: float = 0.2, threshold: float = 0.5):
        super().__init__()
        self.p = probability(p)
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}, it must lie in [0, 1]: pixels are floats")
        self.threshold = threshold

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        applied = (draw.uniform("apply") < self.p).view(-1, 1, 1, 1)
        return torch.where(applied & (x >= self.threshold), 1.0 - x, x)
