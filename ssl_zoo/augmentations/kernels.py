"""Random numbers and views as kernels for a GPU, in Triton: one or two passes over the images each.

The operations of torch that they stand for take ten to sixty launches and as many passes over the memory. Only
``accelerated.kernels_for`` imports this module, so that nobody else needs Triton. ``TRITON_INTERPRET=1`` runs all of it
on a CPU.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

# ``tl.full`` and ``tl.reduce`` where ``tl.zeros`` and ``tl.sum`` would read better: these two are kernels themselves,
# which the interpreter takes only if it was chosen before Triton was imported.
BLOCK = 512  # pixels, or numbers, of a program
FIRST, SECOND, STRIDE = (tl.constexpr(n) for n in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD1342543DE82EF95))
CONTRAST, SATURATION, HUE = (tl.constexpr(n) for n in (1, 2, 3))  # as in image/color.py


def _blocks(count: int) -> int:
    return triton.cdiv(count, BLOCK)


@triton.jit
def _bounded(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


# Random numbers (ssl_zoo.augmentations.rng)


@triton.jit
def _mix(z):
    z = (z ^ (z >> 30)) * FIRST
    z = (z ^ (z >> 27)) * SECOND
    return z ^ (z >> 31)


@triton.jit(do_not_specialize=["key"])
def _bits_kernel(counter, key, out, numbers, total, uniform: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    live = i < total
    row = tl.load(counter + i // numbers, live, 0).to(tl.uint64, bitcast=True)
    element = (i % numbers + 1).to(tl.uint64) * STRIDE
    z = _mix(_mix(row + key.to(tl.int64).to(tl.uint64, bitcast=True)) + element)
    if uniform:
        tl.store(out + i, (z >> 40).to(tl.int32).to(tl.float32) * (1.0 / 16777216.0), live)
    else:
        tl.store(out + i, z.to(tl.int64, bitcast=True), live)


def random(counter: Tensor, key: int, numbers: int, uniform: bool) -> Tensor:
    """``[B, numbers]`` for the counters ``[B]`` of the rows: float32 in [0, 1), or all 64 bits as int64."""
    out = counter.new_empty(len(counter), numbers, dtype=torch.float32 if uniform else torch.int64)
    if out.numel():
        with _device_of(counter):
            _bits_kernel[(_blocks(out.numel()),)](
                counter, key, out, numbers, out.numel(), uniform=uniform, block=BLOCK
            )
    return out


# Crops (ssl_zoo.augmentations.image.geometry and sampling)


@triton.jit
def _boxes_kernel(
    shapes, places, limits, out, rows, height, width,
    attempts: tl.constexpr, clamps: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """All of it in float64, as on a CPU, so that both round to the same pixels; ``limits`` holds its constants."""
    row = tl.program_id(0) * block + tl.arange(0, block)
    live = row < rows
    least_area, more_area = tl.load(limits), tl.load(limits + 1)
    least_ratio, more_ratio = tl.load(limits + 2), tl.load(limits + 3)
    zero = tl.full([block], 0.0, tl.float64)
    top, left = zero + tl.load(limits + 4), zero + tl.load(limits + 5)
    tall, wide = zero + tl.load(limits + 6), zero + tl.load(limits + 7)
    missing = live
    down = tl.load(places + row * 2, live, 0.0).to(tl.float64)
    across = tl.load(places + row * 2 + 1, live, 0.0).to(tl.float64)
    for i in range(0, attempts):
        number = shapes + (row * attempts + i) * 2
        area = least_area + more_area * tl.load(number, live, 0.0).to(tl.float64)
        ratio = tl.exp(least_ratio + more_ratio * tl.load(number + 1, live, 0.0).to(tl.float64))
        h, w = tl.floor(tl.sqrt(area / ratio) + 0.5), tl.floor(tl.sqrt(area * ratio) + 0.5)
        if clamps:
            h, w = tl.minimum(tl.maximum(h, 1.0), height), tl.minimum(tl.maximum(w, 1.0), width)
        taken = missing & (h > 0) & (h <= height) & (w > 0) & (w <= width)
        top = tl.where(taken, tl.floor(down * (height - h + 1)), top)
        left = tl.where(taken, tl.floor(across * (width - w + 1)), left)
        tall, wide = tl.where(taken, h, tall), tl.where(taken, w, wide)
        missing = missing & (taken == 0)
    target = out + row * 4
    tl.store(target, top.to(tl.int64), live)
    tl.store(target + 1, left.to(tl.int64), live)
    tl.store(target + 2, tall.to(tl.int64), live)
    tl.store(target + 3, wide.to(tl.int64), live)


def boxes(
    shapes: Tensor, places: Tensor, height: int, width: int, limits: tuple[float, ...], clamps: bool = False
) -> Tensor:
    """Boxes of Inception's crop, ``[B, 4]`` int64: top, left, height, width.

    Args:
        shapes: ``[B, attempts, 2]`` uniform numbers for area and ratio.
        places: ``[B, 2]`` uniform numbers for top and left.
        limits: Least area and range of the area (pixels), least logarithm of the ratio and its range; then the box of a
            sample none of whose attempts lies within the image.
        clamps: Cut a box that is larger than the image to its sides.
    """
    out = shapes.new_empty(len(shapes), 4, dtype=torch.int64)
    if out.numel():
        with _device_of(shapes):
            _boxes_kernel[(_blocks(len(shapes)),)](
                shapes, places, _constants(limits, shapes.device), out, len(shapes), height, width,
                attempts=shapes.shape[1], clamps=clamps, block=BLOCK,
            )  # fmt: skip
    return out


@cache
def _constants(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Triton takes a number of Python's as float32; and the host waits for a copy, so it is made once."""
    return torch.tensor(numbers, dtype=torch.float64, device=device)


