"""Every small form from end to end: all its arms, two steps each on made-up images, and the report on them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ssl_zoo.report.study import declared
from tests.cli import commands
from tests.report.study.test_declared import RUNS

SHRUNKEN = [
    "data=synthetic", "data.source.samples=320", "data.source.val_samples=32", "data.image_size=16", "data.subset=null",
    "data.batch_size=16", "batch_norm.group=null", "scale.width=4", "scale.embed_dim=16", "trainer=cpu",
    "trainer.max_epochs=1", "trainer.max_steps=2", "trainer.log_every=1", "evaluate_every=1", "seed=0",
    "hydra.sweep.dir=sweep",
]  # fmt: skip
# What else a small size asks for; data.imbalance=100 of 320 samples would leave classes without any.
MORE = {
    "dino_centring_sharpening": ["callbacks.collapse.every_n_steps=1"],
    "long_tail_balance": ["data.imbalance=1,4"],
    "moco_v2_ablation": ["method.queue_size=64"],
}


@pytest.mark.slow
@pytest.mark.parametrize("base", sorted(RUNS))
def test_all_arms_train_and_are_reported(base: str, tmp_path: Path) -> None:
    name = f"{base}_tiny"
    done = commands.run("train", "-m", f"experiment={name}", *SHRUNKEN, *MORE.get(base, []), cwd=tmp_path)
    assert done.code == 0, done.out[-2000:] + done.err
    told = commands.run("report", name, "sweep", cwd=tmp_path)
    assert told.code == 0, told.err
    study = declared.load(name)
    rows = list(csv.DictReader((tmp_path / "sweep" / "results.csv").open()))
    assert {row["state"] for row in rows} == {"finished"} and study.question in told.out and study.limits in told.out
    measured = {measure for measure in study.measures if all(row[measure] for row in rows)}
    assert measured >= set(list(study.measures)[:1]), rows
    assert (tmp_path / "sweep" / "results.png").stat().st_size > 10_000
