"""Every method of conf/method keeps the house's promises; a new one is tested because its YAML exists."""

from __future__ import annotations

import inspect
import math
from copy import deepcopy
from typing import Any

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.signatures import INJECTED, locate
from tests.helpers import METHODS, of_images, over_ranks, quickly, tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool

EXACT = torch.float64
EPS = 1e-4
BACKBONES = of_images("backbone")


def run_steps(name: str, steps: int = 3) -> dict[str, Any]:
    """Losses, gradients and states of some float64 steps, on this rank's share of the global batches."""
    method, sizes = tiny_method(name, dtype=EXACT), view_sizes(name)
    for group in method.bound.optimizer.param_groups:
        # Adam divides by the gradient, and that of a bias before a batch norm is nothing but rounding: with an eps of
        # 1e-8 rounding of 1e-15 becomes steps of 3e-10 (W-MSE, one process with two threads against two with one).
        group.update({"eps": EPS} if "betas" in group else {})
    outs = [train_step(method, tiny_batch(sizes, step, EXACT)) for step in range(steps)]
    return over_ranks(method, outs)


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_are_finite_and_move_what_is_trainable(name: str) -> None:
    method, sizes = tiny_method(name), view_sizes(name)
    before = {key: p.detach().clone() for key, p in method.named_parameters()}
    for step in range(2):
        out = train_step(method, tiny_batch(sizes, step))
        assert math.isfinite(out["loss"])
    still = {key for key, p in method.named_parameters() if torch.equal(p, before[key])}
    frozen = {key for key, p in method.named_parameters() if not p.requires_grad}
    held = {name for group in frozen_names(method) for name in group}
    # A moving average moves although it is frozen; nothing else may.
    averages = tuple(f"{key}." for key, module in method.named_modules() if isinstance(module, EMA))
    assert frozen - still <= {key for key in frozen if key.startswith(averages)}
    assert still - frozen <= held, "trainable parameters that did not move"


def frozen_names(method: Any) -> list[set[str]]:
    """Names that the recipe keeps still in its first steps."""
    names = {id(p): key for key, p in method.named_parameters()}
    groups = method.bound.optimizer.param_groups
    return [{names[id(p)] for p in group["params"]} for group in groups if all(p.grad is None for p in group["params"])]


@pytest.mark.parametrize("name", quickly(METHODS))
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    method, sizes = tiny_method(name), view_sizes(name)
    method.begin_micro_batch(first=True)
    method.training_loss(tiny_batch(sizes))["loss"].backward()
    assert [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [key for key, p in method.named_parameters() if not p.requires_grad and p.grad is not None] == []


@pytest.mark.parametrize("name", quickly(METHODS))
def test_saved_and_loaded_it_goes_on_bit_for_bit(name: str) -> None:
    method, sizes = tiny_method(name), view_sizes(name)
    for step in range(2):
        train_step(method, tiny_batch(sizes, step))
    copy = tiny_method(name)
    copy.load_state_dict(method.state_dict())
    copy.bound.optimizer.load_state_dict(deepcopy(method.bound.optimizer.state_dict()))
    copy.progress = method.progress
    losses = [train_step(m, tiny_batch(sizes, 2))["loss"] for m in (method, copy)]
    assert losses[0] == losses[1]
    for key, value in method.state_dict().items():
        other = copy.state_dict()[key]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, key


@pytest.mark.parametrize("name", quickly(METHODS, ["barlow_twins", "byol", "moco_v2", "simclr", "swav"]))
def test_two_processes_equal_one(name: str, pool: GlooPool) -> None:
    one = run_steps(name)
    for two in pool.run(run_steps, name):
        torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-11, atol=1e-11)
        assert two["gradients"].keys() == one["gradients"].keys()
        for kind in ("gradients", "state"):
            for key, value in one[kind].items():
                other = two[kind][key]
                torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-11, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", quickly(METHODS))
def test_a_teacher_moves_by_exactly_its_share(name: str) -> None:
    method, sizes = tiny_method(name, dtype=EXACT), view_sizes(name)
    teachers = [module for module in method.modules() if isinstance(module, EMA)]
    seen: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], float, dict[str, torch.Tensor]]] = []
    for teacher in teachers:
        inner = teacher.update

        def spy(student: Any, momentum: float, inner: Any = inner, net: Any = teacher.net) -> None:
            before = {key: p.clone() for key, p in net.named_parameters()}
            inner(student, momentum)
            now = {key: p.clone() for key, p in student.named_parameters()}
            seen.append((before, now, momentum, {key: p.clone() for key, p in net.named_parameters()}))

        teacher.update = spy  # type: ignore[method-assign]
    train_step(method, tiny_batch(sizes, 0, EXACT))
    assert len(seen) == len(teachers)
    for before, student, momentum, after in seen:
        for key, value in before.items():
            share = (1 - momentum) * (student[key] - value)
            torch.testing.assert_close(after[key] - value, share, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", quickly(METHODS))
def test_every_scalar_of_the_signature_is_in_the_yaml(name: str) -> None:
    node = config.load([f"method={name}"]).method
    wanted = set(inspect.signature(locate(node._target_)).parameters) - set(INJECTED)
    assert wanted - set(node) == set()


# What a backbone is told beside its name: which network, or fewer blocks than fit into the memory of a laptop.
NAMED = {
    "timm": ["backbone.name=resnet34"],
    "torchvision": ["backbone.name=resnet18"],
    "vit_large": ["+backbone.depth=2"],
    "vit_huge": ["+backbone.depth=2"],
    "swin_small": ["+backbone.depths=[1,1,2,1]"],
    "swin_base": ["+backbone.depths=[1,1,2,1]"],
}

# Methods that some networks cannot serve: how the names of these begin, and what is said.
REFUSES = {
    "loco": ("vit", "has no stages; these have: resnet8"),
    "dinov2": ("vit_patches", "compares class tokens, and backbone '.*' has none; set backbone.class_token=true"),
    "ibot": ("vit_patches", "compares class tokens, and backbone '.*' has none; set backbone.class_token=true"),
}


def class_of(name: str) -> type[Method]:
    return locate(config.load([f"method={name}"]).method._target_)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS)
def test_it_runs_with_every_backbone(name: str, backbone: str) -> None:
    named = NAMED.get(backbone, [])
    beginning, words = REFUSES.get(name, ("none", ""))
    kind = class_of(name)
    if kind.needs_tokens and not backbone.startswith(("vit", "swin")):
        beginning, words = backbone, "needs a vision transformer: backbone '.*' has no tokens; these have: vit_mini"
    if kind.drops_tokens and backbone.startswith("swin"):
        beginning, words = backbone, "leaves patches out, and the windows of backbone '.*' need all of them"
    if backbone.startswith(beginning):
        with pytest.raises(ConfigError, match=words):
            tiny_method(name, [f"backbone={backbone}", *named, "data.image_size=32"], tiny=False)
        return
    method = tiny_method(name, [f"backbone={backbone}", *named, "data.image_size=32"], tiny=False)
    sizes = view_sizes(name, ["data.image_size=32"])
    out = train_step(method, tiny_batch(sizes))
    assert math.isfinite(out["loss"]) and out["gradients"]
