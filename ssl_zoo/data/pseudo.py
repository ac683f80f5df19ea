"""Pseudo-labels of a training set in a file: what a teacher has guessed, and how often each sample is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from ssl_zoo import archives
from ssl_zoo.data.source import Part
from ssl_zoo.errors import ConfigError

ROWS = 1 << 30  # of an epoch, at most


class PseudoLabels(NamedTuple):
    """One row for each training sample of the run that they are for, in its order."""

    probabilities: Tensor  # [N, C] float32; one 1 a row for hard labels
    copies: Tensor  # [N] int64, how often an epoch shows the sample; 0: left out
    positions: Tensor  # [N] int64, of the samples in the data set, by which a run knows that they are its own

    def write(self, file: str | Path) -> None:
        part = Path(f"{file}.{os.getpid()}.part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in self._asdict().items()}, part)
            part.replace(file)
        except OSError as error:
            reason = error.strerror
            raise ConfigError(f"cannot write pseudo-labels to {file} ({reason}); choose another: out=FILE") from None

    @classmethod
    def read(cls, file: str, part: Part) -> PseudoLabels:
        """The pseudo-labels in ``file``.

        Raises:
            ConfigError: If there are none, or those of other training samples.
        """
        path = Path(file).expanduser()
        advice = "write it with: ssl-zoo pseudo-label checkpoint=RUN out=FILE"
        if not path.is_file():
            raise ConfigError(f"data.pseudo_labels={file}: there is no such file; {advice}")
        try:
            found = cls(**archives.read_tensors(path))
        except (archives.Unreadable, TypeError) as error:
            raise ConfigError(f"data.pseudo_labels={file}: holds no pseudo-labels ({error}); {advice}") from None
        problem = found._problem()
        if problem is not None:
            raise ConfigError(f"data.pseudo_labels={file}: {problem}; {advice}")
        if not torch.equal(found.positions, part.positions.cpu()):
            raise ConfigError(
                f"data.pseudo_labels={file}: made for {len(found.positions)} training samples, which are not the "
                f"{len(part)} of this run; make them with the same data, data.subset, data.val_fraction and "
                "data.imbalance"
            )
        classes = None if part.classes is None else len(part.classes)
        if classes is not None and found.probabilities.shape[1] != classes:
            raise ConfigError(
                f"data.pseudo_labels={file}: of {found.probabilities.shape[1]} classes, and the data has {classes}"
            )
        return found

    def _problem(self) -> str | None:
        """What is wrong with the numbers, before memory is asked for as many rows as they say."""
        n = len(self.positions) if self.positions.dim() == 1 else -1
        if self.probabilities.dim() != 2 or len(self.probabilities) != n or self.copies.shape != self.positions.shape:
            return "its tensors have other shapes than pseudo-labels"
        kinds = (self.probabilities.dtype, self.copies.dtype, self.positions.dtype)
        if kinds != (torch.float32, torch.int64, torch.int64):
            return f"its tensors are {', '.join(map(str, kinds))}, wanted float32, int64, int64"
        if n and (int(self.copies.min()) < 0 or int(self.copies.max()) > ROWS or int(self.copies.sum()) > ROWS):
            return f"an epoch has {int(self.copies.double().sum()):,} rows, wanted 0 to {ROWS:,}"
        return None

    def rows(self, labels: Tensor | None) -> Tensor:
        """Rows of an epoch: each sample as often as it has copies, and a labelled one at least once."""
        copies = self.copies if labels is None else torch.where(labels >= 0, self.copies.clamp_min(1), self.copies)
        return torch.arange(len(copies)).repeat_interleave(copies)
