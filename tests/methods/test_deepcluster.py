"""DeepCluster between clusterings: fresh layers, sampling, processes; and a run of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import build, config, worker
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.distributed import world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.deepcluster import DeepCluster
from ssl_zoo.modules.dropout import with_dropout
from tests.helpers import info, tiny_batch, tiny_config, tiny_method, train_step, view_sizes
from tests.methods.test_epoch_hooks import TINY
from tests.pool import GlooPool

EXACT = torch.float64
OWN = ["method.projector.hidden=[8]", "method.projector.out_features=8", "method.clusters=6", "logger=csv"]


def method_of(*extra: str) -> DeepCluster:
    method = tiny_method("deepcluster", extra, EXACT)
    assert isinstance(method, DeepCluster)
    return method


def features() -> torch.Tensor:
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(3)).double()


def draw(epoch: int) -> Draw:
    return Draw(stream_key(0, "clusters", epoch), None)


def run() -> dict[str, Any]:
    method, sizes = method_of("method.dropout=0.5"), view_sizes("deepcluster")
    method.cluster(features(), draw(0))
    outs = [train_step(method, tiny_batch(sizes, step, EXACT)) for step in range(3)]
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
        losses /= world_size()
    return {"losses": losses, **outs[0]["gradients"], "labels": method.assigned.labels, "top": method.top.weight}


@pytest.mark.slow
def test_two_processes_with_clusters_and_dropout_equal_one(pool: GlooPool) -> None:
    one = run()
    for two in pool.run(run):
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-10, atol=1e-10)


def test_a_clustering_brings_labels_and_a_fresh_layer() -> None:
    method = method_of()
    method.cluster(features(), draw(0))
    labels, top = method.assigned.labels.clone(), method.top.weight.detach().clone()
    assert labels.min() == 0 and len(labels.unique()) == int(labels.max()) + 1
    assert abs(float(top.std(unbiased=False)) - 0.01) < 0.002 and method.top.bias.abs().max() == 0  # 128 numbers
    method.cluster(features(), draw(1))
    assert not torch.equal(method.top.weight, top)
    assert method.assigned.replaced == 2 and 0 < float(method.assigned.agreement) < 1  # another start of k-means


def test_the_layer_on_top_has_plain_sgd_of_its_own() -> None:
    method = method_of()
    groups = {group["name"]: group for group in method.bound.optimizer.param_groups}
    assert groups["top"]["momentum"] == 0 and groups["default"]["momentum"] == 0.9
    assert {id(p) for p in groups["top"]["params"]} == {id(p) for p in method.top.parameters()}


def test_the_loss_is_the_cross_entropy_with_the_samples_clusters() -> None:
    method = method_of()
    method.cluster(features(), draw(0))
    batch = tiny_batch(view_sizes("deepcluster"), 0, EXACT)
    out = method.training_loss(batch)
    scores = method.top(method.projector(out["features"]).relu())
    wanted = torch.nn.functional.cross_entropy(scores, method.assigned.labels[batch.index])
    torch.testing.assert_close(out["loss"], wanted, rtol=1e-12, atol=0)
    assert "nmi" not in out  # there is no clustering before the first
    method.cluster(features(), draw(1))
    assert method.training_loss(batch)["nmi"] == method.assigned.agreement


def test_dropout_is_off_while_features_are_clustered() -> None:
    method = method_of("method.dropout=0.5")
    batch = tiny_batch(view_sizes("deepcluster"), 0, EXACT)
    h = method.backbone(batch.views[0])
    assert not torch.equal(with_dropout(method.projector, h, method.dropout, batch.rng), method.projector(h))


@pytest.mark.parametrize("option", ["method.sampling=uniform", "method.sampling=authors", "method.clustering=pic"])
def test_a_run_reads_all_clusters_equally_often(tmp_path: Path, option: str) -> None:
    cfg = config.load(["method=deepcluster", *TINY, *OWN, option, "trainer.max_epochs=2"])
    cfg.run_dir = str(tmp_path)
    worker.run(cfg, tmp_path)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    labels = saved["state_dict"]["assigned.labels"]
    groups = saved["ImageData"]["groups"]
    assert saved["state_dict"]["assigned._extra_state"] == {"replaced": 2}
    assert groups["instances"] is None
    assert torch.equal(groups["number"], labels) == (option != "method.sampling=authors")
    assert torch.equal(groups["number"].sort().values, labels.sort().values)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert "train/nmi" in rows[0]


@pytest.mark.parametrize(("options", "channels"), [([], 2), (["augmentation=simclr"], 3), (["data=digits"], 1)])
def test_the_backbone_has_two_channels_behind_a_sobel_filter_only(options: list[str], channels: int) -> None:
    cfg = config.load(["method=deepcluster", "data=synthetic", *options])
    assert cfg.backbone.in_channels == channels
    assert ("image/sobel" in cfg.augmentation.views[0].ops[-1]) == (channels == 2)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("method.clusters=65", "method.clusters=65: wanted 2 to 64, the training samples; try method.clusters=2"),
        ("method.clustering=kmean", "method.clustering=kmean: .*'kmeans'"),
        ("method.sampling=author", "method.sampling=author: .*'authors'.*, or null"),
        ("method.reassign=0", "method.reassign=0: wanted 1 epoch or more"),
    ],
)
def test_what_does_not_fit_is_refused(option: str, words: str) -> None:
    key, _, value = option.partition("=")
    with pytest.raises((ValueError, ConfigError), match=words):
        _build(key, value)


def _build(key: str, value: str) -> None:
    cfg = tiny_config("deepcluster")
    cfg.method[key.removeprefix("method.")] = int(value) if value.isdigit() else value
    build.build_method(cfg, info())
