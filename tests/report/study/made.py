"""Sweeps that nobody trained: run folders with a record, metrics and a summary, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_zoo.report.study.declared import Study, parse

NODE: dict[str, Any] = {
    "question": "Does it help?",
    "answer": "yes, by three points",
    "source": "table 1",
    "of": "percent",
    "vary": {"method.help": {True: "with", False: "without"}},
    "measures": {"kNN": {"last": "knn/top1"}, "gain": {"gain": "knn/top1"}},
    "numbers": {"with": 67.5, "without": 0.1},
    "claims": [{"says": "it helps", "more": "with", "less": "without"}],
    "draw": [{"bars": "kNN"}, {"curves": "knn/top1"}, {"bars": "paper"}],
}


def study(**changes: Any) -> Study:
    return parse("made", {**NODE, **changes})


def run_folder(
    sweep: Path,
    number: int,
    words: Sequence[str],
    curve: Sequence[float] = (),
    state: str = "finished",
    reason: str | None = None,
    column: str = "knn/top1",
    config: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    folder = sweep / f"{number}_byol_cifar10_seed0"
    folder.mkdir(parents=True)
    record = {"identity": {}, "hash": "0" * 12, "state": state, "reason": reason, "overrides": list(words)}
    (folder / "run.json").write_text(json.dumps({**record, "seconds": 2.0 + number}))
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config or {"seed": 0})))
    (folder / "summary.json").write_text(json.dumps(dict(summary or {})))
    rows = [f"{epoch},{10 * epoch},{value}\n" for epoch, value in enumerate(curve)]
    if rows:
        (folder / "metrics.csv").write_text(f"epoch,step,{column}\n" + "".join(rows))
    return folder


def sweep_of(folder: Path, values: Mapping[str, Sequence[float]], name: str = "made") -> Path:
    """For each value of ``method.help``, a run for each last kNN accuracy."""
    number = 0
    for value, found in values.items():
        for seed, last in enumerate(found):
            words = [f"experiment={name}", f"method.help={value}", f"seed={seed}"]
            run_folder(folder, number, words, [20.0, last])
            number += 1
    return folder
