"""What a method sees of images: sizes, crops that workers make, bands, normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ssl_zoo.augmentations import pipeline, registry
from ssl_zoo.augmentations.image import bands
from ssl_zoo.augmentations.pipeline import Operations, checked
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import WORDS, Side, height_width, is_side

WHITE = 65535  # of 16-bit images of which nothing else is said
# A JPEG is decoded smaller only if twice the pixels of the view are left on each side: measured on 60 photographs,
# views then differ from those of the whole file by 0.46 grey values in the mean and 8 at most; with 1.25, 0.68 and 13.
# A random crop's box comes from the size of the image at hand, and so may move by two of the larger pixels.
SPARE = 2.0


@dataclass(frozen=True)
class ViewSpec(pipeline.ViewSpec):
    """One entry of ``augmentation.views``, with its size.

    Args:
        size: side of the view in pixels, or its height and width.
        fraction: the side is this share of ``size``, for local views that follow the size of the images.
    """

    needed: ClassVar[tuple[str, ...]] = ("ops", "size")

    size: Side
    fraction: float = field(default=1.0, kw_only=True)

    @property
    def side(self) -> int | tuple[int, int]:
        """Pixels of the finished view: of each side of a square, or height and width."""
        sides = [round(side * self.fraction) for side in height_width(self.size)]
        return sides[0] if isinstance(self.size, int) else (sides[0], sides[1])

    @classmethod
    def problems(cls, entry: Any) -> list[str]:
        found = super().problems(entry)
        if isinstance(entry, Mapping) and not is_side(entry.get("size", 1)):
            found.append(f"size is {entry['size']!r}, it must be {WORDS}")
        return found


class View(Operations):
    """The operations of one view of images.

    Args:
        spec, position: as of :class:`Operations`.
    """

    def __init__(self, spec: ViewSpec, position: int, facts: Mapping[str, Any] | None = None):
        super().__init__(spec, position)   # operations on images learn nothing of the source but the size of the view
        self.size = spec.side
        # A flip right behind a crop is done by it, bit for bit the same.
        self.fused = [getattr(op, "flips", False) and hasattr(after, "flipped")
                      for op, after in itertools.pairwise(self.ops)]
        for name, op in zip(self.names, self.ops, strict=True):
            if getattr(op, "tiles", False) and op is not self.ops[-1]:
                raise ConfigError(f"view {position}: {name} cuts a view into tiles and must be its last operation")

    @property
    def crops_first(self) -> bool:
        """Whether images of any size will do, because the first operation cuts them."""
        return bool(self.ops) and getattr(self.ops[0], "crops", False)

    def reduction(self, height: int, width: int, draw: Draw) -> float:
        """How many times larger than needed an image ``height x width`` is, on both sides, for the leading crop."""
        reduction = getattr(self.ops[0], "reduction", None) if self.ops else None
        return 1.0 if reduction is None else reduction(height, width, self.draw_of(0, draw))

    def crop(self, image: Tensor, draw: Draw) -> Tensor:
        """The leading crop of one image ``[1, C, H, W]`` as it is stored; an image of a view without one stays."""
        if not self.crops_first:
            return image
        cut = getattr(self.ops[0], "cut", self.ops[0])
        return cut(image, self.draw_of(0, draw))

    def forward(self, x: Tensor, draw: Draw, start: int = 0, stop: int | None = None) -> Tensor:
        """Apply the operations ``[start, stop)``."""
        i, last = start, len(self.ops) if stop is None else stop
        while i < last:
            if i + 1 < last and self.fused[i]:
                flip: Any = self.ops[i + 1]
                x = self.ops[i](x, self.draw_of(i, draw), mirrored=flip.flipped(self.draw_of(i + 1, draw)))
                i += 2
            else:
                x = self.ops[i](x, self.draw_of(i, draw))
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


class ViewPipeline(pipeline.ViewPipeline):
    """Images to views.

    Args:
        views: entries as in :class:`ViewSpec`; for other bands than colour they are adapted, as ``changes`` says.
        normalize: ``{"mean": [...], "std": [...]}`` or None; applied last.
        channels: of the images.
        white: the value of 16-bit images that becomes 1.
    """

    spec = ViewSpec
    operations = View
    cuts = True

    def __init__(self, views: Sequence[Any], normalize: Mapping[str, Sequence[float]] | None, channels: int = 3,
                 white: int = WHITE):
        parsed, changes = bands.adapted([ViewSpec.parse(view) for view in views], channels)
        super().__init__(parsed)
        self.white = white
        self.changes = changes
        self.sizes = [spec.side for spec in self.specs]
        self.ending = Normalize(normalize, channels)

    @property
    def normalize(self) -> Normalize:
        assert isinstance(self.ending, Normalize)
        return self.ending

    @torch.no_grad()
    def forward(self, images: Tensor | list[Tensor], draw: Draw,
                prepared: bool = False) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Views of a batch, on its device.

        Args:
            images: ``[B, C, H, W]`` uint8, uint16, or float in [0, 1]; or a list with one such tensor for each view, on
                which :meth:`crop` has been done.
            draw: one slot for each row.
            prepared: the leading crop of each view has been done.

        Returns:
            Float32 ``[B, C, s, s]`` for each view, and what operations reported as ``"view/modality/op/name"``.
        """
        if isinstance(images, Tensor):
            images = [unit(images, self.white)] * len(self.views)
        else:
            images, prepared = [unit(x, self.white) for x in images], True
            if len(images) != len(self.views):
                raise ValueError(f"got images for {len(images)} views, the pipeline makes {len(self.views)}")
        # A crop is a matrix product, which autocast would round to the 8 bits of bfloat16.
        with torch.autocast(images[0].device.type, enabled=False):
            views = [self.ending(view(x, draw, start=1 if prepared and view.crops_first else 0))
                     for view, x in zip(self.views, images, strict=True)]
        return views, dict(draw.reports)

    def hint(self, draw: Draw) -> Callable[[int, int], int]:
        """What :class:`ssl_zoo.data.image.decode.Reader` may be told for the sample of ``draw`` (one slot)."""
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

    @staticmethod
    def stack(rows: int) -> Stack:
        return Stack(rows)


