"""One pass of a method over a batch of the recorded size without numbers: who sees what, how many rows at a time.

Everything lies on the meta device, so that 4,096 images cost nothing. What a loss makes of the passes may need numbers
and fail; that is kept as :attr:`Trial.error`, and matters only if something that is asked for was not reached.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.data.batch import Batch
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.batch_norm import BatchNorm
from ssl_zoo.modules.mixing import Mixer
from ssl_zoo.optim.schedules import Progress
from ssl_zoo.passes import layout
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.registry import unequal, unmapped

SOURCE = 320  # pixels of an image of which views are made, to learn their shapes


@dataclass(frozen=True)
class Pass:
    """What a batch norm was given, and what of it shares statistics with the first row."""

    name: str
    rows: int
    shared: tuple[int, ...]
    tiles: int  # rows of an image in a view
    layer: BatchNorm


@dataclass(frozen=True)
class Call:
    """A module of the method was called."""

    name: str
    shapes: tuple[torch.Size, ...]


@dataclass
class Trial:
    batch: int
    views: list[torch.Size]
    passes: list[Pass] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    normalised: set[str] = field(default_factory=set)  # modules whose outputs go on at length 1
    joined: set[int] = field(default_factory=set)  # rows of what was put together of parts
    shuffled: bool = False
    gradients: int = 0  # taken of views, by attacks
    mixed: int = 0  # views that were mixed with others
    error: Exception | None = None
    output: torch.Size | None = None  # of an evaluation

    def called(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def patches(self, subject: str, grid: dict[str, int]) -> Iterator[str]:
        """Whether the backbone sees the patches of a grid."""
        side, seen = self.views[0][-1], {(call.shapes[0][0], call.shapes[0][-1]) for call in self.called("backbone")}
        for key in grid.keys() - {"size", "stride"}:
            yield unmapped(f"{subject}.{key}", grid[key])
        count = ((side - grid["size"]) // grid["stride"] + 1) ** 2
        if seen != {(self.batch * count, grid["size"])}:
            yield unequal(subject, sorted(seen), f"{count} patches of {grid['size']} pixels")


_trials: WeakKeyDictionary[Composed, Trial] = WeakKeyDictionary()
_evaluations: WeakKeyDictionary[Composed, Trial] = WeakKeyDictionary()


def trial(composed: Composed) -> Trial:
    """A step of the training."""
    if composed not in _trials:
        (found, batch), method = _prepared(composed), _on_meta(composed.method)
        before = method.progress
        with _watched(method, found):
            method.progress = Progress(10**6, 10**7, 10**3)  # behind every warm-up
            method.train().training_loss(batch)
        method.progress = before
        _trials[composed] = found
    return _trials[composed]


def evaluation(composed: Composed) -> Trial:
    """Features of evaluation views."""
    if composed not in _evaluations:
        size = composed.plain["data"]["image_size"]
        sides = [size, size] if isinstance(size, int) else list(size)
        found = Trial(composed.info.batch_size, [torch.Size([composed.info.batch_size, 3, *sides])])
        method = _on_meta(composed.method)
        with _watched(method, found), torch.no_grad():
            found.output = method.eval().embed(torch.empty(found.views[0], device="meta")).shape
        method.train()
        _evaluations[composed] = found
    return _evaluations[composed]


def _on_meta(method: Method) -> Method:
    """The method itself, or a copy of one whose constructor needs real numbers."""
    if all(p.is_meta for p in method.parameters()):
        return method
    return copy.deepcopy(method, {id(method._bound): None}).to("meta")


def _prepared(composed: Composed) -> tuple[Trial, Batch]:
    rows, config = composed.info.batch_size, composed.plain["augmentation"]
    views, extra = ViewPipeline(config["views"], config["normalize"])(
        torch.zeros(2, 3, SOURCE, SOURCE), Draw(stream_key(0, "recipes", 0), torch.arange(2))
    )
    shapes = [torch.Size([rows, *view.shape[1:]]) for view in views]
    meta = {name: torch.empty(rows, *x.shape[1:], dtype=x.dtype, device="meta") for name, x in extra.items()}
    number = torch.empty(rows, dtype=torch.int64, device="meta")
    batch = Batch([torch.empty(s, device="meta") for s in shapes], number, number, _rng(rows), meta)
    return Trial(rows, shapes), batch


def _rng(rows: int) -> BatchRNG:
    """Draws on the meta device, on the host where a method asks for those."""
    rng = BatchRNG(0, 0, 0, torch.arange(rows))
    rng.slot = rng.slot.to("meta")
    return rng


@contextlib.contextmanager
def _watched(method: nn.Module, found: Trial) -> Iterator[None]:
    """Keep what is called, and what comes after an error of the loss out of the way."""
    names = {module: name for name, module in method.named_modules()}
    follow = _Follow(found)
    hooks = [module.register_forward_hook(_hook(name, found, follow)) for module, name in names.items() if name]
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [hook.remove() for hook in hooks])
        stack.enter_context(mock.patch.object(BatchNorm, "forward", _spy(names, found)))
        stack.enter_context(mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()))
        for patch in (*_shuffles(method, found), _mixes(found)):
            stack.enter_context(patch)
        stack.enter_context(follow)
        try:
            yield
        except Exception as error:
            found.error = error


def _hook(name: str, found: Trial, follow: _Follow) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        shapes = tuple(x.shape for x in inputs if isinstance(x, Tensor))
        found.calls.append(Call(name, shapes))
        if isinstance(output, Tensor):
            follow.tag(output, name)

    return hook


def _spy(names: dict[nn.Module, str], found: Trial) -> Any:
    true_forward = BatchNorm.forward
    known: dict[Any, tuple[int, ...]] = {}

    def forward(layer: BatchNorm, x: Tensor) -> Tensor:
        key = (layer.training, layer.group, layer.interleaved, layer.every, len(x), layout())
        if key not in known:
            with torch._C.DisableTorchFunction():
                known[key] = _sharing(layer, len(x), true_forward) if layer.training else (0,)
        found.passes.append(Pass(names.get(layer, "?"), len(x), known[key], layout().rows, layer))
        return x.clone()

    return forward


def _sharing(layer: BatchNorm, rows: int, true_forward: Any) -> tuple[int, ...]:
    """Rows whose output changes with the first row: the layer itself is asked, on one channel of real numbers."""
    one: Any = type(layer)(1, affine=False, track_running_stats=layer.track_running_stats, device="cpu")
    own = {key: value for key, value in vars(layer).items() if not key.startswith("_")}
    vars(one).update({key: value for key, value in own.items() if key not in ("num_features", "affine")})
    x = torch.linspace(-1, 1, rows, dtype=torch.float64).view(-1, 1)
    one.double()
    before = true_forward(one, x.clone())
    x[0] += 10.0
    changed = (true_forward(one, x) - before).abs().flatten() > 1e-9
    return tuple(changed.nonzero().flatten().tolist())


def _shuffles(method: nn.Module, found: Trial) -> Iterator[Any]:
    """Notice when a method shuffles the rows of a pass (:func:`ssl_zoo.distributed.shuffled`)."""
    for kind in type(method).__mro__:
        module: Any = sys.modules[kind.__module__]
        true = vars(module).get("shuffled")
        if callable(true):

            def noticed(*args: Any, _true: Any = true, **kwargs: Any) -> Any:
                found.shuffled = True
                return _true(*args, **kwargs)

            yield mock.patch.object(module, "shuffled", noticed)


def _mixes(found: Trial) -> Any:
    """Count mixtures of views."""
    true = Mixer.mix

    def noticed(mixer: Mixer, *args: Any) -> Any:
        found.mixed += 1
        return true(mixer, *args)

    return mock.patch.object(Mixer, "mix", noticed)


KEEP_LENGTH = {  # what leaves rows as they are, and so the question open whether they get length 1
    torch.cat, torch.stack, torch.chunk, torch.split, torch.unbind, torch.flatten, torch.unflatten, torch.Tensor.chunk,
    torch.Tensor.split, torch.Tensor.unbind, torch.Tensor.flatten, torch.Tensor.unflatten, torch.Tensor.detach,
    torch.Tensor.float, torch.Tensor.to, torch.Tensor.view, torch.Tensor.reshape, torch.Tensor.transpose,
    torch.Tensor.__getitem__, torch.Tensor.contiguous,
}  # fmt: skip


class _Follow(TorchFunctionMode):
    """Follows outputs of modules until something other than their arrangement is done to them."""

    def __init__(self, found: Trial) -> None:
        super().__init__()
        self.found = found
        self.tags: dict[int, tuple[Tensor, set[str]]] = {}  # the tensor is kept, so that its id is not given again

    def tag(self, x: Tensor, *names: str) -> None:
        self.tags.setdefault(id(x), (x, set()))[1].update(names)

    def _of(self, value: Any) -> set[str]:
        if isinstance(value, Tensor):
            return self.tags.get(id(value), (None, set()))[1]
        return set().union(*map(self._of, value)) if isinstance(value, (list, tuple)) else set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.gradients += func is torch.autograd.grad
        out = func(*args, **(kwargs or {}))
        if func is torch.cat and out.ndim:
            self.found.joined.add(len(out))
        names = self._of(args)
        if names and func is nn.functional.normalize:
            self.found.normalised |= names
        elif names and func in KEEP_LENGTH:
            for x in out if isinstance(out, (list, tuple)) else [out]:
                self.tag(x, *names) if isinstance(x, Tensor) else None
        return out
