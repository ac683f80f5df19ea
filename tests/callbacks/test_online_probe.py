from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo import distributed
from ssl_zoo.callbacks.online_probe import OnlineProbe, Probe
from tests.callbacks.tiny import CLASSES, Rows, TinyData, fake_trainer, fit
from tests.pool import GlooPool


def learn(features: Tensor, label: Tensor, steps: int = 1) -> OnlineProbe:
    probe = OnlineProbe()
    trainer = fake_trainer(datamodule=SimpleNamespace(info=SimpleNamespace(classes=CLASSES)))
    for _ in range(steps):
        probe._learn(features, label, trainer)
    return probe


def weights(probe: OnlineProbe) -> list[Tensor]:
    assert probe.probe is not None
    return [value.detach().clone() for value in probe.probe.state_dict().values()]


def test_one_step_equals_torch_batch_norm_and_linear() -> None:
    torch.manual_seed(0)
    x, label = 100 + 5 * torch.randn(20, 4), torch.arange(20) % CLASSES
    norm, linear = torch.nn.BatchNorm1d(4, affine=False, eps=1e-6), torch.nn.Linear(4, CLASSES)
    torch.nn.init.zeros_(linear.weight), torch.nn.init.zeros_(linear.bias)
    F.cross_entropy(linear(norm(x)), label).backward()
    torch.optim.AdamW(linear.parameters(), lr=1e-2, weight_decay=0.0).step()
    weight, bias = weights(learn(x, label))[:2]
    torch.testing.assert_close(weight, linear.weight.detach())
    torch.testing.assert_close(bias, linear.bias.detach())


def test_running_statistics_forget_where_they_started() -> None:
    probe = Probe(2, 3, momentum=0.25)
    batches = [torch.tensor([[i, 0.0], [i, 0.2]]) for i in (100.0, 102.0, 104.0, 106.0, 110.0)]
    for batch in batches:
        probe(batch)
    # The mean of the first four is 103; from then on a quarter of the way to each batch.
    assert probe.mean[0].item() == pytest.approx(103 + 0.25 * 7)
    assert probe.var.tolist() == pytest.approx([0.0, 0.01])


def test_separable_features_of_any_scale_are_learnt() -> None:
    label = torch.arange(60) % CLASSES
    x = torch.eye(CLASSES, 5)[label] + 0.05 * torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    for scale in (1e-3, 1.0, 1e3):
        probe = learn(scale * x, label, steps=60).probe
        assert probe is not None and (probe.eval()(scale * x).argmax(1) == label).all()


def test_rows_without_label_do_not_teach_and_a_batch_without_any_is_harmless() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2, -1, -1, -1])
    probe = learn(x, label)
    # The rows still count for the statistics; the loss is the mean over the three that have a label.
    z = (x - x.mean(0)) * (x.var(0, correction=0) + 1e-6).rsqrt()
    gradient = (torch.full((3, CLASSES), 1 / CLASSES) - torch.eye(CLASSES)).T @ z[:3] / 3
    torch.testing.assert_close(probe.probe.weight.grad, gradient)  # type: ignore[union-attr]
    assert probe._counts.tolist()[1] == 3  # type: ignore[union-attr]
    empty = learn(x, torch.full((6,), -1))
    assert all(value.isfinite().all() for value in weights(empty))


def test_soft_labels_are_learnt_as_probabilities() -> None:
    x, label = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % CLASSES
    for one, other in zip(weights(learn(x, label)), weights(learn(x, F.one_hot(label, CLASSES).float())), strict=True):
        torch.testing.assert_close(one, other)


def test_evaluation_logs_percent_at_the_end_of_epochs() -> None:
    rows, probe = Rows(), OnlineProbe(every_n_epochs=2)
    _, method = fit([probe], logger=rows, max_epochs=5)
    top1 = rows.column("probe/top1")
    assert list(top1) == [8, 16, 20]  # four steps an epoch
    assert rows.rows[20]["epoch"] == 4
    assert 60 < top1[20] <= 100
    assert method.metrics["probe/top1"] == top1[20] == probe.latest["probe/top1"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (TinyData(classes=None), "the training set has no labels"),
        (TinyData(validation=False), "there is no validation set (data.val_fraction=0.1 makes one)"),
        (TinyData(val_labels=False), "the validation set has no labels"),
    ],
)
def test_it_switches_itself_off_and_says_why(data: TinyData, reason: str, capsys: pytest.CaptureFixture) -> None:
    _, method = fit([OnlineProbe()], data=data)
    assert capsys.readouterr().out.splitlines().count(f"online_probe is off: {reason}") == 1
    assert "probe/top1" not in method.metrics


class SaveAt(pl.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_resumed_probe_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, part, resumed = OnlineProbe(), OnlineProbe(), OnlineProbe()
    fit([whole])
    fit([part, SaveAt(8, tmp_path / "a.ckpt")], max_epochs=2)
    fit([resumed], resume=tmp_path / "a.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    one, other = whole.state_dict()["optimizer"]["state"], resumed.state_dict()["optimizer"]["state"]
    assert all(torch.equal(one[i][key], other[i][key]) for i in one for key in one[i])
    torch.load(tmp_path / "a.ckpt", weights_only=True)  # the state holds plain containers only


def test_a_state_that_was_not_used_yet_is_saved_again() -> None:
    x, label = torch.randn(6, 4), torch.arange(6) % CLASSES
    state = learn(x, label).state_dict()
    resumed = OnlineProbe()
    resumed.load_state_dict(state)
    assert torch.equal(resumed.state_dict()["probe"]["weight"], state["probe"]["weight"])


def test_a_probe_of_another_width_is_refused_in_words() -> None:
    probe = OnlineProbe()
    probe.load_state_dict(learn(torch.randn(6, 4), torch.arange(6) % CLASSES).state_dict())
    with pytest.raises(ValueError, match=r"\[3, 4\] and this run's is \[3, 5\]"):
        probe._build(5, CLASSES, torch.device("cpu"))


def share_of_probe(rows: int) -> list[Tensor]:
    """Two steps on this rank's rows; unequal numbers of labels per rank."""
    generator = torch.Generator().manual_seed(3)
    x, label = torch.randn(rows, 5, generator=generator), torch.arange(rows) % CLASSES
    label[: rows // 2 - 1] = -1
    return weights(learn(distributed.own_rows(x), distributed.own_rows(label), steps=2))


def test_two_processes_equal_one(pool: GlooPool) -> None:
    alone = share_of_probe(8)
    for result in pool.run(share_of_probe, 8):
        for one, other in zip(alone, result, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_probe_draws_no_random_number() -> None:
    state = torch.get_rng_state()
    Probe(8, 3)
    assert torch.equal(torch.get_rng_state(), state)
