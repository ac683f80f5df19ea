"""``batch_norm.group`` counts samples, whatever rows they bring into a pass: on one process and on two the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_zoo.distributed import world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.batch_norm import BatchNorm, convert
from tests.helpers import METHODS, ROWS, tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool

GROUPS = (None, ROWS // 4, ROWS // 2, ROWS)
EPS = 1e-4  # of Adam, which would divide gradients that are rounding by less (test_methods.py)
SOURCE = "method.source=true"
RESNET = ("backbone=resnet8", "backbone.width=8", "backbone.zero_init_residual=false")

# One method for each kind of pass, and what makes batch norm take part in it.
KINDS: dict[str, tuple[str, ...]] = {
    "moco_v2": (),  # views one by one, keys shuffled
    "simclr": (),  # views together
    "dino": (*RESNET, "method.projector.norm=batch"),  # those of each size, and all of them in a head; a teacher
    "infomin": ("method.projector.norm=batch",),  # tiles
    "loco": (),  # stages one by one
}
# Further passes, by settings that are not the defaults; with the defaults every method is tried.
MORE: dict[str, tuple[tuple[str, ...], tuple[int | None, ...]]] = {
    "spcl": ((SOURCE,), (None, ROWS // 2, ROWS)),  # one domain of two; of two samples, one of each has no statistics
    "amdim": (("method.classifiers=true",), GROUPS),  # a head of both views beside those of maps
}


def one_step(name: str, extra: tuple[str, ...], group: int | None) -> dict[str, Any]:
    """Loss, gradients and state of a float64 step, on this rank's share of the global batch."""
    method = tiny_method(name, extra, torch.float64, tiny=not set(RESNET) & set(extra))
    convert(method, group)
    for values in method.bound.optimizer.param_groups:
        values.update({"eps": EPS} if "betas" in values else {})
    batch = tiny_batch(view_sizes(name, extra), 0, torch.float64)
    if SOURCE in extra:  # source and target alternate
        batch.label = torch.where(torch.arange(len(batch.index)) % 2 == 0, batch.label, -1)
    out = train_step(method, batch)
    loss = out["loss"].clone()
    if world_size() > 1:
        torch.distributed.all_reduce(loss)
    state = {f"state {key}": value for key, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    return {"loss": loss / world_size(), **out["gradients"], **state}


def every_group(name: str, extra: tuple[str, ...], groups: tuple[int | None, ...]) -> list[dict[str, Any]]:
    return [one_step(name, extra, group) for group in groups]


def check_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")


def check_groups(pool: GlooPool, name: str, *extra: str, groups: tuple[int | None, ...] = GROUPS) -> None:
    """Two processes are one with each group, and a group as large as the batch is the whole batch."""
    one = every_group(name, extra, groups)
    for rank in pool.run(every_group, name, extra, groups):
        for found, wanted in zip(rank, one, strict=True):
            check_equal(found, wanted)
    check_equal(one[-1], one[0])
    normed = any("running_mean" in key for key in one[0])
    assert normed is any(not torch.equal(one[0][key], one[1][key]) for key in one[0])


@pytest.mark.parametrize("name", KINDS)
def test_a_group_of_samples_is_the_same_on_two_processes_as_on_one(name: str, pool: GlooPool) -> None:
    check_groups(pool, name, *KINDS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_every_group(name: str, pool: GlooPool) -> None:
    method = tiny_method(name)
    if any(norm.every is None for norm in method.modules() if isinstance(norm, BatchNorm)):
        with pytest.raises(ConfigError, match="whose number depends on the data"):
            convert(method, 2)
    else:
        check_groups(pool, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_further_heads_and_domains_take_groups(name: str, pool: GlooPool) -> None:
    extra, groups = MORE[name]
    check_groups(pool, name, *extra, groups=groups)


def test_a_domain_brings_half_of_a_group() -> None:
    method = tiny_method("spcl", [SOURCE, "batch_norm.group=4"])
    assert {norm.group for norm in method.modules() if isinstance(norm, BatchNorm)} == {2}
    message = r"batch_norm.group=2: to .* comes one in 2 samples; wanted a multiple of 2 from 4, or null"
    with pytest.raises(ConfigError, match=message):
        tiny_method("spcl", [SOURCE, "batch_norm.group=2"])


@pytest.mark.parametrize("name", ["ibot", "dinov2"])
def test_hidden_patches_are_of_no_group(name: str) -> None:
    head = "method.projector.norm=batch"
    assert all(norm.group is None for norm in tiny_method(name, [head]).modules() if isinstance(norm, BatchNorm))
    message = r"group=4: projector.mlp.1 normalises rows whose .*\(hidden patches, nodes\).* batch_norm.group=null"
    with pytest.raises(ConfigError, match=message):
        tiny_method(name, [head, "batch_norm.group=4"])
