"""What a method sees: lists of operations for each view, and the view on which a network is evaluated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations import bands, registry
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.ranges import Size
from ssl_zoo.sides import WORDS, Side, height_width, is_side
from ssl_zoo.signatures import fits

WHITE = 65535  # of 16-bit images of which nothing else is said
KINDS = ("global", "local")
# A JPEG is decoded smaller only if twice the pixels of the view are left on each side: measured on 60 photographs,
# views then differ from those of the whole file by 0.46 grey values in the mean and 8 at most; with 1.25, 0.68 and 13.
# A random crop's box comes from the size of the image at hand, and so may move by two of the larger pixels.
SPARE = 2.0


@dataclass(frozen=True)
class ViewSpec:
    """One entry of ``augmentation.views``.

    Args:
        ops: ``{modality/op: {option: value}}``, applied in order.
        size: side of the view in pixels, or its height and width.
        count: number of views of this entry, each with draws of its own.
        kind: global or local; a pipeline puts the global views first, otherwise in the order of the file.
        tie: ``{modality/op: view}``: take the draws of this operation from that view (a position in the final order).
        fraction: the side is this share of ``size``, for local views that follow the size of the images.
    """

    ops: Sequence[Any]
    size: Side
    count: int = 1
    kind: str = "global"
    tie: Mapping[str, int] = field(default_factory=dict)
    fraction: float = 1.0

    @property
    def side(self) -> int | tuple[int, int]:
        """Pixels of the finished view: of each side of a square, or height and width."""
        sides = [round(side * self.fraction) for side in height_width(self.size)]
        return sides[0] if isinstance(self.size, int) else (sides[0], sides[1])

    @classmethod
    def problems(cls, entry: Any) -> list[str]:
        """All that is wrong with one entry of a YAML list, its operations aside (``registry.check``)."""
        if not isinstance(entry, Mapping):
            return [f"a view is a mapping with ops and size, got {entry!r}"]
        known = [item.name for item in fields(cls)]
        found = [f"a view has no key {key!r}: {nearest(key, known)}" for key in entry if key not in known]
        found += [f"a view needs {key!r}" for key in ("ops", "size") if key not in entry]
        if entry.get("kind", "global") not in KINDS:
            found.append(f"kind={entry['kind']}: {nearest(entry['kind'], KINDS)}")
        if not isinstance(entry.get("ops", []), Sequence) or isinstance(entry.get("ops"), str):
            found.append(f"ops is {entry['ops']!r}, it must be a list of operations")
        if not fits(entry.get("count", 1), Size):
            found.append(f"count is {entry['count']!r}, it must be a whole number of at least 1")
        if not is_side(entry.get("size", 1)):
            found.append(f"size is {entry['size']!r}, it must be {WORDS}")
        return found

    @classmethod
    def parse(cls, entry: Any) -> ViewSpec:
        """One entry of a YAML list, checked."""
        if isinstance(entry, ViewSpec):
            return entry
        problems = cls.problems(entry) or registry.check(entry["ops"])
        if problems:
            raise ConfigError("augmentation.views: " + "; ".join(problems))
        return cls(**{str(key): value for key, value in entry.items()})


class View(nn.Module):
    """The operations of one view.

    Args:
        spec: what to build.
        position: of the view in the pipeline, the name of its draws.
    """

    def __init__(self, spec: ViewSpec, position: int):
        super().__init__()
        self.size = spec.side
        self.names = [registry.parse(entry)[0] for entry in spec.ops]
        self.ops = nn.ModuleList([registry.build(entry, spec.side) for entry in spec.ops])
        # A flip right behind a crop is done by it, bit for bit the same.
        self.fused = [getattr(op, "flips", False) and hasattr(after, "flipped")
                      for op, after in itertools.pairwise(self.ops)]
        self.draws = [(position, i) for i in range(len(self.ops))]   # (view, operation) whose numbers each one takes
        self.paths = [f"{position}/{name}" for name in self.names]
        for name, op in zip(self.names, self.ops, strict=True):
            if getattr(op, "tiles", False) and op is not self.ops[-1]:
                raise ConfigError(f"view {position}: {name} cuts a view into tiles and must be its last operation")

    def tie(self, tie: Mapping[str, int], views: Sequence[View]) -> None:
        """Take the draws of the named operations from another view that has them."""
        for name, view in tie.items():
            if name not in self.names:
                raise ConfigError(f"tie: this view has no operation {name!r}: {nearest(name, self.names)}")
            if not 0 <= view < len(views) or name not in views[view].names:
                raise ConfigError(f"tie: there is no {name!r} in view {view}, of {len(views)} views counted from 0")
            self.draws[self.names.index(name)] = (view, views[view].names.index(name))

    @property
    def crops_first(self) -> bool:
        """Whether images of any size will do, because the first operation cuts them."""
        return bool(self.ops) and getattr(self.ops[0], "crops", False)

    def _draw(self, i: int, draw: Draw) -> Draw:
        view, op = self.draws[i]
        return draw.child(("view", view)).child(op, self.paths[i])

    def reduction(self, height: int, width: int, draw: Draw) -> float:
        """How many times larger than needed an image ``height x width`` is, on both sides, for the leading crop."""
        reduction = getattr(self.ops[0], "reduction", None) if self.ops else None
        return 1.0 if reduction is None else reduction(height, width, self._draw(0, draw))

    def crop(self, image: Tensor, draw: Draw) -> Tensor:
        """The leading crop of one image ``[1, C, H, W]`` as it is stored; an image of a view without one stays."""
        if not self.crops_first:
            return image
        cut = getattr(self.ops[0], "cut", self.ops[0])
        return cut(image, self._draw(0, draw))

    def forward(self, x: Tensor, draw: Draw, start: int = 0, stop: int | None = None) -> Tensor:
        """Apply the operations ``[start, stop)``."""
        i, last = start, len(self.ops) if stop is None else stop
        while i < last:
            if i + 1 < last and self.fused[i]:
                flip: Any = self.ops[i + 1]
                x = self.ops[i](x, self._draw(i, draw), mirrored=flip.flipped(self._draw(i + 1, draw)))
                i += 2
            else:
                x = self.ops[i](x, self._draw(i, draw))
                i += 1
        if stop is None and x.shape[-2:] != height_width(self.size):
            raise ValueError(f"a view is {x.shape[-2]}x{x.shape[-1]}, its size is {self.size}; "
                             f"begin its ops with image/resize or image/random_resized_crop")
        return x


class Normalize(nn.Module):
    """``(x - mean) / std`` for each channel as one multiplication and addition; nothing for ``None``.

    Args:
        normalize: ``{"mean": [...], "std": [...]}``, one value or one for each channel.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, normalize: Mapping[str, Sequence[float]] | None, channels: int):
        super().__init__()
        self.active = normalize is not None
        if normalize is not None and set(normalize) != {"mean", "std"}:
            raise ConfigError(f"augmentation.normalize has {sorted(normalize)}; it wants mean and std, or null")
        mean, std = (normalize["mean"], normalize["std"]) if normalize is not None else ([0.0], [1.0])
        if len(mean) != len(std) or len(mean) not in (1, channels) or min(std) <= 0:
            raise ConfigError(f"augmentation.normalize has mean {list(mean)} and std {list(std)}; it wants 1 or "
                              f"{channels} of each for {channels}-channel images, std > 0, or null")
        scale = torch.tensor(list(std), dtype=torch.float64).reciprocal().view(-1, 1, 1)
        offset = -torch.tensor(list(mean), dtype=torch.float64).view(-1, 1, 1) * scale
        self.register_buffer("scale", scale.float(), persistent=False)
        self.register_buffer("offset", offset.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if self.scale.device != x.device:   # once: nobody owns a pipeline that would move it
            self.to(x.device)
        return torch.addcmul(self.offset, x, self.scale)


class ViewPipeline(nn.Module):
    """Images to views. Every random number is a function of the draw, the view and the operation.

    Args:
        views: entries as in :class:`ViewSpec`; for other bands than colour they are adapted, as ``changes`` says.
        normalize: ``{"mean": [...], "std": [...]}`` or None; applied last.
        channels: of the images.
        white: the value of 16-bit images that becomes 1.
    """

    def __init__(self, views: Sequence[Any], normalize: Mapping[str, Sequence[float]] | None, channels: int = 3,
                 white: int = WHITE):
        super().__init__()
        self.white = white
        parsed, self.changes = bands.adapted([ViewSpec.parse(view) for view in views], channels)
        specs = [spec for spec in parsed for _ in range(spec.count)]
        specs.sort(key=lambda spec: KINDS.index(spec.kind))
        if not specs:
            raise ConfigError("augmentation.views is empty; a method needs at least one view")
        self.counts = tuple(sum(spec.kind == kind for spec in specs) for kind in KINDS)
        self.sizes = [spec.side for spec in specs]
        views = [View(spec, position) for position, spec in enumerate(specs)]
        for view, spec in zip(views, specs, strict=True):
            view.tie(spec.tie, views)
        self.views = nn.ModuleList(views)
        self.normalize = Normalize(normalize, channels)

    @torch.no_grad()
    def forward(self, images: Tensor | list[Tensor], draw: Draw,
                skip_crops: bool = False) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Views of a batch, on its device.

        Args:
            images: ``[B, C, H, W]`` uint8, uint16, or float in [0, 1]; or a list with one such tensor for each view, on
                which :meth:`crop` has been done.
            draw: one slot for each row.
            skip_crops: the leading crop of each view has been done.

        Returns:
            Float32 ``[B, C, s, s]`` for each view, and what operations reported as ``"view/modality/op/name"``.
        """
        if isinstance(images, Tensor):
            images = [unit(images, self.white)] * len(self.views)
        else:
            images, skip_crops = [unit(x, self.white) for x in images], True
            if len(images) != len(self.views):
                raise ValueError(f"got images for {len(images)} views, the pipeline makes {len(self.views)}")
        # A crop is a matrix product, which autocast would round to the 8 bits of bfloat16.
        with torch.autocast(images[0].device.type, enabled=False):
            views = [self.normalize(view(x, draw, start=1 if skip_crops and view.crops_first else 0))
                     for view, x in zip(self.views, images, strict=True)]
        return views, dict(draw.reports)

    def shrink(self, draw: Draw) -> Callable[[int, int], int]:
        """What :class:`ssl_zoo.data.decode.Reader` may be told for the sample of ``draw`` (one slot)."""
        views = [view for view in self.views if isinstance(view, View)]
        largest = max(side for size in self.sizes for side in height_width(size))

        def factor(height: int, width: int) -> int:
            if min(height, width) < 2 * SPARE * largest:   # no box can be larger than the image: spare the drawing
                return 1
            return _eighths(min(view.reduction(height, width, draw) for view in views))

        return factor

    @torch.no_grad()
    def crop(self, image: Tensor, draw: Draw) -> list[Tensor]:
        """The leading crop of each view on one image, for workers: the rest is done on the batch.

        Args:
            image: ``[C, H, W]``, uint8, uint16, or float in [0, 1].
            draw: one slot.

        Returns:
            ``[C, s, s]`` of the same type for each view; the image itself for a view that begins with no crop.
        """
        views: list[Any] = list(self.views)
        return [view.crop(image[None], draw)[0] for view in views]

    def full(self, image: Tensor, draw: Draw) -> list[Tensor]:
        """All of it on one image ``[C, H, W]`` as :meth:`crop` takes it, for workers: finished views ``[C, s, s]``."""
        views, _ = self([x[None] for x in self.crop(image, draw)], draw)
        return [view[0] for view in views]


class EvalView(nn.Module):
    """The one view of evaluation; the same for every sample at every time.

    Args:
        ops: operations as in a view, without randomness (or with one draw that all samples share).
        size, normalize, channels, white: as in :class:`ViewPipeline`.
    """

    def __init__(self, ops: Sequence[Any], size: Side, normalize: Mapping[str, Sequence[float]] | None,
                 channels: int = 3, white: int = WHITE):
        super().__init__()
        self.white = white
        problems = registry.check(ops)
        if problems:
            raise ConfigError("augmentation.eval: " + "; ".join(problems))
        (spec,), self.changes = bands.adapted([ViewSpec(ops, size)], channels)
        self.view = View(spec, 0)
        self.normalize = Normalize(normalize, channels)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """uint8, uint16, or float in [0, 1], ``[B, C, H, W]`` to normalised float32 ``[B, C, s, s]``."""
        draw = Draw(stream_key(0, "eval", 0), images.new_zeros(len(images), dtype=torch.int64))
        with torch.autocast(images.device.type, enabled=False):
            return self.normalize(self.view(unit(images, self.white), draw))

    def shrink(self) -> Callable[[int, int], int]:
        """As :meth:`ViewPipeline.shrink`."""
        draw = Draw(stream_key(0, "eval", 0), torch.zeros(1, dtype=torch.int64))
        return lambda height, width: _eighths(self.view.reduction(height, width, draw))

    @torch.no_grad()
    def one(self, image: Tensor) -> Tensor:
        """One image ``[C, H, W]`` of any size to ``[C, s, s]``, resized as it is stored, as in a worker."""
        draw = Draw(stream_key(0, "eval", 0), torch.zeros(1, dtype=torch.int64))
        x = self.view.crop(image[None], draw)
        return self.normalize(self.view(unit(x, self.white), draw, start=int(self.view.crops_first)))[0]


def _eighths(reduction: float) -> int:
    """The factor by which a JPEG may be decoded smaller: SPARE times the pixels of the view are left on each side."""
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * SPARE <= reduction)


def unit(images: Tensor, white: int = WHITE) -> Tensor:
    """uint8 and uint16, whose white is 255 and ``white``, as float32 in [0, 1]; floats as float32."""
    if images.dtype == torch.uint8:
        return images.float().div_(255.0)
    # A crop may overshoot a white below the largest number.
    return images.float().div_(white).clamp_(max=1.0) if images.dtype == torch.uint16 else images.float()
