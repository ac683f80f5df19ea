"""The runs of a sweep as a study sees them: which cell each belongs to, and what was measured there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from omegaconf import OmegaConf

from ssl_zoo import runs
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.curves import read_metrics
from ssl_zoo.report.study import measures
from ssl_zoo.report.study.declared import PAPER, Labels, Study, text
from ssl_zoo.report.study.measures import Run

FINISHED = "finished"


@dataclass
class Cell:
    """The runs that differ in their seeds alone."""

    labels: Labels
    runs: list[Run] = field(default_factory=list)

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.state == FINISHED]


@dataclass(frozen=True)
class Values:
    """A measure of a cell: one number for each finished run."""

    numbers: Sequence[float]

    @property
    def mean(self) -> float | None:
        return mean(self.numbers) if self.numbers else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None: there is one."""
        return stdev(self.numbers) if len(self.numbers) > 1 else None

    @property
    def squared_error(self) -> float:
        """Of the mean."""
        return (self.spread or 0.0) ** 2 / max(len(self.numbers), 1)

    def told(self, digits: int = 1) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.{digits}f}" + ("" if self.spread is None else f" ± {self.spread:.{digits}f}")


class Results:
    """What a sweep found: cells in the order in which they are drawn."""

    def __init__(self, study: Study, found: Sequence[Run]):
        self.study = study
        self.runs = list(found)
        cells: dict[Labels, Cell] = {}
        for run in self.runs:
            labels = tuple(axis.label(value_of(run, axis.key)) for axis in study.axes)
            cells.setdefault(labels, Cell(labels)).runs.append(run)
        self.cells = {labels: cells[labels] for labels in sorted(cells, key=self._place)}

    def _place(self, labels: Labels) -> list[tuple[int, float, str]]:
        return [self._place_on(axis, label) for axis, label in enumerate(labels)]

    def _place_on(self, axis: int, label: str) -> tuple[int, float, str]:
        """Declared labels in their order, then numbers by their size, then words."""
        known = list(self.study.axes[axis].labels.values())
        if label in known:
            return known.index(label), 0.0, label
        try:
            return len(known), float(label), label
        except ValueError:
            return len(known), math.inf, label

    def values(self, labels: Labels, measure: str) -> Values:
        """A measure of the study, or the paper's number."""
        if measure == PAPER:
            paper = self.study.paper(labels)
            return Values([] if paper is None else [paper])
        cell, how = self.cells.get(labels), self.study.measures[measure]
        numbers = [measures.read(run, how) for run in (cell.finished if cell else [])]
        return Values([number for number in numbers if number is not None])

    def labels_of(self, axis: int) -> list[str]:
        """The labels of an axis that there are runs of, in order."""
        return sorted({labels[axis] for labels in self.cells}, key=lambda label: self._place_on(axis, label))


def value_of(run: Run, key: str) -> str:
    """The value of a setting in a run, as it was typed, else as its configuration has it."""
    if key in run.words:
        return text(run.words[key])
    return text(OmegaConf.select(OmegaConf.create(dict(run.config)), key))


def read(study: Study, sweep: Path) -> Results:
    """The runs of a sweep of this study.

    Raises:
        ConfigError: If there is no such folder, its runs are of another experiment, or none of them is finished.
    """
    if not sweep.is_dir():
        raise ConfigError(f"ssl-zoo report {study.name} {sweep}: there is no such folder; give that of a sweep, "
                          "outputs/sweeps/...")  # fmt: skip
    found = [run for folder in sorted(sweep.iterdir(), key=_number) if (run := _read(folder)) is not None]
    if not found:
        raise ConfigError(f"ssl-zoo report {study.name} {sweep}: there is no run in it; train with "
                          f"python train.py -m experiment={study.name}, which prints the folder")  # fmt: skip
    own = [run for run in found if run.words.get("experiment") == study.name]
    if not own:
        other = found[0].words.get("experiment", "none")
        fix = f"; its report is ssl-zoo report {other} {sweep}" if other != "none" else ""
        raise ConfigError(f"ssl-zoo report {study.name} {sweep}: its runs are of the experiment {other}{fix}")
    if not any(run.state == FINISHED for run in own):
        states = ", ".join(sorted({f"{run.state}: {run.reason}" if run.reason else run.state for run in own}))
        raise ConfigError(f"ssl-zoo report {study.name} {sweep}: none of its {len(own)} runs is finished ({states})")
    return Results(study, own)


def _number(folder: Path) -> tuple[int, str]:
    """Hydra numbers the folders from 0."""
    first = folder.name.split("_")[0]
    return (int(first) if first.isdigit() else 0, folder.name)


def _read(folder: Path) -> Run | None:
    """A run folder; None: it is none, or its record is damaged, which is told in a line."""
    try:
        record = runs.read_record(folder) if folder.is_dir() else None
    except runs.Damaged as error:
        print(f"{error}: skipped")
        return None
    if record is None:
        return None
    metrics, config = folder / runs.METRICS, folder / runs.CONFIG
    return Run(
        folder=folder,
        state=record.state,
        reason=record.reason or "",
        words=dict(_word(word) for word in record.overrides),
        config=OmegaConf.to_container(OmegaConf.load(config)) if config.is_file() else {},  # type: ignore[arg-type]
        summary={**record.metrics, **_summary(folder)},
        series=read_metrics(metrics) if metrics.is_file() else {},
        seconds=record.seconds,
    )


def _word(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~"), value.strip("'\"").replace(" ", "")


def _summary(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / runs.SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
