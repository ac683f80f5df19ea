"""What a run leaves at its end: the table, the curves, and summary.json with its numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

from ssl_zoo import files, runs
from ssl_zoo.evaluation import baselines, few_labels
from ssl_zoo.report.curves import save_curves
from ssl_zoo.report.few_labels import save_few_labels
from ssl_zoo.report.summary import Row, run_files, table

OFFLINE = "linear: logistic regression on frozen features; kNN: settings of callbacks.online_knn; all rows alike"
FEW = (
    f"logistic regression on frozen features; few labels: mean and spread of {few_labels.DRAWS} draws of the labelled "
    "samples; kNN: all labels, settings of callbacks.online_knn"
)
ONLINE = "linear probe: the online one, of the last evaluation during training"
PENDING = "not made yet"  # of summary.json's "report"; a start that finds it makes the report


def finish(
    cfg: DictConfig, run_dir: Path, method: Any, data: Any, record: runs.Record, device: torch.device
) -> dict[str, Any]:
    """Measure the baselines, draw the curves, write ``summary.json`` and print the table.

    The run is finished whatever happens here: what goes wrong is a line on stderr and ``report: failed`` there.

    Args:
        cfg: Of the run.
        run_dir: Its folder.
        method, data: Trained, and what it was trained on.
        record: With the last metrics and the seconds of training.
        device: Where features are made.

    Returns:
        What ``summary.json`` holds: the latest metrics, baselines in percent, seconds of training, how the report went.
    """
    numbers: dict[str, Any] = {**record.metrics, "seconds": record.seconds, "report": PENDING}
    _write(run_dir, numbers)
    try:
        _report(cfg, run_dir, method, data, numbers, device)
        numbers["report"] = "made" if cfg.report else "off"
    except Exception as error:  # any fault of a picture or a probe: hours of training do not end with its traceback
        reason = str(error).splitlines()[0] if str(error) else ""
        numbers["report"] = f"failed: {type(error).__name__}: {reason}"
        print(f"the run is finished; its report failed ({type(error).__name__}: {reason})", file=sys.stderr)
    _write(run_dir, numbers)
    return numbers


def read(run_dir: Path) -> dict[str, Any] | None:
    """What ``summary.json`` holds; None: there is none that can be read."""
    try:
        found = json.loads((run_dir / runs.SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(run_dir: Path, numbers: dict[str, Any]) -> None:
    try:
        files.write(run_dir / runs.SUMMARY, json.dumps(numbers, indent=2) + "\n")
    except OSError as error:
        print(f"{run_dir / runs.SUMMARY} cannot be written ({error.strerror})", file=sys.stderr)


def _report(
    cfg: DictConfig, run_dir: Path, method: Any, data: Any, numbers: dict[str, Any], device: torch.device
) -> None:
    rows, note = [Row(cfg.card.name, numbers.get("probe/top1"), numbers.get("knn/top1"))], ONLINE
    if cfg.report and data.info.classes is not None and data.val_loader() is not None:
        # One protocol for every row: the online probe has seen augmented views of a moving network.
        found = _judged(cfg, method, data, device)
        numbers.update(found)
        rows = [_row(name, measured) for name, measured in found.items()]
        note = _note(few_labels.counts_of(cfg.few_labels, data.info.classes), rows[0])
    if cfg.report and (run_dir / runs.METRICS).is_file():
        save_curves(run_dir, {f"{row.name} (linear)": row.probe for row in rows[1:] if row.probe is not None})
    if rows[0].few:
        save_few_labels(run_dir, rows)
    Console().print(table(rows, run_files(run_dir), note))


def _judged(cfg: DictConfig, method: Any, data: Any, device: torch.device) -> dict[str, dict[str, Any]]:
    probe = (cfg.callbacks or {}).get("online_knn") or {}
    settings = {key: probe[key] for key in ("k", "temperature", "bank_size") if key in probe}
    settings["counts"] = few_labels.counts_of(cfg.few_labels, data.info.classes)
    return {
        cfg.card.name: baselines.compare(method, data, device, **settings),
        "untrained network": baselines.untrained(cfg, data, device, **settings),
        "raw pixels": baselines.raw_pixels(data, device, **settings),
    }


def _row(name: str, measured: dict[str, Any]) -> Row:
    few = {int(count): (score["mean"], score["spread"]) for count, score in measured.get("few_labels", {}).items()}
    return Row(name, measured["linear"], measured["knn"], few)


def _note(wanted: Sequence[int], row: Row) -> str:
    note, missing = FEW if row.few else OFFLINE, [str(count) for count in wanted if count not in row.few]
    if missing:
        note += f"\nfew_labels: the smallest class has fewer than {', '.join(missing)} labelled samples"
    return note
