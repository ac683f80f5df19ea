"""What a run leaves at its end: the table, the curves, and summary.json, which says that it is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from ssl_zoo.evaluation import baselines
from ssl_zoo.report.curves import save_curves
from ssl_zoo.report.summary import Row, run_files, table

SUMMARY = "summary.json"
OFFLINE = "linear: logistic regression on frozen features; kNN: settings of callbacks.online_knn; all rows alike"
ONLINE = "linear probe: the online one, of the last evaluation during training"


def finish(cfg: DictConfig, run_dir: Path, method: Any, data: Any, seconds: float) -> dict[str, Any]:
    """Measure the baselines, draw the curves, write ``summary.json`` and print the table.

    Returns:
        What ``summary.json`` holds: the latest metrics, baselines in percent, seconds of training.
    """
    numbers: dict[str, Any] = {**method.metrics, "seconds": round(seconds, 1)}
    rows, note = [Row(cfg.card.name, method.metrics.get("probe/top1"), method.metrics.get("knn/top1"))], ONLINE
    if cfg.report and data.info.classes is not None and data.val_loader() is not None:
        # One protocol for every row: the online probe has seen augmented views of a moving network.
        rows, note = [], OFFLINE
        for name, found in _judged(cfg, method, data).items():
            numbers[name] = found
            rows.append(Row(name, found["linear"], found["knn"]))
    if cfg.report and (run_dir / "metrics.csv").is_file():
        save_curves(run_dir, {f"{row.name} (linear)": row.probe for row in rows[1:] if row.probe is not None})
    (run_dir / SUMMARY).write_text(json.dumps(numbers, indent=2) + "\n")
    Console().print(table(rows, run_files(run_dir), note))
    return numbers


def _judged(cfg: DictConfig, method: Any, data: Any) -> dict[str, dict[str, float]]:
    device, probe = method.device, (cfg.callbacks or {}).get("online_knn") or {}
    settings = {key: probe[key] for key in ("k", "temperature", "bank_size") if key in probe}
    return {
        cfg.card.name: baselines.compare(method, data, device, **settings),
        "untrained network": baselines.untrained(cfg, data, device, **settings),
        "raw pixels": baselines.raw_pixels(data, device, **settings),
    }
