"""Integer sequences of unequal length: a kind of sample that the project has never heard of.

``tests/test_new_modality.py`` copies this folder to a place of its own; docs/modalities.md explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.pipeline import Augmentation
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.data.source import DamagedFile, Splits
from ssl_zoo.ranges import Share, Size
from ssl_zoo.samples import View


@dataclass
class Letters(View):
    """Sequences one after the other."""

    values: Tensor  # [sum of L] int64
    lengths: Tensor  # [B] int64

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sample(self) -> Tensor:
        """``[sum of L]``: of which sample each value is."""
        return torch.arange(len(self), device=self.lengths.device).repeat_interleave(self.lengths)

    @property
    def place(self) -> Tensor:
        """``[sum of L]``: where each value stands in its sample."""
        first = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.values), device=self.values.device) - first[self.sample]

    def select(self, index: Tensor) -> Letters:
        parts = self.values.split(self.lengths.tolist())
        return Letters(torch.cat([parts[i] for i in index.tolist()]), self.lengths[index])

    @classmethod
    def concat(cls, views: Sequence[Letters]) -> Letters:
        return cls(torch.cat([view.values for view in views]), torch.cat([view.lengths for view in views]))

    def kept(self, mask: Tensor) -> Letters:
        lengths = torch.zeros_like(self.lengths).index_add_(0, self.sample, mask.long())
        return Letters(self.values[mask], lengths)


class Source:
    """Sequences of four kinds, each of which prefers letters of its own."""

    damage_limit = 3
    classes = ["a", "b", "c", "d"]
    baseline_name = "letter counts"
    vocabulary = 12

    def __init__(self, samples: int, seed: int, in_memory: bool, damaged: Sequence[int] = ()) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(samples) % 4
        lengths = torch.randint(5, 20, (samples,), generator=generator)
        self.damaged = set(damaged)
        self.in_memory = in_memory
        self.rows = []
        for label, length in zip(self.labels.tolist(), lengths.tolist(), strict=True):
            own = torch.randint(3 * label, 3 * label + 3, (length,), generator=generator)
            other = torch.randint(0, self.vocabulary, (length,), generator=generator)
            self.rows.append(torch.where(torch.rand(length, generator=generator) < 0.6, own, other))

    @property
    def facts(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Tensor:
        if index in self.damaged:
            raise DamagedFile(f"row {index}", "it is torn")
        return self.rows[index]

    def fetch(self, index: Tensor) -> Letters:
        return self.collate([self.rows[i] for i in index.tolist()])

    def collate(self, samples: Sequence[Tensor]) -> Letters:
        return Letters(torch.cat(list(samples)), torch.tensor([len(sample) for sample in samples]))

    def to(self, device: torch.device) -> Source:
        return self

    def baseline(self, view: Letters) -> Tensor:
        counts = torch.zeros(len(view), self.vocabulary)
        return counts.index_put_((view.sample, view.values), torch.ones(len(view.values)), accumulate=True)


def letters(
    samples: Size, in_memory: bool = True, damaged: list[int] | None = None, root: Any = None, download: bool = False
) -> Splits:
    return Splits(Source(samples, 0, in_memory, damaged or ()), Source(16, 1, in_memory))


@register("letters/crop")
class Crop(nn.Module):
    """A piece of each sequence, at least ``least`` of it."""

    def __init__(self, least: Share) -> None:
        super().__init__()
        self.least = least

    def forward(self, view: Letters, draw: Draw) -> Letters:
        share = self.least + (1 - self.least) * draw.uniform("share")
        length = (view.lengths * share).ceil().long().clamp(min=1)
        first = ((view.lengths - length + 1) * draw.uniform("first")).long()
        place = view.place - first[view.sample]
        return view.kept((place >= 0) & (place < length[view.sample]))


@register("letters/replace")
class Replace(nn.Module):
    """Each letter becomes any other one with probability ``p``."""

    def __init__(self, p: Share, vocabulary: Size | None = None) -> None:
        super().__init__()
        self.p = p
        self.vocabulary = vocabulary

    def forward(self, view: Letters, draw: Draw) -> Letters:
        most = int(view.lengths.max())
        at = view.sample, view.place
        other = draw.integers("letter", self.vocabulary or 1, most)[at]
        return Letters(torch.where(draw.uniform("replace", most)[at] < self.p, other, view.values), view.lengths)


class LetterViews(Augmentation):
    modality = "letters"


class Bag(nn.Module):
    """The mean of a vector for each letter, and two layers with batch norm."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.letters = nn.EmbeddingBag(vocabulary, width, mode="mean")
        self.layers = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, view: Letters) -> Tensor:
        return self.layers(self.letters(view.values, view.lengths.cumsum(0) - view.lengths))


class LetterBackbone(Backbone):
    def example(self) -> Letters:
        return Letters(torch.tensor([0, 1, 2, 3, 1]), torch.tensor([2, 3]))


def bag(vocabulary: Size | None = None, width: Size = 16, weights: str | None = None) -> LetterBackbone:
    from ssl_zoo.backbones.weights import start_from

    net = Bag(vocabulary or 1, width)
    backbone = LetterBackbone(net, Origin("ssl_zoo", "new_modality.bag", {"vocabulary": vocabulary}), width)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
