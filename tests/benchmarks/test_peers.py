"""The table of peers: what is run, what is read, what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssl_zoo.benchmarks import peers

SMALL = ["data=synthetic", "data.source.samples=96", "data.source.val_samples=20", "data.subset=null",
         "data.image_size=16", "data.batch_size=32", "scale.width=4", "trainer=cpu", "data.workers=0"]  # fmt: skip


def finished(out: Path, side: str, method: str, *tops: float) -> None:
    for seed, top1 in enumerate(tops):
        folder = out / side / f"{method}-{seed}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"knn/top1": top1}))


def test_the_table_is_of_the_seeds_that_both_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, "ssl_zoo", "byol", 35.0, 36.0, 37.0)
    finished(tmp_path, "lightly", "byol", 30.0, 31.0, 32.0)
    finished(tmp_path, "ssl_zoo", "swav", 30.0)
    finished(tmp_path, "lightly", "swav", 31.5)
    assert peers.main(["--methods", "byol", "--seeds", "0,1,2", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| `byol` | 36.0 ± 1.0 | 31.0 ± 1.0 | +5.0 | above |" in said
    assert "| `swav` | 30.0 | 31.5 | -1.5 | one seed |" in said
    found = json.loads((tmp_path / "peers.json").read_text())
    assert [(row["method"], row["seeds"]) for row in found] == [("swav", [0]), ("byol", [0, 1, 2])]
    assert (tmp_path / "peers.md").read_text() in said


@pytest.mark.parametrize(("theirs", "said"), [
    ((30.0, 31.0, 32.0), "above"), ((40.0, 41.0, 42.0), "below"), ((35.0, 36.0, 37.5), "equal"),
])  # fmt: skip
def test_only_a_difference_above_two_standard_errors_is_one(theirs: tuple[float, ...], said: str) -> None:
    assert peers.verdict((35.0, 36.0, 37.0), theirs) == said


def test_unknown_names_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main(["--methods", "byol,bylo"])
    assert "--methods: there is no bylo; there are simclr, moco_v2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", peers.METHODS)
def test_both_sides_train_and_are_judged(method: str, tmp_path: Path) -> None:
    pytest.importorskip("lightly")
    out = tmp_path / "out"
    assert peers.main(["--methods", method, "--epochs", "1", "--out", str(out), *SMALL]) == 0, [
        file.read_text() for file in out.rglob("*.log")
    ]
    (row,) = json.loads((out / "peers.json").read_text())
    assert row["method"] == method and all(0 < row[side][0] <= 100 for side in ("ssl_zoo", "lightly"))
