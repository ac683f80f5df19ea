"""Clusters of a method's own, and the sentence for methods without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssl_zoo import config, worker
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation import assignment
from ssl_zoo.evaluation.run import run
from tests.helpers import tiny_batch, tiny_config, tiny_method, train_step, view_sizes
from tests.test_method_runs import RUN


def test_mice_by_its_command(tmp_path: Path) -> None:
    cfg = tiny_config("mice", [*RUN, "callbacks=none"])
    cfg.run_dir = str(tmp_path)
    worker.run(cfg, tmp_path)
    result = run(config.load([f"checkpoint={tmp_path}", "protocol=assignment"], "evaluate"))
    assert result["samples"] == {"train": 48, "test": 16} and 1 <= result["clusters"] <= 4
    assert 25 <= result["acc"] <= 100 and {"nmi", "ari"} <= set(result)


def test_the_expert_with_the_largest_posterior() -> None:
    method, sizes = tiny_method("mice"), view_sizes("mice")
    train_step(method, tiny_batch(sizes))
    method.eval()
    view = tiny_batch(sizes, 1).views[0]
    with torch.no_grad():
        found = method.assign_clusters(view)
        g = torch.nn.functional.normalize(method.gate(method.backbone(view)), dim=1)
        query = method.projector(method.backbone(view)) + torch.nn.functional.normalize(method.prototypes, dim=1)
        v, queue = method.teacher(view), method.queue.keys.unflatten(1, query.shape[1:])
        positive = (query * v).sum(2).exp()
        total = positive + torch.einsum("bkd,qkd->bkq", query, queue).exp().sum(2)
        wanted = ((g @ method.gates.T).softmax(1) * positive / total).argmax(1)
    assert torch.equal(found, wanted)


@pytest.mark.slow
def test_without_a_validation_set_the_training_set_is_judged(tmp_path: Path) -> None:
    cfg = tiny_config("mice", [*RUN, "callbacks=none", "data.source.val_samples=0"])
    cfg.run_dir = str(tmp_path)
    worker.run(cfg, tmp_path)
    result = run(config.load([f"checkpoint={tmp_path}", "protocol=assignment"], "evaluate"))
    assert result["samples"] == {"train": 48} and 1 <= result["clusters"] <= 4


def test_a_method_that_assigns_nothing_is_told_what_to_take() -> None:
    judged = SimpleNamespace(method=tiny_method("simclr"))
    with pytest.raises(ConfigError, match="SimCLR assigns no clusters by itself .* protocol=clustering"):
        assignment.evaluate(judged)  # type: ignore[arg-type]
