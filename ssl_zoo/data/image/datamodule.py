"""Data of images: their size and bands, what they are normalised by, where crops are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ssl_zoo.augmentations import pipeline
from ssl_zoo.augmentations.image import bands
from ssl_zoo.augmentations.image.views import WHITE, EvalView, ImageAugmentation, ViewPipeline
from ssl_zoo.augmentations.pipeline import Augmentation
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.image.second_look import SecondLook
from ssl_zoo.data.image.statistics import normalization
from ssl_zoo.data.image.view_checks import check_views
from ssl_zoo.data.source import Splits, origin
from ssl_zoo.sides import Side, height_width, plain_side
from ssl_zoo.signatures import passing_on

SMALL = 96  # pixels up to which a CPU makes views faster in batches than one by one


@passing_on
class ImageData(DataModule):
    """One data set of images.

    Args:
        source: Called with ``root``, ``download``, ``image_size`` and ``channels``; gives the splits.
        batch_size: As of :class:`DataModule`.
        image_size: Of the views unless ``augmentation`` says otherwise: side of a square, or height and width.
        channels: Bands of the images: grey (1) and colour (3) become each other, others are as many as the files have.
        augmentation: ``{views, eval, normalize, where}`` as ``conf/augmentation`` has it; views for colour adapt to
            other bands.
        stored_size: Of images that are kept in memory at one size, from which views are cut; None: ``image_size``.
        more: As of :class:`DataModule`.
    """

    default_augmentation = ImageAugmentation
    of_the_network = ("image_size", "channels")
    pair = "an image and its mirrored middle"
    views: ViewPipeline
    eval_view: EvalView

    def __init__(
        self,
        source: Callable[..., Splits],
        batch_size: int,
        image_size: Side,
        channels: int,
        augmentation: Mapping[str, Any] | Augmentation,
        stored_size: Side | None = None,
        **more: Any,
    ) -> None:
        self.image_size = plain_side(image_size)
        self.channels = channels
        self.stored_size = image_size if stored_size is None else stored_size
        super().__init__(source, batch_size, augmentation, **more)

    def _read(self, source: Callable[..., Splits], root: Any, download: bool) -> Splits:
        return source(root=root, download=download, image_size=self.stored_size, channels=self.channels)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"image_size": self.image_size, "channels": self.channels}

    @property
    def decisions(self) -> list[str]:
        changes = list(dict.fromkeys([*self.views.changes, *self.eval_view.changes]))
        own = getattr(self._splits.train, "decisions", ())
        return [*own, *bands.told(changes, self.channels), *self.normalization.told]

    def resolved(self, device: torch.device) -> dict[str, Any]:
        measured = {"augmentation.normalize": self.normalization.numbers} if self.normalization.measured else {}
        return super().resolved(device) | measured

    def _prepare_views(self) -> None:
        self.normalization = normalization(self.augmentation.normalize, self._whole, self.channels)
        self.white: int = getattr(origin(self._whole), "white", WHITE)

    def _make_views(self) -> ViewPipeline:
        return ViewPipeline(self.augmentation.views, self.normalization.numbers, self.channels, self.white)

    def _make_eval(self) -> EvalView:
        ops, size = self.augmentation.eval["ops"], self.augmentation.eval.get("size") or self.image_size
        return EvalView(ops, size, self.normalization.numbers, self.channels, self.white)

    def second_look(self, view: pipeline.EvalView) -> EvalView:
        assert isinstance(view, EvalView)
        return SecondLook(view)

    def _check_views(self) -> None:
        stored = origin(self.train).image_size  # type: ignore[attr-defined]
        check_views(self.views, self.eval_view, self.channels, stored, self.image_size)

    def _made_by(self, device: torch.device) -> tuple[bool, str]:
        if device.type != "cpu":
            return False, "auto: an accelerator always makes the views itself"
        if self.train.in_memory:
            return False, "auto: a CPU makes views of what lies in memory in batches"
        large = max(height_width(self.image_size)) > SMALL
        size = f"{max(height_width(self.image_size))} px is {'more than' if large else 'at most'} {SMALL}"
        return large, f"auto: {size}, where a CPU is faster {'image by image' if large else 'in batches'}"
