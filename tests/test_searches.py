"""What a step chooses under autocast (neighbours, hardest keys, places, experts) is what float32 chooses.

The networks run under autocast once, and what their layers gave is put in their places in a step without it: both steps
choose among the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssl_zoo.knn import knn_predict
from ssl_zoo.losses.koleo import nearest_rows
from ssl_zoo.losses.search import distances, most_similar
from ssl_zoo.modules.kmeans import kmeans, spherical_kmeans
from ssl_zoo.modules.label_queue import LabelQueue
from ssl_zoo.modules.pca import pca_whiten
from ssl_zoo.modules.power_iteration import power_iteration_clusters
from ssl_zoo.modules.queue import Queue
from ssl_zoo.modules.rerank import jaccard_distance
from tests.helpers import CLASSES, METHODS, quickly, tiny_batch, tiny_method, view_sizes

KEYS = 2**16  # of a queue: so many that several have a similarity that is the same in 8 bits
WORDS = ("argmax", "argmin", "topk", "sort", "max", "min")  # operations that choose, by the beginnings of their names


class Choices(TorchDispatchMode):
    """Keeps which rows, columns and orders were chosen by the size of numbers, and what the numbers were."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._schema.name.removeprefix("aten::").startswith(WORDS) and args[0].is_floating_point():
            self.made += [x.clone() for x in tree_leaves(out) if isinstance(x, Tensor) and x.dtype == torch.int64]
        return out


class Given(torch.autograd.Function):
    """A value in the place of another, whose gradient it takes."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, value: Tensor) -> Tensor:
        return value.to(out.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


@contextmanager
def hooked(method: nn.Module, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Show ``hook`` the output of every layer of torch's, timm's, and batch norm, in the order of calls."""
    layers = [part for part in method.modules() if isinstance(part, _BatchNorm) or _is_layer(part)]
    handles = [layer.register_forward_hook(lambda _, __, out: hook(out)) for layer in layers]
    yield
    for handle in handles:
        handle.remove()


def _is_layer(module: nn.Module) -> bool:
    return not list(module.children()) and type(module).__module__.startswith(("torch.", "timm."))


def choices(name: str, given: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
    """What a step under autocast chose, and what its layers gave; or a step without it, whose layers give ``given``."""
    method = tiny_method(name)
    for queue in (part for part in method.modules() if isinstance(part, Queue)):
        generator = torch.Generator().manual_seed(1)
        queue.size, queue.pushed = KEYS, KEYS
        queue.keys = F.normalize(torch.randn(KEYS, queue.keys.shape[1], generator=generator), dim=1)
        if isinstance(queue, LabelQueue):
            queue.labels = torch.arange(KEYS) % CLASSES
    seen: list[Tensor] = []
    replay = iter(given or [])

    def keep(out: Tensor) -> None:
        seen.append(out.detach().clone())

    def put(out: Tensor) -> Any:
        return Given.apply(out, next(replay))

    method.begin_micro_batch(first=True)
    half = torch.autocast("cpu", torch.bfloat16, enabled=given is None)
    with hooked(method, keep if given is None else put), half, Choices() as found:
        method.training_loss(tiny_batch(view_sizes(name)))
    return found.made, seen


@pytest.mark.parametrize("name", quickly(METHODS))
def test_a_step_under_autocast_chooses_what_float32_chooses(name: str) -> None:
    chosen, features = choices(name, None)
    exact, _ = choices(name, features)
    assert [(i, a.shape) for i, (a, b) in enumerate(zip(chosen, exact, strict=True)) if not torch.equal(a, b)] == []


def rows(count: int, dim: int = 32, seed: int = 0) -> Tensor:
    """Unit rows that bfloat16 holds exactly nowhere, and that are much alike."""
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + 1
    return F.normalize(x, dim=1)


SEARCHES: dict[str, Callable[[Tensor], Any]] = {
    "most_similar": lambda x: most_similar(x[:50], x[50:]),
    "distances": lambda x: distances(x[:50], x[50:]).argmin(1),
    "nearest_rows": nearest_rows,
    "kmeans": lambda x: kmeans(x, 20).assignment,
    "spherical_kmeans": lambda x: spherical_kmeans(x, x[:20])[1],
    "pca_whiten": lambda x: pca_whiten(x, 4),
    "jaccard_distance": lambda x: torch.from_numpy(jaccard_distance(x, 10, 3).toarray()),
    "power_iteration": lambda x: torch.from_numpy(power_iteration_clusters(x)),
    "knn": lambda x: knn_predict(x[:50], x[50:], torch.arange(len(x) - 50) % 50, 50, k=1),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_a_search_is_the_same_under_autocast(search: Callable[[Tensor], Any]) -> None:
    x = rows(400)
    with torch.autocast("cpu", torch.bfloat16):
        found = search(x)
    assert torch.equal(found, search(x))


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_a_search_among_half_rows_is_that_of_the_same_rows_in_float32(search: Callable[[Tensor], Any]) -> None:
    x = rows(400).bfloat16()
    assert torch.equal(search(x), search(x.float()))
