"""GraphCL: its loss by hand, what it sees of graphs, and that it trains from the command line."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_zoo import build, config
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.graph_contrast import one_way
from tests.cli.test_runs import run
from tests.data.test_graphs import written

SMALL = ["data=synthetic_graph", "data.source.samples=128", "data.source.val_samples=64", "data.batch_size=32",
         "trainer=cpu", "trainer.max_epochs=2", "logger=csv"]  # fmt: skip


def test_orthogonal_graphs_meet_their_positive_and_the_others() -> None:
    # Each row has its positive at cosine 1 and two others at cosine 0, which alone are in the denominator.
    z = torch.eye(3, dtype=torch.float64)
    assert one_way(z, z, 0, 0.5).item() == pytest.approx(math.log(2) - 2, abs=1e-12)
    parts = [one_way(z[i : i + 1], z, i, 0.5) for i in range(3)]
    assert sum(part.item() for part in parts) / 3 == pytest.approx(math.log(2) - 2, abs=1e-12)


def test_only_the_first_view_is_an_anchor() -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), dim=2)
    wanted = []
    for i in range(5):
        others = [math.exp(float(a[i] @ b[j]) / 0.2) for j in range(5) if j != i]
        wanted.append(math.log(sum(others)) - float(a[i] @ b[i]) / 0.2)
    assert one_way(a, b, 0, 0.2).item() == pytest.approx(sum(wanted) / 5, rel=1e-5)
    assert one_way(b, a, 0, 0.2).item() != pytest.approx(sum(wanted) / 5, rel=1e-3)
    assert one_way(a, b, 0, 0.2, chunk=2).item() == pytest.approx(sum(wanted) / 5, rel=1e-5)


def test_rows_outside_and_a_batch_of_one_are_sentences() -> None:
    z = torch.eye(3)
    with pytest.raises(ValueError, match="one_way: rows 2 to 5 do not lie inside 3 keys"):
        one_way(z, z, 2, 0.2)
    with pytest.raises(ValueError, match=r"one_way: a batch of 1 graph\(s\) has no negatives"):
        one_way(z[:1], z[:1], 0, 0.2)


def composed(*argv: str) -> object:
    cfg = config.load([*SMALL, *argv])
    config.quick_check(cfg)
    build.check_signatures(cfg)
    return cfg


def test_data_give_their_own_views_to_it_and_those_for_any_method_to_others() -> None:
    own, others = composed("method=graphcl"), composed("method=simclr")
    assert [len(view.ops) for view in own.augmentation.views] == [1, 3]  # type: ignore[attr-defined]
    assert own.augmentation.views[0].ops[0] == {"graph/self_loops": {"last": False}}  # type: ignore[attr-defined]
    assert [view["count"] for view in others.augmentation.views] == [2]  # type: ignore[attr-defined]
    other = composed("method=graphcl", "augmentation=graphcl_semi", "method.temperature=0.5")
    assert other.augmentation.views[0]["count"] == 2  # type: ignore[attr-defined]
    assert other.optimizer["values"].lr == 0.01  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"GraphCL is for samples of the kind 'graph'.*data=synthetic_graph"):
        cfg = config.load(["method=graphcl", "data=synthetic", "augmentation=simclr"])
        build.check_signatures(cfg)


@pytest.mark.parametrize("name", ["graphcl", "graphcl_random2", "graphcl_random3", "graphcl_paper", "graphcl_semi"])
def test_its_views_can_be_made(name: str) -> None:
    cfg = composed("method=graphcl", f"augmentation={name}")
    data = build.build_data(cfg)  # type: ignore[arg-type]
    assert data.info.node_features == 4 and not data.tensor_views


def test_its_head_starts_as_the_authors() -> None:
    cfg = composed("method=graphcl")
    method = build.build_method(cfg, build.build_data(cfg).info)  # type: ignore[arg-type]
    linear = [part for part in method.projector if isinstance(part, nn.Linear)]
    assert [part.weight.shape for part in linear] == [(96, 96), (96, 96)]
    assert all(bool((part.bias == 0).all()) for part in linear)
    assert float(linear[0].weight.detach().abs().max()) <= (6 / 192) ** 0.5


@pytest.mark.slow
def test_it_trains_and_is_judged_in_folds_and_on_other_data(tmp_path: Path) -> None:
    done = run("train.py", "method=graphcl", *SMALL, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run/metrics.csv").open() as file:
        found = {key: value for row in csv.DictReader(file) for key, value in row.items() if value}
    assert float(found["probe/top1"]) > 40 and float(found["knn/top1"]) > 40
    assert (tmp_path / "run/views.png").stat().st_size > 10_000 and "node features 4" in done.stdout
    done = run("evaluate.py", "protocol=svm", "protocol.folds=3", "checkpoint=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/evaluation/svm.json").read_text())
    assert result["top1"] > 60 and result["samples"] == {"train": 128, "test": 64}
    done = run("evaluate.py", "protocol=finetune", "protocol.trainer.max_epochs=2", "data.labels=0.5", "checkpoint=run",
               cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    written(tmp_path / "SET")
    other = ["data=tu", "data.source.name=SET", f"data.root={tmp_path}"]
    done = run("evaluate.py", "protocol=svm", "protocol.folds=2", *other, "checkpoint=run", cwd=tmp_path)
    assert done.returncode == 1
    assert "'gin' was built for nodes of 4 features and gets nodes of 3 features" in done.stderr.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "byol", "barlow_twins", "vicreg"])
def test_methods_of_images_train_on_graphs(tmp_path: Path, method: str) -> None:
    done = run("train.py", f"method={method}", *SMALL, "report=false", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