class EvalView(pipeline.EvalView):
    """The one view of evaluation; the same for every image at every time.

    Args:
        ops: operations as in a view, without randomness (or with one draw that all samples share).
        size, normalize, channels, white: as in :class:`ViewPipeline`.
    """

    view: View

    def __init__(self, ops: Sequence[Any], size: Side, normalize: Mapping[str, Sequence[float]] | None,
                 channels: int = 3, white: int = WHITE):
        (spec,), changes = bands.adapted([ViewSpec(checked(ops), size)], channels)
        super().__init__(View(spec, 0), Normalize(normalize, channels))
        self.white = white
        self.changes = changes

    @property
    def normalize(self) -> Normalize:
        assert isinstance(self.ending, Normalize)
        return self.ending

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """uint8, uint16, or float in [0, 1], ``[B, C, H, W]`` to normalised float32 ``[B, C, s, s]``."""
        draw = Draw(stream_key(0, "eval", 0), images.new_zeros(len(images), dtype=torch.int64))
        with torch.autocast(images.device.type, enabled=False):
            return self.ending(self.view(unit(images, self.white), draw))

    def hint(self) -> Callable[[int, int], int]:
        """As :meth:`ViewPipeline.hint`."""
        draw = Draw(stream_key(0, "eval", 0), torch.zeros(1, dtype=torch.int64))
        return lambda height, width: _eighths(self.view.reduction(height, width, draw))

    @torch.no_grad()
    def one(self, image: Tensor) -> Tensor:
        """One image ``[C, H, W]`` of any size to ``[C, s, s]``, resized as it is stored, as in a worker."""
        draw = Draw(stream_key(0, "eval", 0), torch.zeros(1, dtype=torch.int64))
        x = self.view.crop(image[None], draw)
        return self.ending(self.view(unit(x, self.white), draw, start=int(self.view.crops_first)))[0]

    @staticmethod
    def stack(rows: int) -> Stack:
        return Stack(rows)


class Stack:
    """Tensors of one row after the other, as ``torch.stack`` would make them of all rows at the end.

    Each row is copied while it is still in the cache of the core; in a worker it goes at once where the main process
    will read it. The ratio of ``loader_224_vs_lightly`` was 1.16 to 1.22 without, and is 1.26 to 1.37.

    Args:
        rows: How many will come.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.views: list[Tensor] = []   # [rows, ...] each
        self._filled = 0

    def add(self, row: list[Tensor]) -> None:
        if not self._filled:
            self.views = [_empty(self.rows, x) for x in row]
        for tensor, x in zip(self.views, row, strict=True):
            tensor[self._filled] = x
        self._filled += 1


def _empty(rows: int, like: Tensor) -> Tensor:
    if get_worker_info() is None:
        return like.new_empty(rows, *like.shape)
    # As torch's default_collate: moving a tensor there later would copy it.
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(rows * like.numel() * like.element_size())
    return like.new_empty(0).set_(storage).view(rows, *like.shape)


def _eighths(reduction: float) -> int:
    """The factor by which a JPEG may be decoded smaller: SPARE times the pixels of the view are left on each side."""
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * SPARE <= reduction)


def unit(images: Tensor, white: int = WHITE) -> Tensor:
    """uint8 and uint16, whose white is 255 and ``white``, as float32 in [0, 1]; floats as float32."""
    if images.dtype == torch.uint8:
        return images.float().div_(255.0)
    # A crop may overshoot a white below the largest number.
    return images.float().div_(white).clamp_(max=1.0) if images.dtype == torch.uint16 else images.float()


class ImageAugmentation(pipeline.Augmentation):
    """What ``conf/augmentation`` has for images, without a ``_target_``.

    Args:
        views, eval, where: as of :class:`ssl_zoo.augmentations.pipeline.Augmentation`; ``eval`` may have a ``size``.
        normalize: ``{mean, std}``, measured, or None.
    """

    modality = "image"
    drawn_by = "ssl_zoo.report.views.save_data_views"
    neighbours_drawn_by = "ssl_zoo.report.neighbours.save_neighbours"
    pipeline = ViewPipeline

    def __init__(self, views: Sequence[Any], eval: Mapping[str, Any], normalize: Any = None, where: str = "auto"):
        super().__init__(views, eval, where)
        self.normalize = normalize

    @classmethod
    def finetuning_view(cls, config: Mapping[str, Any], ops: Sequence[Any]) -> dict[str, Any]:
        # The network's channels are those of its evaluation: brightness, edges.
        made = [entry for entry in config["augmentation"]["eval"]["ops"]
                if getattr(registry.get(registry.parse(entry)[0]), "other_channels", False)]
        return {"count": 1, "size": config["data"]["image_size"], "ops": [*ops, *made]}

    @classmethod
    def problems(cls, views: Sequence[Any], evaluation: Mapping[str, Any]) -> list[str]:
        found = super().problems(views, evaluation)
        size = evaluation.get("size")   # where it is not the images'
        if size is not None and not (isinstance(size, int) and size >= 1):
            found.append(f"augmentation.eval.size={size!r}: wanted a whole number of pixels, or null for "
                         "data.image_size")
        return found
