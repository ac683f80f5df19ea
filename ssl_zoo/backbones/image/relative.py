"""Relative positions: what two patches add to each other's attention depends on how far apart they lie."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.errors import ConfigError

SPECIAL = 3  # rows of the table behind the displacements: to a patch from the class token, back, and to itself


class RelativePositions(nn.Module):
    """One number for each head and displacement, shared by all blocks; it starts at 0.

    ``RelativePositionBias`` of models/vision_transformer.py in microsoft/SimMIM@0e71746, after BEiT,
    https://arxiv.org/abs/2106.08254. The parameter has the authors' name.

    Args:
        grid: Rows and columns of the patches of a global view.
        heads: Of every block.
    """

    def __init__(self, grid: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.grid = grid
        displacements = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(displacements + SPECIAL, heads))

    def forward(self, grid: tuple[int, int], prefix: int, keep: Tensor | None = None) -> Tensor:
        """What is added to the scores of attention.

        Args:
            grid: Rows and columns of a view.
            prefix: P, tokens in front of the patches.
            keep: ``[B, K]`` int64, the patches that enter the blocks; None: all.

        Returns:
            ``[heads, P + N, P + N]``, queries by keys; ``[B, heads, P + K, P + K]`` with ``keep``.

        Raises:
            ConfigError: If the view has more rows or columns of patches than a global one.
        """
        if grid[0] > self.grid[0] or grid[1] > self.grid[1]:
            raise ConfigError(
                f"backbone.positions=relative knows displacements within {self.grid[0]} x {self.grid[1]} patches, and "
                f"a view has {grid[0]} x {grid[1]}; set data.image_size to the largest view's"
            )
        bias = self.relative_position_bias_table[self._index(grid, prefix)].permute(2, 0, 1)  # [heads, P + N, P + N]
        if keep is None:
            return bias
        first = torch.arange(prefix, device=keep.device).expand(len(keep), -1)
        kept = torch.cat([first, keep + prefix], 1)  # [B, P + K]
        return bias[:, kept.unsqueeze(2), kept.unsqueeze(1)].transpose(0, 1)

    def _index(self, grid: tuple[int, int], prefix: int) -> Tensor:
        """``[P + N, P + N]``: rows of the table."""
        table = self.relative_position_bias_table
        sides = [torch.arange(side, device=table.device) for side in grid]
        y, x = torch.meshgrid(*sides, indexing="ij")
        y, x = y.flatten(), x.flatten()
        down = y[:, None] - y + self.grid[0] - 1
        right = x[:, None] - x + self.grid[1] - 1
        size, last = prefix + len(y), len(table) - 1
        index = torch.full((size, size), last, device=table.device)
        index[:prefix, prefix:] = last - 2
        index[prefix:, :prefix] = last - 1
        index[prefix:, prefix:] = down * (2 * self.grid[1] - 1) + right
        return index


def use_relative(net: Any) -> None:
    """In place: no absolute positions; :class:`RelativePositions` for all blocks."""
    net.pos_embed = None
    net.rel_pos_bias = RelativePositions(tuple(net.patch_embed.grid_size), net.blocks[0].attn.num_heads)
