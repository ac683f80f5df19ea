"""The observer changes nothing: with and without callbacks, everything of a run is equal, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from ssl_zoo.callbacks.collapse import Collapse
from ssl_zoo.callbacks.nan_guard import NaNGuard
from ssl_zoo.callbacks.observe import epoch_due, observing
from ssl_zoo.callbacks.online_knn import OnlineKNN
from ssl_zoo.callbacks.online_probe import OnlineProbe
from ssl_zoo.callbacks.progress import Progress
from ssl_zoo.callbacks.throughput import Throughput
from tests.callbacks.tiny import Rows, Snapshot, fake_method, fake_trainer, fit, meta_batch, tiny


def observers() -> list[pl.Callback]:
    return [
        NaNGuard(every_n_steps=1),
        Throughput(every_n_steps=1),
        Collapse(every_n_steps=1),
        OnlineKNN(bank_size=10),
        OnlineProbe(),
        Progress(live=True, every_n_steps=1),
    ]


@pytest.mark.parametrize("give_features", [True, False])
def test_weights_buffers_modes_and_generators_are_the_same_with_and_without(give_features: bool) -> None:
    alone, watched = Snapshot(), Snapshot()
    fit([alone], method=tiny(give_features=give_features))
    fit([*observers(), watched], method=tiny(give_features=give_features), logger=Rows())
    assert len(alone.seen) == len(watched.seen) == 1 + 12 + 3
    for one, other in zip(alone.seen, watched.seen, strict=True):
        assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
        assert one[1] == other[1]
        assert torch.equal(one[2], other[2])
        assert one[3:] == other[3:]


def test_observing_restores_flags_and_generators_after_an_error() -> None:
    method = tiny().train()
    method.teacher.eval()
    flags = [part.training for part in method.modules()]
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), observing(method):
        assert not any(part.training for part in method.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)
        raise RuntimeError("inside")
    assert [part.training for part in method.modules()] == flags
    assert True in flags and False in flags
    assert torch.equal(torch.get_rng_state(), state)


def test_no_observer_reads_the_device_between_its_steps() -> None:
    # On the meta device every read on the host raises. Step 1 of every 50 (20): nobody may read.
    outputs, batch = meta_batch()
    data = type("Data", (), {"info": type("Info", (), {"classes": 3})})
    trainer = fake_trainer(global_step=1, datamodule=data)
    for observer in (NaNGuard(), Throughput(), Collapse(), OnlineKNN(), OnlineProbe(), Progress(live=False)):
        observer.on_train_batch_start(trainer, fake_method(), batch, 0)
        observer.on_train_batch_end(trainer, fake_method(), outputs, batch, 0)
    with pytest.raises(RuntimeError, match="meta"):  # the reading itself, so that the test can fail
        outputs["loss"].item()


@pytest.mark.parametrize(
    ("values", "due"),
    [
        ({"current_epoch": 0}, False),
        ({"current_epoch": 1}, True),  # every second
        ({"current_epoch": 4}, True),  # the last of five
        ({"current_epoch": 0, "max_steps": 7, "global_step": 7}, True),  # stopped by steps
        ({"current_epoch": 1, "should_stop": True}, False),
    ],
)
def test_evaluation_is_due_every_n_epochs_and_at_the_end(values: dict[str, Any], due: bool) -> None:
    assert epoch_due(fake_trainer(max_epochs=5, **values), 2) is due


def test_every_yaml_lists_every_argument_with_its_default() -> None:
    import inspect

    from hydra.utils import get_class

    folder = Path(__file__).parents[2] / "conf/callbacks"
    named = {path.stem: OmegaConf.load(path) for path in folder.glob("*.yaml") if path.stem not in ("default", "none")}
    assert set(named) >= {"online_probe", "online_knn", "collapse", "throughput", "progress", "nan_guard"}
    for name, config in named.items():
        whole = OmegaConf.merge({"evaluate_every": 1, "layer": None}, config)  # as in train.yaml
        written = OmegaConf.to_container(whole, resolve=True)[name]  # type: ignore[index]
        signature = inspect.signature(get_class(written.pop("_target_"))).parameters
        assert written.keys() == signature.keys(), name
        defaults = {key: p.default for key, p in signature.items() if p.default is not inspect.Parameter.empty}
        assert {key: written[key] for key in defaults} == defaults, name
