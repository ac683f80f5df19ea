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
from ssl_zoo.evaluation import baselines, few_labels, held_in_turn
from ssl_zoo.evaluation.baselines import Untrained
from ssl_zoo.evaluation.label_free import Measures, look
from ssl_zoo.layers import read_at
from ssl_zoo.report.curves import save_curves
from ssl_zoo.report.few_labels import save_few_labels
from ssl_zoo.report.summary import VALIDATION, Row, label_free, run_files, table
from ssl_zoo.signatures import locate

OFFLINE = "kNN: settings of callbacks.online_knn; linear: logistic regression on frozen features"
FEW = (
    f"few labels: mean and spread of {few_labels.DRAWS} draws of the labelled samples; kNN: all labels, settings of "
    "callbacks.online_knn; linear classifiers: logistic regression on frozen features, with all labels"
)
IN_TURN = (
    "no labelled validation set: judged on {images} training samples, which the network has seen without their labels; "
    "kNN leaves one out (k = {k}), the linear probe holds out {folds} folds in turn; data.val_fraction=0.1 holds "
    "samples out of the training"
)
LABEL_FREE = (
    "RankMe: dimensions that the features use; alignment: squared distance of {pair} (lower: alike); uniformity: 0 if "
    "all features are one (lower: more evenly spread); spread: 0 for a collapse, 1 for an even sphere"
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
    rows, note, title = [Row(cfg.card.name, numbers.get("probe/top1"), numbers.get("knn/top1"))], ONLINE, VALIDATION
    unlabelled = None
    if cfg.report:
        networks = _networks(cfg, method, data)
        # One protocol for every row: the online probe has seen augmented views of a moving network.
        if validated(data):
            rows, note = _judged(cfg, data, networks, numbers, device)
        elif not method.needs_labels and held_in_turn.possible(data):
            rows, note = _judged_in_turn(cfg, data, networks, numbers, device)
            title = "Top-1 (%), held out in turn"
        else:
            unlabelled, note = _looked_at(method, data, networks, run_dir, numbers, device)
        numbers["judged"] = note
    if cfg.report and (run_dir / runs.METRICS).is_file():
        save_curves(run_dir, {f"{row.name} (linear)": row.probe for row in rows[1:] if row.probe is not None})
    if rows[0].few:
        save_few_labels(run_dir, rows)
    shown = run_files(run_dir)
    Console().print(table(rows, shown, note, title) if unlabelled is None else label_free(unlabelled, shown, note))


def _networks(cfg: DictConfig, method: Any, data: Any) -> dict[str, Any]:
    """What is judged side by side, by the names of the rows: each with ``embed``."""
    networks = {cfg.card.name: method}
    if method.trains:
        networks["untrained network"] = baselines.untrained(cfg, data)
    return {**{name: read_at(net, cfg.get("layer")) for name, net in networks.items()}, **baselines.given(data)}


def validated(data: Any) -> bool:
    """Whether there are validation samples with labels, of classes that the training set has."""
    loader = data.val_loader()
    if data.info.classes is None or loader is None or loader.source.labels is None:
        return False
    return bool((loader.source.labels >= 0).any()) and bool((data.train_labels >= 0).any())


def _settings(cfg: DictConfig, *names: str) -> dict[str, Any]:
    probe = (cfg.callbacks or {}).get("online_knn") or {}
    return {key: probe[key] for key in names if key in probe}


def _judged(
    cfg: DictConfig, data: Any, networks: dict[str, Any], numbers: dict[str, Any], device: torch.device
) -> tuple[list[Row], str]:
    """Rows by the validation set."""
    counts = few_labels.counts_of(cfg.few_labels, data.info.classes)
    settings = _settings(cfg, "k", "temperature", "bank_size")
    found = {name: baselines.compare(net, data, device, **settings, counts=counts) for name, net in networks.items()}
    numbers.update(found)
    rows = [_row(name, measured) for name, measured in found.items()]
    return rows, _note(counts, rows[0], found[cfg.card.name]["l2_chosen"])


def _judged_in_turn(
    cfg: DictConfig, data: Any, networks: dict[str, Any], numbers: dict[str, Any], device: torch.device
) -> tuple[list[Row], str]:
    """Rows by the training samples themselves."""
    settings = _settings(cfg, "k", "temperature")
    found = {name: held_in_turn.compare(net, data, device, **settings) for name, net in networks.items()}
    numbers.update({name: measured._asdict() for name, measured in found.items()})
    first = found[cfg.card.name]
    return [Row(name, one.linear, one.knn) for name, one in found.items()], IN_TURN.format(**first._asdict())


def _looked_at(
    method: Any, data: Any, networks: dict[str, Any], run_dir: Path, numbers: dict[str, Any], device: torch.device
) -> tuple[dict[str, Measures], str]:
    """Measures that need no label, and the picture of neighbours."""
    found = {name: look(net, data, device) for name, net in networks.items() if not isinstance(net, Untrained)}
    measures = {name: measured for name, (measured, _) in found.items()}
    numbers.update({name: measured._asdict() for name, measured in measures.items()})
    drawn_by = data.augmentation.neighbours_drawn_by
    if len(data.train) > 1 and drawn_by is not None:
        locate(drawn_by)(data, {name: features for name, (_, features) in found.items()}, run_dir / "neighbours.png")
    wrong = next(iter(measures.values())).collapse
    collapsed = [] if wrong is None else [f"collapse: {wrong}; callbacks.collapse says during training what to change"]
    return measures, "\n".join([LABEL_FREE.format(pair=data.pair), _why(method, data), *collapsed])


def _why(method: Any, data: Any) -> str:
    """Why there is no accuracy, and what gives one."""
    if data.info.classes is None:
        return "no accuracy: the samples have no labels"
    if method.needs_labels:
        reason = "the method has learnt the labels of all labelled samples"
    else:
        reason = "no class has two labelled samples"
    return f"no accuracy: there is no labelled validation set, and {reason}; data.val_fraction=0.1 holds samples out"


def _row(name: str, measured: dict[str, Any]) -> Row:
    few = {int(count): (score["mean"], score["spread"]) for count, score in measured.get("few_labels", {}).items()}
    return Row(name, measured["linear"], measured["knn"], few)


def _note(wanted: Sequence[int], row: Row, chosen: str) -> str:
    note, missing = FEW if row.few else OFFLINE, [str(count) for count in wanted if count not in row.few]
    note += f"; penalty chosen {chosen}"
    if missing:
        note += f"\nfew_labels: the smallest class has fewer than {', '.join(missing)} labelled samples"
    return note
