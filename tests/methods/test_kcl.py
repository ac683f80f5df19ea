"""KCL: which keys are positives, and the queue that is full before the first step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from tests.helpers import info, tiny_batch, tiny_config, tiny_method

SIZES = [16, 16]


def filled(*given: str, labels: list[int]):
    method = tiny_method("kcl", list(given))
    method.queue.labels.copy_(torch.tensor(labels))
    return method


def batch_with(*labels: int):
    batch = tiny_batch(SIZES)
    batch.label = torch.tensor(labels)
    return batch


def test_at_most_k_keys_of_the_class_are_drawn_and_others_on_another_batch():
    method = filled("method.positives=2", labels=[0] * 6 + [1] * 1 + [-1] * 9)
    same, drawn = method.choose(batch_with(0, 0, 0, 0, 1, 2, -1, 0))
    assert same.sum(1).tolist() == [6, 6, 6, 6, 1, 0, 0, 6]
    assert drawn.sum(1).tolist() == [2, 2, 2, 2, 1, 0, 0, 2]
    assert not (drawn & ~same).any()
    assert len({tuple(row.tolist()) for row in drawn[[0, 1, 2, 3, 7]]}) > 1  # at random, not always the first


def test_null_takes_all_keys_of_the_class():
    method = filled("method.positives=null", labels=[0] * 6 + [1] * 10)
    same, drawn = method.choose(batch_with(*[0, 1] * 4))
    assert torch.equal(same, drawn) and drawn.sum(1).tolist() == [6, 10] * 4


def test_every_key_is_drawn_equally_often():
    method = filled("method.positives=2", labels=[0] * 8 + [1] * 8)
    counts = torch.zeros(16)
    for step in range(200):
        batch = tiny_batch(SIZES, step)
        batch.label = torch.zeros(8, dtype=torch.int64)
        counts += method.choose(batch)[1].sum(0)
    assert not counts[8:].any() and counts.sum() == 200 * 8 * 2
    assert (counts[:8] / counts.sum()).tolist() == pytest.approx([1 / 8] * 8, abs=0.02)  # 5 standard deviations


class Watch(pl.Callback):
    """The queue when the first batch begins, and what the loader has handed out by then."""

    def on_train_batch_start(self, trainer, method, batch, batch_idx):
        if not hasattr(self, "pushed"):
            self.pushed, self.labels = method.queue.pushed, method.queue.labels.clone()
            self.keys, self.index = method.queue.keys.clone(), batch.index
            self.epoch, self.grads = trainer.current_epoch, [p.grad for p in method.parameters()]


def fit(fill: bool, ckpt_path: str | None = None, root: str | None = None) -> Watch:
    cfg = tiny_config("kcl", ["data.source.samples=64", f"method.fill_queue={fill}".lower()])
    data = build.build_data(cfg)
    method = build.build_method(cfg, replace(data.info))
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=2 if ckpt_path else 1, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[watch],
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=root, use_distributed_sampler=False,
    )
    trainer.fit(method, datamodule=data, ckpt_path=ckpt_path, **({"weights_only": False} if ckpt_path else {}))
    watch.trainer = trainer
    return watch


@pytest.mark.filterwarnings("ignore")
def test_the_queue_is_full_of_labelled_keys_before_the_first_step_and_the_data_goes_on_as_without(tmp_path):
    filled, empty = fit(True), fit(False)
    assert (filled.pushed, empty.pushed) == (16, 0)
    assert (filled.labels >= 0).all() and (empty.labels == -1).all()
    torch.testing.assert_close(filled.keys.norm(dim=1), torch.ones(16))
    assert torch.equal(filled.index, empty.index)  # the position in the data did not move
    file = str(tmp_path / "run.ckpt")
    filled.trainer.save_checkpoint(file)
    resumed = fit(True, file, str(tmp_path))
    assert (resumed.epoch, resumed.pushed) == (1, 16 + 64)  # a resumed run has its queue


def test_data_without_labels_and_impossible_numbers_are_refused():
    cfg = tiny_config("kcl")
    with pytest.raises(ConfigError, match="method KCL needs labels"):
        build.build_method(cfg, replace(info(), classes=None))
    with pytest.raises(ConfigError, match=r"method.positives=17: wanted null, or 0 to method.queue_size=16"):
        tiny_method("kcl", ["method.positives=17"])
