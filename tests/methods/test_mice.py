"""MiCE: prototypes at the end of an epoch, its memory's start, and data that names no classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.mice import MiCE
from ssl_zoo.modules.experts import ExpertCentres
from tests.helpers import info, tiny_batch, tiny_config, tiny_method, train_step, view_sizes


def test_sums_by_expert_by_hand() -> None:
    centres = ExpertCentres(3, 2)
    v = torch.arange(12.0).view(2, 3, 2)  # two samples, three experts
    centres.add(v, torch.tensor([2, 0]))
    assert not centres.sums.any() and centres.added == 2  # staged
    centres.commit()
    assert centres.sums.tolist() == [[6.0, 7.0], [0.0, 0.0], [4.0, 5.0]]
    unit = centres.take()
    torch.testing.assert_close(unit.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))  # nobody chose expert 1
    assert not centres.sums.any() and centres.added == 0


def test_prototypes_are_replaced_once_and_only_after_steps() -> None:
    method = tiny_method("mice")
    assert isinstance(method, MiCE)
    start = method.prototypes.detach().clone()
    method.on_train_epoch_start()
    assert torch.equal(method.prototypes, start)
    train_step(method, tiny_batch(view_sizes("mice")))
    wanted = torch.nn.functional.normalize(method.centres.sums, dim=1)
    method.on_train_epoch_end()
    assert torch.equal(method.prototypes, wanted)
    method.on_train_epoch_start()
    assert torch.equal(method.prototypes, wanted)


def test_the_memory_starts_with_parts_as_long_as_embeddings() -> None:
    method = tiny_method("mice", ["method.queue_size=64"])
    assert isinstance(method, MiCE)
    lengths = method.queue.keys.unflatten(1, method.prototypes.shape).norm(dim=2)
    assert lengths.mean().item() == pytest.approx(1, abs=0.1)


def test_experts_are_the_classes_of_the_data_or_given() -> None:
    cfg = tiny_config("mice")
    method = build.build_method(cfg, info())
    assert isinstance(method, MiCE) and len(method.prototypes) == 4
    unlabelled = replace(info(), classes=None)
    with pytest.raises(ConfigError, match="method.experts is null and the data names no classes; give the number"):
        build.build_method(cfg, unlabelled)
    cfg.method.experts = 5
    method = build.build_method(cfg, unlabelled)
    assert isinstance(method, MiCE) and len(method.prototypes) == 5
    cfg.method.experts = 50
    with pytest.raises(ConfigError, match="50 centres with equal angles do not fit in 8 dimensions"):
        build.build_method(cfg, unlabelled)
