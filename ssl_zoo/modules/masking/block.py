"""Which patches of the global crops are hidden: blocks as in BEiT, single patches, and in how many of the crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import BatchRNG, Draw
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.errors import require
from ssl_zoo.ranges import NonNegative, Positive, Share

ASPECTS = (0.3, 1 / 0.3)  # height to width of a block, uniform in the logarithm
TRIES = 10  # for one more block, before a mask is left as it is
AT_ONCE = 8  # attempts between two questions whether all masks are done

Attempts = Callable[[int], Tensor]  # numbers of some attempts: uniform [M, A, 4], the next ones at each call
# Draws, crops, rows B, grid -> [crops * B, N] bool on the host: how many patches are hidden shows only in the numbers.
Masks = Callable[[BatchRNG, int, int, tuple[int, int]], Tensor]


@torch.no_grad()
def block_masks(
    targets: Tensor,
    attempts: Attempts,
    grid: tuple[int, int],
    smallest: float,
    largest: float = math.inf,
    aspects: tuple[float, float] = ASPECTS,
) -> Tensor:
    """Blocks of patches until ``targets`` are hidden, never more: BEiT, https://arxiv.org/abs/2106.08254 (algorithm 1).

    As ``ImageFolderMask.__getitem__`` (loader.py of bytedance/ibot@da316d8) and ``MaskingGenerator``
    (dinov2/data/masking.py of facebookresearch/dinov2@b8931f7), for all masks at once: a block is taken if it lies
    within the image and hides between one and the missing number of patches that were still seen; after ten blocks in
    a row that were not taken a mask stays as it is.

    Args:
        targets: ``[M]`` patches to hide, also fractions of a patch.
        attempts: Called with 0, 1, ...; ``[M, A, 4]`` uniform numbers for area, aspect, top and left of A blocks.
        grid: Rows and columns of patches.
        smallest: Least area that is drawn (patches).
        largest: Greatest area that is drawn and most patches that a block may add.
        aspects: Range of height / width.

    Returns:
        ``[M, h, w]`` bool, true where hidden.
    """
    targets = targets.double()
    mask = torch.zeros(len(targets), *grid, dtype=torch.bool, device=targets.device)
    hidden, failed = torch.zeros_like(targets), torch.zeros_like(targets)
    for call in count():
        rest = ((hidden < targets) & (failed < TRIES)).nonzero().squeeze(1)          # [R]
        if not len(rest):
            break
        m, done, misses, wanted = mask[rest], hidden[rest], failed[rest], targets[rest]
        for numbers in attempts(call)[rest].double().unbind(1):                       # [R, 4]
            missing = (wanted - done).clamp(max=largest)
            block, fits = _place(numbers, missing, grid, smallest, aspects)           # [R, h, w], [R]
            new = (block & ~m).sum((1, 2))
            taken = fits & (new > 0) & (new <= missing) & (done < wanted) & (misses < TRIES)
            m |= block & taken[:, None, None]
            done = done + new * taken
            misses = torch.where(taken, 0.0, misses + 1)
        mask[rest], hidden[rest], failed[rest] = m, done, misses
    return mask


def _place(
    numbers: Tensor, missing: Tensor, grid: tuple[int, int], smallest: float, aspects: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """One block for each of M masks, and whether it lies within the image: ``[M, h, w]``, ``[M]`` bool."""
    area_number, aspect_number, top_number, left_number = numbers.unbind(1)           # 4 x [M]
    low, high = (math.log(aspect) for aspect in aspects)
    area = smallest + (missing - smallest) * area_number
    aspect = (low + (high - low) * aspect_number).exp()
    height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    top, left = (top_number * (grid[0] - height + 1)).floor(), (left_number * (grid[1] - width + 1)).floor()
    block = _within(top, height, grid[0])[:, :, None] & _within(left, width, grid[1])[:, None, :]
    return block, (height < grid[0]) & (width < grid[1])


def _within(start: Tensor, length: Tensor, size: int) -> Tensor:
    """``[M, size]``: whether each place lies in ``[start, start + length)``."""
    places = torch.arange(size, device=start.device)
    return (places >= start[:, None]) & (places < (start + length)[:, None])


def random_masks(counts: Tensor, order: Tensor) -> Tensor:
    """Hide ``counts [M]`` single patches: the highest numbers of the permutations ``order [M, N]``; ``[M, N]`` bool."""
    return order >= order.shape[1] - counts[:, None]


def masked_patches(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Where the hidden patches are, and how many of them their image has, so that every image can count alike.

    Args:
        masks: ``[M, N]`` bool.

    Returns:
        ``[P]`` positions in ``[M * N]``, and ``[P]`` hidden patches of the same image.
    """
    index = masks.flatten().nonzero().squeeze(1)
    return index, masks.sum(1)[index // masks.shape[1]]


def _blocks(draw: Draw, crops: int) -> Attempts:
    """Numbers for ``crops`` masks of each row, crop by crop: ``[crops * B, A, 4]``."""
    return lambda call: draw.uniform(("blocks", call), crops, AT_ONCE, 4).transpose(0, 1).flatten(0, 1)


class RatioMasks:
    """Every crop draws its own share of hidden patches: iBOT, https://arxiv.org/abs/2111.07832 (appendix A).

    Args:
        ratios: One of them is chosen for each crop; the paper's 0 and 0.3 leave half of the crops whole.
        spreads: Uniform around the chosen ratio by so much to both sides: with 0.2 the other half hides 0.1 to 0.5.
        shape: ``block``, or ``random``: single patches.
        aspect_ratio: Range of the height of a block over its width (``--pred_aspect_ratio``).

    Raises:
        ValueError: On lists of different lengths, shares outside [0, 1], or an unknown shape.
    """

    def __init__(
        self,
        ratios: Sequence[float] = (0.0, 0.3),
        spreads: Sequence[NonNegative] = (0.0, 0.2),
        shape: Literal["block", "random"] = "block",
        aspect_ratio: Sequence[Positive] = ASPECTS,
    ) -> None:
        if len(ratios) != len(spreads) or not ratios:
            raise ValueError(f"masks.spreads has {len(spreads)} numbers, wanted one for each of ratios, {len(ratios)}")
        if any(not spread <= ratio <= 1 - spread for ratio, spread in zip(ratios, spreads, strict=True)):
            raise ValueError(f"masks: ratios {list(ratios)} with spreads {list(spreads)} leave [0, 1]")
        if len(aspect_ratio) != 2 or aspect_ratio[0] > aspect_ratio[1]:
            raise ValueError(f"masks.aspect_ratio={list(aspect_ratio)} is no range; wanted [lowest, highest]")
        require("masks.shape", shape, ("block", "random"))
        self.ratios = list(ratios)
        self.spreads = list(spreads)
        self.shape = shape
        self.aspects = (float(aspect_ratio[0]), float(aspect_ratio[1]))

    def __call__(self, rng: BatchRNG, crops: int, rows: int, grid: tuple[int, int]) -> Tensor:
        draw, patches = rng.host.sample("masks"), grid[0] * grid[1]
        u = draw.uniform("ratio", crops, len(self.ratios)).double()                   # [B, crops, R]
        choice = draw.integers("choice", len(self.ratios), crops)                     # [B, crops]
        low = u.new_tensor([ratio - spread for ratio, spread in zip(self.ratios, self.spreads, strict=True)])
        ratio = low + 2 * u.new_tensor(self.spreads) * u
        targets = ratio.gather(2, choice[:, :, None])[:, :, 0].T.flatten() * grid[0] * grid[1]   # [crops * B]
        if self.shape == "random":
            order = torch.stack([draw.permutation(patches, f"order{i}") for i in range(crops)]).flatten(0, 1)
            return random_masks(targets.long(), order)
        smallest = (min(grid) // 3) ** 2
        return block_masks(targets, _blocks(draw, crops), grid, smallest, aspects=self.aspects).flatten(1)


class StratifiedMasks:
    """A fixed share of the crops of the whole batch, their ratios spread evenly: DINOv2's ``collate_data_and_cast``.

    As dinov2/data/collate.py of facebookresearch/dinov2@b8931f7, where every process does so with its own crops; here
    the processes share one draw for the global batch, so that their number does not matter.

    Args:
        share: Of the crops that get a mask, in [0, 1].
        ratios: Range of the hidden share of patches; the i-th masked crop draws from the i-th of equal parts of it.
        smallest: Least area of a block that is drawn (patches).
        largest: Greatest area of a block as a share of the patches.
    """

    def __init__(
        self,
        share: float = 0.5,
        ratios: Sequence[float] = (0.1, 0.5),
        smallest: Positive = 4.0,
        largest: Share = 0.5,
    ) -> None:
        if not 0 <= share <= 1 or len(ratios) != 2 or not 0 <= ratios[0] <= ratios[1] <= 1:
            raise ValueError(
                f"masks: share={share} and ratios={list(ratios)} must lie in [0, 1], ratios as [lowest, highest]"
            )
        self.share = share
        self.ratios = (float(ratios[0]), float(ratios[1]))
        self.smallest = smallest
        self.largest = largest

    def __call__(self, rng: BatchRNG, crops: int, rows: int, grid: tuple[int, int]) -> Tensor:
        shared, total = rng.host.shared("masks"), crops * rows * world_size()
        counts = self.counts(shared.uniform("ratio", int(total * self.share)), total, grid[0] * grid[1])
        counts = counts[shared.permutation(total)].view(crops, world_size(), rows)    # crop-major, as the authors'
        draw, largest = rng.host.sample("masks"), self.largest * grid[0] * grid[1]
        own = counts[:, rank()].flatten()                                             # [crops * B]
        return block_masks(own, _blocks(draw, crops), grid, self.smallest, largest).flatten(1)

    def counts(self, u: Tensor, total: int, patches: int) -> Tensor:
        """``[total]`` patches to hide: those of the masked crops, one for each of ``u``, then zeros."""
        bounds = torch.linspace(*self.ratios, len(u) + 1, device=u.device, dtype=u.dtype)
        ratios = bounds[:-1] + (bounds[1:] - bounds[:-1]) * u
        hidden = (patches * ratios).long()
        return torch.cat([hidden, hidden.new_zeros(total - len(u))])
