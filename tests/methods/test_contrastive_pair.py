"""Contrastive pairs and triplets as methods: who counts as alike, batches with several samples of a class, messages."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import build, config, worker
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.contrastive_pair import ContrastivePair
from ssl_zoo.methods.triplet import Triplet
from tests.golden.harness import Identity, no_recipe
from tests.helpers import over_ranks, tiny_batch, tiny_config, tiny_method, train_step
from tests.pool import GlooPool

INFO = image_info(samples=64, classes=4, image_size=1, channels=1, batch_size=4)
VIEWS = [torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
LABELS = torch.tensor([1, -1, 1, -1])


def pair(**options: Any) -> ContrastivePair:
    return ContrastivePair(Identity(3), no_recipe(), INFO, Identity, negatives="all", **options).double()


def by_loops(alike: Any) -> float:
    z, losses = torch.cat(VIEWS), []
    for i, j in combinations(range(8), 2):
        d = float((z[i] - z[j]).norm())
        losses.append(d**2 / 2 if alike(i, j) else max(0.0, 1 - d) ** 2 / 2)
    return sum(losses) / len(losses)


def test_views_of_a_sample_are_alike_and_labels_are_not_read() -> None:
    loss = pair().training_loss(Batch(VIEWS, torch.arange(4), LABELS, None))["loss"]
    assert loss.item() == pytest.approx(by_loops(lambda i, j: j - i == 4), rel=1e-6)


def test_samples_of_a_label_are_alike_and_those_without_one_are_like_themselves() -> None:
    loss = pair(positives="label").training_loss(Batch(VIEWS, torch.arange(4), LABELS, None))["loss"]
    classes = [1, -2, 1, -3] * 2
    assert loss.item() == pytest.approx(by_loops(lambda i, j: classes[i] == classes[j]), rel=1e-6)


def test_the_sum_of_differences_is_what_the_exponential_loss_compares() -> None:
    loss = pair(form="chopra", margin=9.0).training_loss(Batch(VIEWS, torch.arange(4), None, None))["loss"]
    z = torch.cat(VIEWS)
    e = torch.stack([(z[i] - z[j]).abs().sum() for i, j in combinations(range(8), 2)])
    similar = torch.tensor([j - i == 4 for i, j in combinations(range(8), 2)])
    wanted = torch.where(similar, 2 / 9 * e**2, 18 * torch.exp(-2.77 / 9 * e)).mean()
    torch.testing.assert_close(loss, wanted)


def test_balanced_pairs_are_as_many_of_both_kinds() -> None:
    method, batch = tiny_method("contrastive_pair"), tiny_batch([16, 16])
    rows = 2 * len(batch.index)
    similar = torch.eye(rows // 2, dtype=torch.bool).repeat(2, 2)
    chosen = method.pairs(torch.rand(rows, rows), similar, batch)
    assert int((chosen & similar).sum()) == int((chosen & ~similar).sum()) == rows // 2
    assert not chosen.tril().any()
    later = method.pairs(torch.rand(rows, rows), similar, tiny_batch([16, 16], step=1))
    assert not torch.equal(chosen, later)


CHOICES = [
    ("contrastive_pair", ["method.negatives=hardest"]),
    ("contrastive_pair", ["method.form=chopra", "method.positives=label"]),
    ("triplet", ["method.negatives=all", "method.squared=false"]),
    ("triplet", ["method.negatives=semihard", "method.unit=true"]),
    ("triplet", ["method.negatives=nearest_semihard", "method.positives=label"]),
    ("exemplar_cnn", ["method.loss=triplet"]),
    ("exemplar_cnn", ["method.dropout=0.3"]),
]


def steps(name: str, options: list[str]) -> dict[str, Any]:
    method = tiny_method(name, options, torch.float64)
    for group in method.bound.optimizer.param_groups:
        group.update({"eps": 1e-4} if "betas" in group else {})
    return over_ranks(method, [train_step(method, tiny_batch([16, 16], step, torch.float64)) for step in range(2)])


MARKED = [pytest.param(*choice, marks=[pytest.mark.slow] if i % 3 else []) for i, choice in enumerate(CHOICES)]


@pytest.mark.parametrize(("name", "options"), MARKED, ids=str)
def test_every_choice_is_the_same_with_two_processes(name: str, options: list[str], pool: GlooPool) -> None:
    one = steps(name, options)
    for two in pool.run(steps, name, options):
        torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-9, atol=1e-9)
        for key, value in one["gradients"].items():
            torch.testing.assert_close(two["gradients"][key], value, rtol=1e-9, atol=1e-9)
    assert (one["losses"] > 0).all()


def test_embeddings_are_evaluated_where_told() -> None:
    for name in ("contrastive_pair", "triplet"):
        method = tiny_method(name, ["method.evaluate_head=true", "method.unit=true"]).eval()
        view = torch.rand(2, 3, 16, 16)
        z = method.projector(method.backbone(view))
        torch.testing.assert_close(method.embed(view), z / z.norm(dim=1, keepdim=True))




@pytest.mark.parametrize("name", ["triplet", pytest.param("contrastive_pair", marks=pytest.mark.slow)])
def test_a_batch_holds_several_samples_of_a_class(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = {"triplet": Triplet, "contrastive_pair": ContrastivePair}[name]
    seen, loss = [], cls.training_loss
    monkeypatch.setattr(cls, "training_loss", lambda self, batch: (seen.append(batch.label), loss(self, batch))[1])
    words = ["method.positives=label", "method.instances=4", "augmentation=plain", "data.source.samples=64"]
    words += ["logger=none", "callbacks=none", "trainer=cpu", "trainer.max_epochs=1", "data.source.val_samples=16"]
    cfg = tiny_config(name, words)
    cfg.run_dir = str(tmp_path)
    worker.run(cfg, tmp_path)
    assert len(seen) == 8
    for label in seen:
        assert (label.unflatten(0, (-1, 4)) == label[::4, None]).all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["augmentation=plain"], "method.positives=views compares views of a sample and augmentation.views gives one; "
         r"set its count to 2 or more \(augmentation.views.0.count=2\), or method.positives=label"),
        (["method.negatives=hard"], "method.negatives='hard': .* wants 'all' or .*'hardest'"),
        (["method.margin=0"], "method.margin=0: .* wants a number above 0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["contrastive_pair", "triplet"])
def test_wrong_settings_are_told_before_anything_is_built(name: str, words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build.check_signatures(config.load([f"method={name}", "data=synthetic", *words]))


@pytest.mark.parametrize("cls", [ContrastivePair, Triplet])
def test_classes_are_asked_for_where_there_are_none(cls: Any) -> None:
    unlabelled = image_info(samples=64, classes=None, image_size=1, channels=1, batch_size=4)
    with pytest.raises(ValueError, match="method.positives=label needs labels and the training set has none; set"):
        cls(Identity(3), no_recipe(), unlabelled, Identity, positives="label")
    with pytest.raises(ValueError, match="method.instances=4 is of samples of a class; set method.positives=label"):
        cls(Identity(3), no_recipe(), INFO, Identity, instances=4)
