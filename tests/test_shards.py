"""Parameters in pieces, also unequal and empty ones: optimizers, clipping, averages, checkpoints see whole tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.prototypes import Prototypes
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.optim.lars import LARC, LARS
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.rmsprop import RMSProp
from ssl_zoo.shards import assign, is_shard, norms, own, split, whole
from tests.pool import GlooPool

EXACT = torch.float64
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "LARS, scaled": partial(LARS, momentum=0.9, weight_decay=0.1),
    "LARS, step": partial(LARS, buffer="step", nesterov=True),
    "LARS, raw": partial(LARS, buffer="raw"),
    "LARC": partial(LARC, clip=True, weight_decay=0.1),
    "RMSProp": partial(RMSProp, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1),
    "AdamW": torch.optim.AdamW,
    "Adam, not fused": partial(torch.optim.Adam, fused=False),
}
CLIPS = [Clip("global", 0.5), Clip("per_tensor", 0.1), Clip("per_module", 0.3), Clip("global", 0.5, match="^0")]


def network() -> nn.Module:
    """Of five rows and three, of which one process has one less, and of one, of which one has none."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 1)).to(EXACT)


def in_pieces(net: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
    return net


def give_gradients(net: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in net.parameters():
        gradient = torch.randn(p.shape, generator=generator, dtype=EXACT)
        p.grad = split(gradient, p) if is_shard(p) else gradient


def taken(net: nn.Module, optimizer: Callable[..., Any], clip: Clip | None) -> dict[str, Any]:
    """Three steps, by a recipe that leaves out biases; parameters and moments as a checkpoint has them."""
    rules = {"biases": {"ndim_at_most": 1, "weight_decay": 0.0}}
    recipe = OptimizerRecipe(optimizer, {"lr": 0.1}, rules, lr_scale="absolute")
    bound = recipe.bind(net.named_parameters(), batch_size=8)
    for step in range(3):
        give_gradients(net, step)
        if clip is not None:
            clip(net.named_parameters())
        bound.optimizer.step()
    moments = {
        f"{i}.{key}": whole(x) for i, entry in bound.optimizer.state_dict()["state"].items() for key, x in entry.items()
    }
    return {**{key: whole(x) for key, x in net.state_dict().items()}, **moments}


def steps_in_pieces(optimizer: str, clip: Clip | None = None) -> dict[str, Any]:
    return taken(in_pieces(network()), OPTIMIZERS[optimizer], clip)


def check_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_the_steps_of_whole_tensors(optimizer: str, pool: GlooPool) -> None:
    check_equal(pool.run(steps_in_pieces, optimizer)[0], taken(network(), OPTIMIZERS[optimizer], None))


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_every_clip_goes_by_norms_of_whole_gradients(clip: Clip, pool: GlooPool) -> None:
    found = pool.run(steps_in_pieces, "SGD", clip)[0]
    wanted = taken(network(), OPTIMIZERS["SGD"], clip)
    check_equal(found, wanted)
    assert not torch.equal(wanted["0.weight"], taken(network(), OPTIMIZERS["SGD"], None)["0.weight"])


class Followed(nn.Module):
    """A student, a teacher and prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.student: Any = network()
        self.teacher = EMA(self.student)
        self.prototypes = Prototypes(4, 3).to(EXACT)


@torch.no_grad()
def moved() -> tuple[Tensor, Tensor, list[Tensor], dict[str, Tensor]]:
    """Norms, a parameter that was set, prototypes put back on the sphere, and a teacher that has moved half way."""
    net = Followed()
    in_pieces(net)
    lengths = norms(list(net.student.parameters()))
    assign(net.student[0].weight, torch.arange(20, dtype=EXACT).view(5, 4))
    net.teacher.update(net.student, 0.5)
    net.prototypes.normalize_()
    teacher = {key: whole(x) for key, x in net.teacher.state_dict().items()}
    rows = [len(x) for x in own(net.student.parameters())]
    changed = [whole(net.student[0].weight), whole(net.prototypes.weight)]
    return lengths, torch.tensor(rows), changed, teacher


def test_norms_values_averages_and_prototypes(pool: GlooPool) -> None:
    (lengths, rows, (weight, prototypes), teacher), (others, fewer, _, none) = pool.run(moved)
    net = network()
    wanted = torch.stack([p.detach().norm() for p in net.parameters()])
    torch.testing.assert_close(lengths, wanted, rtol=1e-14, atol=0)
    torch.testing.assert_close(others, wanted, rtol=1e-14, atol=0)
    assert rows.tolist() == [3, 3, 2, 2, 1, 1] and fewer.tolist() == [2, 2, 1, 1, 0, 0]
    assert torch.equal(weight, torch.arange(20, dtype=EXACT).view(5, 4))
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(3, dtype=EXACT))
    expected = {f"net.{key}": x.detach() for key, x in net.state_dict().items()}
    expected["net.0.weight"] = (expected["net.0.weight"] + weight) / 2
    check_equal(teacher, expected)
    assert all(x.numel() == 0 for x in none.values())  # only the main process writes


def test_of_whole_tensors_nothing_is_changed() -> None:
    x = torch.randn(3, 2)
    assert whole(x) is x and own([x])[0] is x and not is_shard(x)
    torch.testing.assert_close(norms([x, 2 * x]), torch.stack([x.norm(), 2 * x.norm()]))
