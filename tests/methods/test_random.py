"""Methods that train nothing: their run is one checkpoint, judged as any other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from ssl_zoo import build, cli, config
from ssl_zoo.evaluation import baselines
from tests.helpers import STILL, TINY, TINY_RESNET

RUN = [
    *TINY, *TINY_RESNET, "data.source.samples=48", "data.source.val_samples=16", "trainer=cpu", "logger=csv",
]  # fmt: skip


@pytest.fixture(scope="module", params=STILL)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    assert cli.train([f"method={request.param}", *RUN, "report=true", f"hydra.run.dir={folder}"]) == 0
    return folder


def test_the_networks_stay_as_they_were_built(run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["global_step"], checkpoint["epoch"]) == (0, 0)
    method, cfg, _ = build.load_method(run)
    fresh = baselines.untrained(cfg, build.build_data(cfg)).state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in method.state_dict().items())


def test_it_is_a_row_with_the_same_measures_and_no_second_untrained_one(run: Path) -> None:
    summary, record = (json.loads((run / name).read_text()) for name in ("summary.json", "run.json"))
    card = config.load([f"method={STILL[0]}"]).card.name
    assert record["state"] == "finished" and {"knn", "linear"} <= set(summary[card])
    assert "untrained network" not in summary and summary["knn/top1"] == pytest.approx(summary[card]["knn"])
    with (run / "metrics.csv").open() as file:
        assert [float(row["knn/top1"]) for row in csv.DictReader(file)] == [pytest.approx(summary["knn/top1"])]


def test_it_says_that_nothing_is_trained_and_is_not_made_twice(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"method={STILL[0]}", *RUN, f"hydra.run.dir={run}", "report=true"]
    assert cli.train([*given, "resume=auto"]) == 0
    assert "finished already: nothing to do" in capsys.readouterr().out
    assert cli.train([f"method={STILL[0]}", *RUN, f"hydra.run.dir={run}/again"]) == 0
    out = capsys.readouterr().out
    assert "none: the networks stay as they were built" in out and "learning rate" not in out


@pytest.mark.parametrize("protocol", ["knn", "linear", "clustering"])
def test_protocols_judge_it(run: Path, protocol: str) -> None:
    few = ["protocol.k=5", "protocol.also=[]"] if protocol == "knn" else []
    assert cli.evaluate([f"checkpoint={run}", f"protocol={protocol}", "device=cpu", *few]) == 0
    found = json.loads((run / "evaluation" / f"{protocol}.json").read_text())
    assert found["step"] == 0 and found["features"] == 32
