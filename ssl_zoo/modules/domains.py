"""Two domains in one training set: a source, whose samples have labels, and a target, whose samples have none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_zoo.errors import ConfigError


@dataclass(frozen=True)
class Domains:
    """Who is of the source, and where it stands in a memory: classes of the source first, then all samples.

    Args:
        classes: Of the source; 0: there is none, and labels are not read.
    """

    classes: int

    def source(self, label: Tensor | None, index: Tensor) -> Tensor:
        """Whether samples with such labels (``[N]``, -1: none) are of the source: ``[N]`` bool."""
        return torch.zeros_like(index, dtype=torch.bool) if label is None or not self.classes else label >= 0

    def rows(self, label: Tensor | None, index: Tensor) -> Tensor:
        """``[N]`` rows of the memory: of the class for the source, of the sample itself for the target."""
        own = self.classes + index
        return own if label is None else torch.where(self.source(label, index), label, own)

    def check(self, label: Tensor | None) -> None:
        """Refuse ``[N]`` labels of a training set without both domains, if there should be a source.

        Raises:
            ConfigError: If all samples have a label, or none.
        """
        known = label >= 0 if self.classes and label is not None else None
        if known is not None and (bool(known.all()) or not bool(known.any())):
            found = "all" if known.any() else "none"
            raise ConfigError(
                f"method.source=true: {found} of the {len(known)} training samples have a label; wanted a labelled "
                "source domain and a target domain whose labels are -1, or method.source=false"
            )

    def groups(
        self, label: Tensor | None, memory: Tensor, instances: int | None
    ) -> tuple[Tensor, int, Tensor | None] | None:
        """How an epoch reads the samples, as the arguments of ``DataModule.group``: each domain by its own groups.

        Args:
            label: ``[N]`` of the training samples, -1: none.
            memory: Label of every row of the memory, -1: none.
            instances: So many samples of a class or cluster follow one another; None: any order.

        Returns:
            None if the order needs no groups: without a source, in any order.
        """
        own = memory[self.classes :].cpu()  # [N]
        known = self.source(label, own) if self.classes else None
        if instances is None:
            return None if known is None else (torch.full_like(own, -1), 1, known)
        return own if known is None or label is None else torch.where(known, label, own), instances, known
