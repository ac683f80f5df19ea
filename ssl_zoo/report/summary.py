"""The table at the end of a run: what was learned, against what was there before any training, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ssl_zoo.evaluation.label_free import Measures

VALIDATION = "Validation top-1 (%)"
# Where a run keeps what its reader wants next, in the order in which it is shown; relative to the run folder.
FILES = {
    "checkpoint": "checkpoints/last.ckpt",
    "configuration": "config.yaml",
    "metrics": "metrics.csv",
    "tensorboard": "tensorboard",
    "curves": "curves.png",
    "few labels": "few_labels.png",
    "neighbours": "neighbours.png",
    "views": "views.png",
}


@dataclass(frozen=True)
class Row:
    """Accuracies of one set of features on the validation set, top-1 in percent; None: not measured."""

    name: str
    probe: float | None = None
    knn: float | None = None
    few: Mapping[int, tuple[float, float | None]] = field(default_factory=dict)  # labels a class: mean, spread of draws


def run_files(run_dir: str | Path) -> dict[str, Path]:
    """The files of a run that are there, by what they are."""
    return {name: Path(run_dir) / path for name, path in FILES.items() if (Path(run_dir) / path).exists()}


def gains(rows: Sequence[Row]) -> list[Row]:
    """The first row less each other row, in points: what the method adds to an untrained network, to raw pixels."""
    first, *others = rows
    return [
        Row(
            f"gain over {other.name}",
            _minus(first.probe, other.probe),
            _minus(first.knn, other.knn),
            {count: (mean - other.few[count][0], None) for count, (mean, _) in first.few.items() if count in other.few},
        )
        for other in others
    ]


def table(
    rows: Sequence[Row], files: Mapping[str, Path] | None = None, note: str = "", title: str = VALIDATION
) -> RenderableType:
    """The table at the end of a run.

    Args:
        rows: The method's accuracies first, then what it is measured against (untrained network, raw pixels).
        files: Paths by what they are, as :func:`run_files` finds them; shown relative to the working directory.
        note: How the numbers were taken (protocol, k, data), shown below them.
        title: Of what samples.

    Returns:
        Something for ``rich.console.Console().print``.
    """
    measured = [row for row in rows if row.probe is not None or row.knn is not None]
    nothing = Text(
        "No accuracy was measured (no labelled validation set, or neither probe nor kNN among the callbacks): nothing "
        "to compare."
    )
    return _with_files(_accuracies(rows, title) if measured else nothing, note if measured else "", files)


def label_free(
    found: Mapping[str, Measures], files: Mapping[str, Path] | None = None, note: str = ""
) -> RenderableType:
    """The table of a run whose accuracy cannot be measured.

    Args:
        found: By the name of the network, the method's first.
        files, note: As in :func:`table`.
    """
    first = next(iter(found.values()))
    out = _lines(f"Features of {first.images:,} training samples, without labels")
    most = f"RankMe (of {min(first.images, first.features)})"
    for head in (most, "alignment", "uniformity", "spread"):
        out.add_column(head, justify="right", no_wrap=True)
    for i, (name, one) in enumerate(found.items()):
        numbers = (f"{one.rankme:.1f}", f"{one.alignment:.3f}", f"{one.uniformity:.2f}", f"{one.std:.2f}")
        out.add_row(Text(name), *numbers, style="bold" if i == 0 else "")
    return _with_files(out, note, files)


def _with_files(first: RenderableType, note: str, files: Mapping[str, Path] | None) -> Group:
    parts: list[RenderableType] = [first]
    if note:
        parts.append(Text(note, style="dim"))
    if files:
        parts += [Text(), _paths(files)]
    return Group(*parts)


def _lines(title: str) -> Table:
    """Without lines between the cells, so that all columns fit into 80 characters."""
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    out.add_column("features")
    return out


def _accuracies(rows: Sequence[Row], title: str) -> Table:
    counts = sorted(rows[0].few)
    heads = [f"{count} label{'s' if count > 1 else ''}" for count in counts]
    out = _lines(title + (", by the labels of each class" if counts else ""))
    for head in (*heads, "all labels" if counts else "linear probe", "kNN"):
        out.add_column(head, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        few = [_percent(*row.few.get(count, (None, None))) for count in counts]
        out.add_row(Text(row.name), *few, _percent(row.probe), _percent(row.knn), style="bold" if i == 0 else "")
    more = [row for row in gains(rows) if row.probe is not None or row.knn is not None]
    if more:
        out.add_row()
    for row in more:
        few = [_points(row.few[count][0]) if count in row.few else "-" for count in counts]
        out.add_row(Text(row.name), *few, _points(row.probe), _points(row.knn))
    return out


def _paths(files: Mapping[str, Path]) -> Table:
    out = Table.grid(padding=(0, 2))
    out.add_column(style="dim", no_wrap=True)
    out.add_column(overflow="fold")
    for name, path in files.items():
        out.add_row(name, Text(_short(path)))
    return out


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter to copy, else absolute."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _percent(value: float | None, spread: float | None = None) -> str:
    return "-" if value is None else f"{value:.1f}" + ("" if spread is None else f" ±{spread:.1f}")


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"
