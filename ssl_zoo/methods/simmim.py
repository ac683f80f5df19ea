"""SimMIM: hidden patches become mask tokens in the encoder, and one linear layer predicts their pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_over_ranks
from ssl_zoo.losses.reconstruction import masked_absolute_error, patchify, repaint
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.masking.random import block_grid, random_blocks
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Size
from ssl_zoo.sides import square


class SimMIM(Method):
    """SimMIM, Xie et al. 2022, https://arxiv.org/abs/2111.09886 (Sec. 3).

    As microsoft/SimMIM@0e71746 (``models/simmim.py``): the encoder sees all positions, hidden ones as one learned token
    before the positions are added; the head is linear; the loss is L1 over hidden pixels, as they are normalised for
    the network. The authors' ViT has shared relative positions and layer scale; ours is timm's with MAE's fixed
    positions (``backbone=vit_mae``). Their Swin is ``backbone=swin_base``.

    Args:
        mask_ratio: Share of the squares that is hidden, rounded up.
        mask_block: Side of a hidden square in tokens; the authors' 32 px are 2 patches of a ViT/16, and 1 place of the
            last map of a Swin, which predicts all pixels that it stands for.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    needs_tokens = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        mask_ratio: float = 0.6,
        mask_block: Size = 2,
    ) -> None:
        super().__init__(backbone, optimizer)
        if not 0 < mask_ratio <= 1:
            raise ValueError(f"mask_ratio={mask_ratio} must be above 0 and at most 1 (the authors' 0.6)")
        self.patch_size = backbone.token_size
        side = square(data_info) // self.patch_size
        block_grid((side, side), mask_block)  # refuses squares that do not tile the views
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.mask_features))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.head = nn.Linear(backbone.out_features, self.patch_size**2 * data_info.channels)
        self.mask_ratio = mask_ratio
        self.mask_block = mask_block

    def embed(self, view: Tensor) -> Tensor:
        """Mean of the patch tokens ``[B, F]``, as the authors fine-tune; no loss is ever put on the class token."""
        return self.backbone.forward_tokens(view).patches.mean(1)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        (view,) = batch.views                                                        # [B, C, H, W]
        mask = self.draw(view, batch.rng)                                            # [B, N]
        pred = self.predict(view, mask)                                              # [B, N, P]
        count = mean_over_ranks(mask.to(view.dtype).sum())
        return {"loss": masked_absolute_error(pred, patchify(view, self.patch_size), mask, count)}

    def draw(self, view: Tensor, rng: BatchRNG) -> Tensor:
        grid = self.grid(view)
        rows, columns = block_grid(grid, self.mask_block)
        noise = rng.sample("mask").uniform("noise", rows * columns)
        return random_blocks(noise, grid, self.mask_block, self.mask_ratio)

    def predict(self, view: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.backbone.forward_tokens(view, mask=mask, mask_token=self.mask_token).patches)

    def grid(self, view: Tensor) -> tuple[int, int]:
        return view.shape[2] // self.patch_size, view.shape[3] // self.patch_size

    @torch.no_grad()
    def reconstruct(self, view: Tensor, rng: BatchRNG) -> tuple[Tensor, Tensor]:
        """``view [B, C, H, W]`` with hidden patches 0, and with the predicted ones in their places."""
        mask = self.draw(view, rng)
        patches = patchify(view, self.patch_size)
        return repaint(patches, self.predict(view, mask), mask, self.patch_size, self.grid(view))
