"""What the authors' runs had around the method: tiny networks, recorded rates, views and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.data.image.source import image_info
from ssl_zoo.distributed import mean_over_ranks, own_rows
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Progress

Values = Mapping[str, np.ndarray]


class Identity(nn.Identity):
    """Backbone or head that passes its input on; ``width`` is its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width


@dataclass(frozen=True)
class Recorded:
    """Schedule of recorded rates, one for each step."""

    rates: tuple[float, ...]

    def __call__(self, progress: Progress) -> float:
        return self.rates[progress.step]

    def scaled(self, factor: float, batch: float = 1.0) -> Recorded:
        return Recorded(tuple(rate * (factor * batch) for rate in self.rates))

    def highest(self) -> float:
        return max(self.rates)


def recipe(
    optimizer: Callable[..., Any], rules: Any = (), lr_scale: str = "absolute", **values: Any
) -> OptimizerRecipe:
    return OptimizerRecipe(optimizer, values, rules, lr_scale)


def no_recipe() -> OptimizerRecipe:
    """For a method that takes no step."""
    return recipe(torch.optim.SGD, lr=0.0)


def linear_head(out_features: int) -> Callable[[int], MLP]:
    return partial(MLP, hidden=[], out_features=out_features, last_bias=False)


def data_info(rows: int) -> DataInfo:
    return image_info(samples=rows, classes=None, image_size=1, channels=1, batch_size=rows)


def batch_of(views: Sequence[Tensor], shared: Mapping[str, Any] | None = None) -> Batch:
    """This process's rows of the recorded global views, and draws that all processes share."""
    own = [own_rows(view) for view in views]
    return Batch(own, torch.arange(len(own[0])), None, RecordedRNG(shared=shared))


@torch.no_grad()
def fill(module: nn.Module, values: Mapping[str, Any]) -> None:
    """Set parameters and buffers by name, in the module's precision."""
    state = module.state_dict(keep_vars=True)
    for name, value in values.items():
        state[name].copy_(torch.as_tensor(value).to(state[name].dtype))


def equal_teacher(method: Any) -> None:
    """Start the teacher from the filled student."""
    method.teacher.net.load_state_dict(nn.Sequential(method.backbone, method.projector).state_dict())


def numpy_of(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors as arrays, so that they travel between processes by value."""
    return {name: torch.as_tensor(value).detach().clone().numpy() for name, value in values.items()}


def plain(arrays: Values, *prefixes: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with one of ``prefixes``, under their full names."""
    return {name: arrays[name] for name in arrays if name.startswith(prefixes)}


def steps_of(names: Any, pattern: str) -> list[int]:
    """The steps t = 1, 2, ... for which ``pattern.format(t)`` starts a name."""
    steps = []
    while any(name.startswith(pattern.format(len(steps) + 1)) for name in names):
        steps.append(len(steps) + 1)
    assert steps, f"no name starts with {pattern.format(1)!r}"
    return steps


def double_or_single(array: np.ndarray) -> torch.dtype:
    return torch.float64 if array.dtype == np.float64 else torch.float32


def differentiate(method: nn.Module, views: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Loss of this rank, and gradients of its views and of the parameters: its own, and after DDP's mean."""
    batch = batch_of(views)
    batch.views = [view.clone().requires_grad_() for view in batch.views]
    loss = method.training_loss(batch)["loss"]
    loss.backward()
    out = {"loss": loss, **{f"view{i}": view.grad for i, view in enumerate(batch.views)}}
    for name, p in method.named_parameters():
        out |= {f"local/{name}": p.grad, f"mean/{name}": mean_over_ranks(p.grad)}
    return numpy_of(out)
