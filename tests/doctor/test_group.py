"""Two processes: what is between them is measured, and what is wrong is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_zoo import distributed
from ssl_zoo.doctor import group
from ssl_zoo.doctor.findings import Finding, fault
from tests.pool import GlooPool

CPU = torch.device("cpu")


def _errors() -> dict[str, float]:
    """Of ``gather`` as it is, and of two that other libraries have had."""
    gather = distributed.gather
    found = {"right": group.gradient_error(CPU)}
    for name, wrong in {"detached": _detached, "averaged": _averaged}.items():
        distributed.gather = wrong
        try:
            found[name] = group.gradient_error(CPU)
        finally:
            distributed.gather = gather
    return found


def _detached(x: torch.Tensor) -> torch.Tensor:
    """The other rows without gradient."""
    every = distributed._Gather.apply(x.detach())
    start = distributed.rank() * len(x)
    return torch.cat([every[:start], x, every[start + len(x) :]])


def _averaged(x: torch.Tensor) -> torch.Tensor:
    """The mean of the ranks' gradients in the place of their sum."""
    every = distributed._Gather.apply(x)
    every.register_hook(lambda gradient: gradient / distributed.world_size())
    return every


def test_the_gradients_of_gather_are_compared_with_one_process(pool: GlooPool) -> None:
    for errors in pool.run(_errors):
        assert group.judge_gradient(errors["right"]).fix == ""
        assert errors["detached"] > 1e-3 and errors["averaged"] > 1e-3


def test_a_wrong_gradient_is_told() -> None:
    assert group.judge_gradient(0.25) == fault(
        "gather", "its gradients are not those of one process (largest difference 2.5e-01 of the largest)",
        "do not train on several processes here: results would not be those of one; please report it with the "
        "versions above",
    )  # fmt: skip
    assert group.judge_gradient(float("nan")).fault
    assert group.judge_gradient(2.9e-16) == Finding(
        "gather", "its gradients are those of one process (largest difference 2.9e-16 of the largest)"
    )


def _reduced(spoil: bool) -> tuple[float, float, bool]:
    summed = distributed.all_reduce_sum_
    if spoil:
        distributed.all_reduce_sum_ = lambda x: summed(x).mul_(1.5 if distributed.rank() else 1.0)
    try:
        return group.all_reduce(CPU, rounds=1)
    finally:
        distributed.all_reduce_sum_ = summed


def test_sums_are_timed_and_checked(pool: GlooPool) -> None:
    (small, large, right), _ = pool.run(_reduced, False)
    assert 0 < small < large and right
    assert [right for _, _, right in pool.run(_reduced, True)] == [True, False]


@pytest.mark.parametrize(
    "hosts, device, seconds, advice",
    [(1, "cuda", 1.0, ""), (2, "cpu", 1.0, ""), (2, "cuda", 1.0, "NCCL_DEBUG=INFO"), (2, "cuda", 1e-3, "")],
)
def test_a_slow_network_between_gpus(hosts: int, device: str, seconds: float, advice: str) -> None:
    found = group.judge_all_reduce(3.5e-5, seconds, True, 16, hosts, device)
    assert advice in found.fix and bool(found.fix) == bool(advice) and not found.fault


def test_the_speed_is_that_of_a_link_and_wrong_sums_are_a_fault() -> None:
    told = "4.1 kB in 35 us, 67.1 MB in 12 ms (8.39 GB/s)"
    assert group.judge_all_reduce(3.5e-5, 0.012, True, 4, 1, "cuda") == Finding("all-reduce", told)
    found = group.judge_all_reduce(3.5e-5, 0.012, False, 4, 1, "cuda")
    assert found.fault and found.text == f"{told}, and the sums are wrong"
    assert found.fix.startswith("do not train here: a link or a driver is broken; run nccl-tests, ")


def test_other_weights_are_told_with_the_process() -> None:
    assert group.judge_weights([1.5, 1.5]) == Finding("weights", "equal on all 2 processes after two steps")
    found: Any = group.judge_weights([1.5, 1.5, 1.25])
    assert found.fault and found.text == "process 2 of 3 has other weights than process 0 after two steps"
