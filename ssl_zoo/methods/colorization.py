"""Colorization: from the brightness of an image, the colour of each of its pixels as one of some hundred bins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.augmentations.image.colorspace import lab_to_rgb
from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.levels import vector_and_maps, widths_of
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_of_chosen, sum_over_ranks
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.losses.colorization import annealed_mean, colour_rows, rebalanced_divergence, regression_rows, soft_bins
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.color_bins import AB, BINS, counted, square_index
from ssl_zoo.modules.color_decoder import ColorDecoder
from ssl_zoo.modules.color_prior import ColorPrior, prior_problem, read_prior
from ssl_zoo.modules.color_views import views_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Part, Positive, Size
from ssl_zoo.sides import square


class Colorization(Method):
    """Zhang et al. 2016, https://arxiv.org/abs/1603.08511 (eq. 1-5), as richzhang/colorization, the Caffe layers.

    View 0 is L as (L - 50) / 50, the encoder's only channel; view 1 the colours of the same crop, ab / 110. Targets are
    every ``stride``-th pixel, as far as the encoder's map is coarser, not a mean of pixels. ``siggraph17`` is the
    objective of richzhang/colorization-pytorch without its hints: hard bins of a square, and the colours as numbers.

    Args:
        decoder: :class:`ssl_zoo.modules.color_decoder.ColorDecoder` to be, called with the channels of the map.
        form: ``eccv16``: soft bins of sRGB's gamut, divergence summed over pixels, rare colours with larger gradients,
            grey images with none; ``siggraph17``: cross-entropy and regression, grey images left out.
        stride: Pixels from one target to the next.
        neighbours, sigma, uniform: Of soft bins, and of the weights of rare ones (``eccv16``).
        prior: .npy file of the bins' shares, read when training begins; None: counted.
        regression: Weight of the distance of colours (``siggraph17``).
        grey: Images whose a and b stay within this (``siggraph17``: range less together) are grey.
        temperature: Of the mean by which :meth:`reconstruct` paints.

    Raises:
        ConfigError: For images without colours, or an encoder without maps and tokens.
    """

    tensor_views = True
    views_allowed = (2, 0)
    pictures = ("brightness", "painted")  # what reconstruct gives
    centres: Tensor  # [Q, 2]

    def __init__(
        self, backbone: Backbone, optimizer: OptimizerRecipe, data_info: DataInfo, decoder: Callable[..., ColorDecoder],
        form: Literal["eccv16", "siggraph17"] = "eccv16", stride: Size = 4, neighbours: Size = 10,
        sigma: Positive = 5.0, uniform: Part = 0.5, prior: str | None = None, regression: NonNegative = 10.0,
        grey: NonNegative = 5.0, temperature: Positive = 0.38,
    ) -> None:  # fmt: skip
        super().__init__(backbone, optimizer)
        require("method.form", form, BINS)
        if data_info.channels != 3:
            raise ConfigError(f"method=colorization learns colours, and images have {data_info.channels} channels; "
                              "wanted data.channels=3")
        centres = BINS[form]()
        width = widths_of(backbone, 1, square(data_info), [-1], [1])[1]
        self.decoder = decoder(width, len(centres), regression=form == "siggraph17")
        self.register_buffer("centres", centres, persistent=False)
        self.prior = ColorPrior(len(centres))
        self.form, self.stride, self.neighbours, self.sigma, self.uniform = form, stride, neighbours, sigma, uniform
        self.prior_file, self.factor, self.grey, self.temperature = prior, regression, grey, temperature

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        return views_problem(views) or prior_problem(settings.get("prior"), len(BINS[settings["form"]]()))

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.prior_file is not None:  # not before: who judges the encoder need not have it
            self.prior.tell(read_prior(self.prior_file, len(self.centres)))

    def paint(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features ``[B, F]``, logits ``[B, Q, h, w]`` and colours ``[B, 2, h, w]`` (or None) of ``[B, 1, H, W]``."""
        vector, last = vector_and_maps(self.backbone, view, [-1])
        h, w = (max(-(-side // self.stride), found) for side, found in zip(view.shape[2:], last.shape[2:], strict=True))
        return vector.flatten(1), *self.decoder(last, (h, w))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, logits, colours = self.paint(batch.views[0])                              # [B, F], [B, Q, h, w]
        ab = AB * batch.views[1].to(self.centres.dtype)                              # [B, 2, H, W]
        at = F.interpolate(ab, logits.shape[2:], mode="nearest")                     # [B, 2, h, w]
        out = self.soft(logits, at) if colours is None else self.hard(logits, at, colours, ab)
        return {**out, "features": h}

    def soft(self, logits: Tensor, at: Tensor) -> dict[str, Tensor]:
        target = soft_bins(at, self.centres, self.neighbours, self.sigma)            # [B, K, h, w]
        seen = sum_over_ranks(counted(target, len(self.centres)))                    # [Q]
        rare = self.prior.weights(seen, self.uniform)[target.index[:, 0]]            # [B, h, w], of the nearest bin
        coloured = (at.abs() > self.grey).flatten(1).any(1)                          # [B]
        return {"loss": rebalanced_divergence(logits, target, rare * coloured[:, None, None])}

    def hard(self, logits: Tensor, at: Tensor, colours: Tensor, ab: Tensor) -> dict[str, Tensor]:
        coloured = (ab.amax((2, 3)) - ab.amin((2, 3))).sum(1) >= self.grey           # [B]
        colours = F.interpolate(colours, ab.shape[2:], mode="bilinear", align_corners=False)     # [B, 2, H, W]
        classes = mean_of_chosen(colour_rows(logits, square_index(at)), coloured)
        numbers = self.factor * mean_of_chosen(regression_rows(colours, ab / AB), coloured)
        return {"loss": classes + numbers, "classes": classes, "numbers": numbers}

    @torch.no_grad()
    def reconstruct(self, view: Tensor, rng: BatchRNG) -> tuple[Tensor, Tensor]:
        """``[B, 1, H, W]`` as grey and in the colours that the network gives it: ``[B, 3, H, W]`` in [0, 1]."""
        _, logits, _ = self.paint(view)
        ab = annealed_mean(logits, self.centres, self.temperature)                   # [B, 2, h, w]
        ab = F.interpolate(ab, view.shape[2:], mode="bilinear", align_corners=False)
        grey, painted = (lab_to_rgb(torch.cat([50 + 50 * view, x], 1)) for x in (torch.zeros_like(ab), ab))
        return grey.clamp(0, 1), painted.clamp(0, 1)
