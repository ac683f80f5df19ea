"""MAE: a transformer sees a quarter of an image's patches, and a small decoder paints the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_over_ranks
from ssl_zoo.losses.reconstruction import masked_square_error, patchify, repaint, standardize
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.masking.random import Masking, random_masking
from ssl_zoo.modules.pixel_decoder import PixelDecoder
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.sides import square


class MAE(Method):
    """Masked autoencoder, He et al. 2022, https://arxiv.org/abs/2111.06377 (Sec. 3).

    As facebookresearch/mae@efb2a80: positions are added before patches are dropped, the class token passes through
    encoder and decoder, and the loss counts hidden patches only. Pixels are standardised patch by patch, as in the
    paper's best runs; the authors' own flag (``--norm_pix_loss``) is off unless given. ``backbone=vit_mae`` has their
    fixed positions and starting weights.

    Args:
        decoder: :class:`ssl_zoo.modules.pixel_decoder.PixelDecoder` to be, 8 blocks of 512 for all their encoders.
        mask_ratio: Share of the patches that is hidden; ``int(N * (1 - mask_ratio))`` stay.
        normalize_pixels: Whether the target is a patch by its own mean and deviation, or its pixels.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    needs_tokens = drops_tokens = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        decoder: Callable[..., PixelDecoder],
        mask_ratio: float = 0.75,
        normalize_pixels: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.patch_size = backbone.size_step
        side = square(data_info) // self.patch_size
        random_masking(torch.zeros(1, side * side), mask_ratio)  # refuses a ratio that leaves nothing to see
        self.decoder = decoder(backbone.out_features, self.patch_size, data_info.channels, (side, side))
        self.mask_ratio = mask_ratio
        self.normalize_pixels = normalize_pixels

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        (view,) = batch.views                                                        # [B, C, H, W]
        target = patchify(view, self.patch_size)                                     # [B, N, P]
        if self.normalize_pixels:
            target = standardize(target).patches
        masking = self.draw(view, batch.rng)
        pred = self.predict(view, masking)                                           # [B, N, P]
        count = mean_over_ranks(masking.mask.to(view.dtype).sum())
        return {"loss": masked_square_error(pred, target, masking.mask, count)}

    def draw(self, view: Tensor, rng: BatchRNG) -> Masking:
        patches = (view.shape[2] // self.patch_size) * (view.shape[3] // self.patch_size)
        return random_masking(rng.sample("mask").uniform("noise", patches), self.mask_ratio)

    def predict(self, view: Tensor, masking: Masking) -> Tensor:
        tokens = self.backbone.forward_tokens(view, keep=masking.keep)               # [B, K, F] and the class
        return self.decoder(tokens, masking.restore)

    @torch.no_grad()
    def reconstruct(self, view: Tensor, rng: BatchRNG) -> tuple[Tensor, Tensor]:
        """What the encoder sees of ``view [B, C, H, W]`` (hidden patches 0), and with the decoder's patches instead.

        Standardised patches get the true patch's mean and deviation back, which the network cannot know.
        """
        patches, masking = patchify(view, self.patch_size), self.draw(view, rng)
        pred = self.predict(view, masking)
        if self.normalize_pixels:
            _, mean, deviation = standardize(patches)
            pred = pred * deviation + mean
        grid = (view.shape[2] // self.patch_size, view.shape[3] // self.patch_size)
        return repaint(patches, pred, masking.mask, self.patch_size, grid)