@triton.jit
def _weight(distance, bicubic: tl.constexpr):
    if bicubic:
        inner = ((1.5 * distance - 2.5) * distance) * distance + 1.0
        far = tl.minimum(distance, 2.0)
        outer = ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0
        return tl.where(distance < 1.0, inner, outer)
    else:
        return tl.maximum(1.0 - distance, 0.0)


@triton.jit
def _crop_kernel(
    x, out, boxes, mirrored, height, width, size,
    channels: tl.constexpr, bicubic: tl.constexpr, flips: tl.constexpr, widens: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * block + tl.arange(0, block)
    live = pixel < size * size
    down = (pixel // size).to(tl.float32) + 0.5
    across = (pixel % size).to(tl.float32) + 0.5
    if flips:
        turned = tl.load(mirrored + image) != 0
        across = tl.where(turned, size - across, across)
    top, left = tl.load(boxes + image * 4), tl.load(boxes + image * 4 + 1)
    tall, wide = tl.load(boxes + image * 4 + 2), tl.load(boxes + image * 4 + 3)
    scale_y, scale_x = tall.to(tl.float32) / size, wide.to(tl.float32) / size
    stretch_y, stretch_x = scale_y * 0.0 + 1.0, scale_x * 0.0 + 1.0
    if widens:
        stretch_y, stretch_x = tl.maximum(scale_y, 1.0), tl.maximum(scale_x, 1.0)
    reach: tl.constexpr = 2.0 if bicubic else 1.0
    centre_y, centre_x = down * scale_y, across * scale_x
    first_y = tl.floor(centre_y - reach * stretch_y + 0.5)
    first_x = tl.floor(centre_x - reach * stretch_x + 0.5)
    taps_y = tl.ceil(2 * reach * stretch_y).to(tl.int32) + 1
    taps_x = tl.ceil(2 * reach * stretch_x).to(tl.int32) + 1
    plane = height * width
    source = x + image * channels * plane + top * width + left
    zero = tl.full([block], 0.0, tl.float32)
    a, b, c = zero, zero, zero
    total_y, total_x = zero, zero
    for i in range(0, taps_x):
        column = first_x + i
        inside = (column >= 0) & (column < wide)
        total_x += tl.where(inside, _weight(tl.abs((column + 0.5 - centre_x) / stretch_x), bicubic), 0.0)
    for j in range(0, taps_y):
        row = first_y + j
        within = (row >= 0) & (row < tall)
        weight_y = tl.where(within, _weight(tl.abs((row + 0.5 - centre_y) / stretch_y), bicubic), 0.0)
        total_y += weight_y
        line = source + row.to(tl.int32) * width
        for i in range(0, taps_x):
            column = first_x + i
            inside = within & (column >= 0) & (column < wide) & live
            weight = weight_y * _weight(tl.abs((column + 0.5 - centre_x) / stretch_x), bicubic)
            place = line + column.to(tl.int32)
            a += weight * tl.load(place, inside, 0.0)
            if channels > 1:
                b += weight * tl.load(place + plane, inside, 0.0)
                c += weight * tl.load(place + 2 * plane, inside, 0.0)
    total = total_y * total_x
    target = out + image * channels * size * size + pixel
    _store(target, a / total, live, bicubic)
    if channels > 1:
        _store(target + size * size, b / total, live, bicubic)
        _store(target + 2 * size * size, c / total, live, bicubic)


@triton.jit
def _store(target, value, live, bounded: tl.constexpr):
    tl.store(target, _bounded(value) if bounded else value, live)


def crop(
    x: Tensor, boxes: Tensor, size: int, interpolation: str, mirrored: Tensor | None, antialias: bool = True
) -> Tensor:
    """``boxes [B, 4]`` (int64: top, left, height, width) of float32 ``[B, 1 or 3, H, W]``, resized to ``size``."""
    x = x.contiguous()
    out = x.new_empty(*x.shape[:2], size, size)
    if out.numel():
        flips = mirrored is not None
        with _device_of(x):
            _crop_kernel[(len(x), _blocks(size * size))](
                x, out, boxes.contiguous(), mirrored.to(torch.int8) if mirrored is not None else boxes,
                x.shape[2], x.shape[3], size, channels=x.shape[1], bicubic=interpolation == "bicubic", flips=flips,
                widens=antialias, block=BLOCK,
            )  # fmt: skip
    return out


# Colours (ssl_zoo.augmentations.image.color)


@triton.jit
def _plus(a, b):
    return a + b


@triton.jit
def _grey(red, green, blue):
    return red * 0.2989 + green * 0.587 + blue * 0.114


@triton.jit
def _channel(hue, lowest, value, chroma):
    distance = hue - lowest
    distance = tl.abs(distance - tl.floor(distance + 0.5))
    return value - chroma * _bounded(2.0 - 6.0 * distance)


@triton.jit
def _adjusted(red, green, blue, kind, factor, mean):
    """One step of a whole image: ``kind`` and ``factor`` are single numbers."""
    if kind == HUE:
        if factor != 0.0:
            value = tl.maximum(tl.maximum(red, green), blue)
            chroma = value - tl.minimum(tl.minimum(red, green), blue)
            sixths = tl.where(green == value, (blue - red) + 2.0 * chroma, (red - green) + 4.0 * chroma)
            sixths = tl.where(red == value, green - blue, sixths)
            hue = sixths / tl.maximum(chroma, 1e-30) * (1.0 / 6.0) + factor
            red = _channel(hue, 0.5, value, chroma)
            green = _channel(hue, 5.0 / 6.0, value, chroma)
            blue = _channel(hue, 1.0 / 6.0, value, chroma)
    else:
        base = red * 0.0
        if kind == CONTRAST:
            base += mean
        if kind == SATURATION:
            base += _grey(red, green, blue)
        base *= 1.0 - factor
        red = _bounded(red * factor + base)
        green = _bounded(green * factor + base)
        blue = _bounded(blue * factor + base)
    return red, green, blue


@triton.jit
def _pixels(x, image, pixel, live, plane):
    place = x + image * 3 * plane + pixel
    return tl.load(place, live, 0.0), tl.load(place + plane, live, 0.0), tl.load(place + 2 * plane, live, 0.0)


@triton.jit
def _mean_kernel(x, order, factors, sums, plane, block: tl.constexpr):
    """Sums of the grey values that the image has when the turn comes to its contrast."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * block + tl.arange(0, block)
    live = pixel < plane
    red, green, blue = _pixels(x, image, pixel, live, plane)
    before = image >= 0
    for step in tl.static_range(4):
        kind = tl.load(order + image * 4 + step)
        before = before & (kind != CONTRAST)
        if before:
            factor = tl.load(factors + image * 4 + kind)
            red, green, blue = _adjusted(red, green, blue, kind, factor, 0.0)
    total = tl.reduce(tl.where(live, _grey(red, green, blue), 0.0), 0, _plus)
    tl.store(sums + image * tl.num_programs(1) + tl.program_id(1), total)


@triton.jit
def _jitter_kernel(x, out, order, factors, means, plane, block: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * block + tl.arange(0, block)
    live = pixel < plane
    red, green, blue = _pixels(x, image, pixel, live, plane)
    mean = tl.load(means + image)
    for step in tl.static_range(4):
        kind = tl.load(order + image * 4 + step)
        factor = tl.load(factors + image * 4 + kind)
        red, green, blue = _adjusted(red, green, blue, kind, factor, mean)
    place = out + image * 3 * plane + pixel
    tl.store(place, red, live)
    tl.store(place + plane, green, live)
    tl.store(place + 2 * plane, blue, live)


def jitter(x: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Float32 ``[B, 3, H, W]`` adjusted in the order ``[B, 4]`` of each image by the ``factors [B, 4]`` (by number)."""
    x, order, factors = x.contiguous(), order.contiguous(), factors.contiguous()
    plane, out = x.shape[2] * x.shape[3], torch.empty_like(x)
    if out.numel():
        grid = (len(x), _blocks(plane))
        sums = x.new_empty(grid)
        with _device_of(x):
            _mean_kernel[grid](x, order, factors, sums, plane, block=BLOCK)
            means = sums.sum(1) / plane
            _jitter_kernel[grid](x, out, order, factors, means, plane, block=BLOCK)
    return out


# Blur (ssl_zoo.augmentations.image.blur)


@triton.jit
def _blur_kernel(
    x, out, weights, applied, channels, height, width, radius,
    across: tl.constexpr, mirrors: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * block + tl.arange(0, block)
    live = pixel < height * width
    image = plane // channels
    source = x + plane * height * width
    if tl.load(applied + image) != 0:
        row, column = pixel // width, pixel % width
        total = tl.full([block], 0.0, tl.float32)
        for tap in range(0, 2 * radius + 1):
            at, last = (column if across else row) + tap - radius, (width if across else height) - 1
            inside = live
            if mirrors:
                at = tl.minimum(tl.abs(at), 2 * last - tl.abs(at))
            else:
                inside = live & (at >= 0) & (at <= last)
            place = row * width + at if across else at * width + column
            weight = tl.load(weights + image * (2 * radius + 1) + tap)
            total += weight * tl.load(source + place, inside, 0.0)
        tl.store(out + plane * height * width + pixel, total, live)
    else:
        tl.store(out + plane * height * width + pixel, tl.load(source + pixel, live, 0.0), live)


def blur(x: Tensor, applied: Tensor, weights: Tensor, mirrors: bool = True) -> Tensor:
    """Separable convolution of float32 ``[B, C, H, W]`` with ``weights [B, taps]`` where ``applied [B]``, mirrored at
    the border without its edge (a kernel may not be wider than that), or with zeros around."""
    x, weights, applied = x.contiguous(), weights.contiguous(), applied.to(torch.int8)
    middle, out = torch.empty_like(x), torch.empty_like(x)
    batch, channels, height, width = x.shape
    if out.numel():
        grid, radius = (batch * channels, _blocks(height * width)), weights.shape[1] // 2
        with _device_of(x):
            for source, target, across in ((x, middle, True), (middle, out, False)):
                _blur_kernel[grid](
                    source, target, weights, applied, channels, height, width, radius,
                    across=across, mirrors=mirrors, block=BLOCK,
                )  # fmt: skip
    return out


def _device_of(x: Tensor) -> torch.cuda.device | _Nowhere:
    """Triton launches on torch's current device, which need not be that of the images."""
    return torch.cuda.device(x.device) if x.is_cuda else _Nowhere()


class _Nowhere:
    """A CPU, in the interpreter."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
