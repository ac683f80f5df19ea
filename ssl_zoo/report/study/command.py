"""``ssl-zoo report NAME SWEEP``: results.csv, results.md and results.png of a decisive experiment."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ssl_zoo import files
from ssl_zoo.report.study import declared, drawings, measures, sweep
from ssl_zoo.report.study.declared import PAPER
from ssl_zoo.report.study.sweep import FINISHED, Results
from ssl_zoo.report.study.verdict import verdicts
from ssl_zoo.signatures import locate

TABLE, TEXT, PICTURE = "results.csv", "results.md", "results.png"


def report(name: str, run: str, out: str | None = None) -> str:
    """Read the runs of a sweep and write what they show.

    Args:
        name: Of the experiment.
        run: The folder of the sweep.
        out: Folder for the three files; None: that of the sweep.

    Returns:
        What ``results.md`` holds, and the paths.

    Raises:
        ConfigError: As :func:`declared.load` and :func:`sweep.read`.
    """
    study = declared.load(name)
    folder = Path(run).expanduser()
    results = sweep.read(study, folder)
    into = Path(out).expanduser() if out else folder
    into.mkdir(parents=True, exist_ok=True)
    found = rows(results)
    files.write(into / TABLE, _csv(found))
    if study.module is None:
        told = markdown(results)
        drawings.draw(results, into / PICTURE)
    else:
        told = locate(f"{study.module}.table")(found)
        locate(f"{study.module}.draw")(found, into / PICTURE)
    files.write(into / TEXT, told)
    return f"{told}\nwritten: {into / TABLE}, {TEXT}, {PICTURE}"


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each run: its folder, state and settings, what was measured, and the paper's number."""
    study = results.study
    found = []
    for labels, cell in results.cells.items():
        for run in cell.runs:
            row: dict[str, Any] = {"run": run.folder.name, "state": run.state, "seed": sweep.value_of(run, "seed")}
            row |= {axis.key: label for axis, label in zip(study.axes, labels, strict=True)}
            row |= {measure: measures.read(run, how) for measure, how in study.measures.items()}
            found.append({**row, "seconds": run.seconds, PAPER: study.paper(labels), "reason": run.reason})
    return found


def _csv(found: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def markdown(results: Results) -> str:
    """The question, the paper's answer, a table of the cells, and the verdicts."""
    study = results.study
    parts = [f"# {study.name}", study.question, f"The paper: {study.answer} ({study.source})", _table(results)]
    judged = verdicts(results)
    if judged:
        parts.append("\n".join(f"- {sentence}" for sentence in judged))
    parts += _unfinished(results)
    if study.limits:
        parts.append(f"What this size cannot show: {study.limits}")
    return "\n\n".join(parts) + "\n"


def _table(results: Results) -> str:
    study = results.study
    papers = [study.paper(labels) for labels in results.cells]
    heads = [*(axis.key for axis in study.axes), *study.measures, "seconds a run", "runs"]
    heads += [f"the paper: {study.of}"] if any(number is not None for number in papers) else []
    lines = [heads, ["---"] * len(heads)]
    for (labels, cell), paper in zip(results.cells.items(), papers, strict=True):
        finished = cell.finished
        count = str(len(finished)) if len(finished) == len(cell.runs) else f"{len(finished)} of {len(cell.runs)}"
        seconds = sum(run.seconds for run in finished) / max(len(finished), 1)
        found = [results.values(labels, measure) for measure in study.measures]
        digits = [_digits(measure, results) for measure in study.measures]
        line = [*labels, *(values.told(n) for values, n in zip(found, digits, strict=True)), f"{seconds:.0f}", count]
        if len(heads) > len(line):
            line.append("" if paper is None else f"{paper:g}")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _digits(measure: str, results: Results) -> int:
    """Enough to tell small numbers apart: one for percent, three where nothing reaches 10."""
    means = [results.values(labels, measure).mean for labels in results.cells]
    return 1 if max((abs(value) for value in means if value is not None), default=0.0) >= 10 else 3


def _unfinished(results: Results) -> list[str]:
    """A line for each run that is not finished, and why."""
    open_ = [run for run in results.runs if run.state != FINISHED]
    lines = [f"- {run.folder.name}: {run.state}{': ' if run.reason else ''}{run.reason}" for run in open_]
    return ["\n".join(lines)] if lines else []
