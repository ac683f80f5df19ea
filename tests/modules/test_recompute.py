"""Blocks that compute their activations again: the same loss, gradients, draws and statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.backbones.image import resnet50x2
from ssl_zoo.distributed import world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.recompute import recompute_blocks
from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool

EXACT = torch.float64
RANDOM = ["backbone.drop_path_rate=0.5", "+backbone.proj_drop_rate=0.3"]
CASES: dict[str, tuple[str, list[str]]] = {
    "batch norm": ("simclr", []),
    "groups, two passes": ("moco_v2", []),
    "views together": ("swav", []),
    "tokens": ("mae", []),
    "drop path and dropout": ("mae", RANDOM),
    "chunks": ("simclr", ["method.grad_cache=2", "batch_norm.group=4"]),
}


def steps(name: str, words: list[str], again: bool) -> dict[str, Any]:
    """Losses and gradients of two steps, the state behind them, and what torch draws next."""
    method, sizes = tiny_method(name, words, EXACT), view_sizes(name, words)
    if again:
        recompute_blocks(method.backbone)
    outs = [train_step(method, tiny_batch(sizes, step, EXACT)) for step in range(2)]
    gradients = {f"{i}.{key}": x for i, out in enumerate(outs) for key, x in out["gradients"].items()}
    state = {key: x for key, x in method.state_dict().items() if isinstance(x, torch.Tensor)}
    return {"loss": torch.stack([out["loss"] for out in outs]), **gradients, **state, "next": torch.rand(3)}


def check_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_loss_gradients_draws_and_statistics_stay(case: str) -> None:
    name, words = CASES[case]
    check_equal(steps(name, words, again=True), steps(name, words, again=False))


def test_on_two_processes_too(pool: GlooPool) -> None:
    for found, wanted in zip(pool.run(steps, "simclr", [], True), pool.run(steps, "simclr", [], False), strict=True):
        check_equal(found, wanted)
    assert world_size() == 1


def kept(net: nn.Module) -> int:
    """Numbers that a forward pass keeps for its gradient."""
    count = 0

    def note(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        net(torch.randn(2, 3, 32, 32))
    return count


def test_less_is_kept() -> None:
    net = resnet50x2(image_size=32, stem="small")
    before = kept(net)
    recompute_blocks(net)
    assert kept(net) < 0.2 * before


def test_a_copy_of_a_network_runs_its_own_blocks() -> None:
    backbone = tiny_method("simclr").backbone
    recompute_blocks(backbone)
    twin, view = copy.deepcopy(backbone), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert twin(view).abs().max() == 0 < backbone(view).abs().max()


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="this backbone is not built of blocks; set trainer.activation_checkpointing"):
        recompute_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
