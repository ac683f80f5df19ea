"""Every method's step on a GPU that is not there: torch's fake tensors know where they lie, but hold no numbers.

The host's own tensors are real. An operation that mixes devices is an error, and so is one for which the host would
wait: one that needs a number or a count from the GPU, a copy from there, and, after a first step in which constants are
moved, a copy to there that the GPU does not make by itself. Backward passes need a real device: gradients are made by
hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._pytree import tree_leaves

from ssl_zoo import build, config
from ssl_zoo.augmentations import accelerated
from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.data.batch import Batch
from ssl_zoo.device import to_device
from tests.helpers import CONF, METHODS, ROWS, tiny_batch, tiny_method, view_sizes

GPU = torch.device("cuda", 0)
PIPELINES = sorted(path.stem for path in (CONF / "augmentation").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches nothing on fake tensors; tests/augmentations/test_kernels.py has its kernels."""
    monkeypatch.setattr(accelerated, "_kernels", lambda device: None)


class HostWaits(AssertionError):
    """An operation for which the host would wait for the GPU."""


class FakeGPU(FakeTensorMode):
    """Fake tensors on the GPU beside real ones on the host.

    Attributes:
        warm: Constants are where they are needed: from now on only page-locked tensors go to the GPU, without waiting.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.warm = False
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        host = [x for x in tensors if not isinstance(x, FakeTensor)]
        if func is torch.ops.aten._pin_memory.default:
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if len(host) == len(tensors) and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            return func(*args, **kwargs)
        if self.warm and not all(self._goes_alone(func, x, kwargs) for x in host):
            raise HostWaits(f"{func} copies {[list(x.shape) for x in host]} from the host to the GPU")
        found = super().__torch_dispatch__(func, types, args, kwargs)
        results = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        if any(x.device == GPU for x in tensors) and any(x.device.type == "cpu" for x in results):
            raise HostWaits(f"{func} copies from the GPU to the host")
        return found

    def _goes_alone(self, func: Any, x: Tensor, kwargs: Mapping[str, Any]) -> bool:
        """Whether the GPU takes a tensor of the host by itself: as an argument of its kernel, or as a copy."""
        if func is torch.ops.aten._to_copy.default:
            return bool(kwargs.get("non_blocking")) and any(x is pinned for pinned in self._pinned)
        return x.ndim == 0 and func is not torch.ops.aten.copy_.default


def fake_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=GPU)


def to_fake_gpu(module: nn.Module) -> None:
    """``module.to("cuda")``: that call itself refuses fake tensors."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                made.setdefault(id(p), nn.Parameter(fake_like(p), p.requires_grad))
                part._parameters[name] = made[id(p)]  # type: ignore[assignment]
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = fake_like(b)


def batch_on_gpu(batch: Batch, micro: int) -> Batch:
    rng = BatchRNG(seed=0, epoch=0, micro=micro, slot=batch.rng.slot, device=GPU)
    extra = {key: fake_like(value) for key, value in batch.extra.items()}
    label = None if batch.label is None else fake_like(batch.label)
    return Batch([fake_like(view) for view in batch.views], fake_like(batch.index), label, rng, extra)


def gradients(outputs: Any, inputs: Any, *_: Any, **__: Any) -> list[Tensor]:
    return [fake_like(x) for x in ([inputs] if isinstance(inputs, Tensor) else inputs)]


WAITS: dict[str, tuple[Callable[[Tensor], Any], type[Exception]]] = {
    "number": (lambda x: float(x.sum()), DataDependentOutputException),
    "count": (lambda x: x[x > 0], DynamicOutputShapeException),
    "from the GPU": (lambda x: x.cpu(), HostWaits),
    "to the GPU": (lambda x: torch.ones(3).to(GPU, non_blocking=True), HostWaits),
    "page-locked, but waiting": (lambda x: torch.ones(3).pin_memory().to(GPU), HostWaits),
    "into a tensor there": (lambda x: x.copy_(torch.ones(3)), HostWaits),
    "index": (lambda x: x[torch.tensor([0, 2])], HostWaits),
    "list": (lambda x: x.new_tensor([1.0, 2.0]), HostWaits),
}


@pytest.mark.parametrize(("wait", "error"), WAITS.values(), ids=WAITS.keys())
def test_what_the_host_would_wait_for_is_an_error(wait: Callable[[Tensor], Any], error: type[Exception]) -> None:
    with FakeGPU() as gpu:
        x = torch.empty(3, device=GPU)
        gpu.warm = True
        with pytest.raises(error):
            wait(x)


def test_numbers_on_the_host_and_copies_that_the_gpu_makes_are_none() -> None:
    with FakeGPU() as gpu:
        gpu.warm = True
        rows = torch.arange(12).view(2, 6)[:, ::2]
        assert to_device(rows, GPU).device == GPU and rows.nonzero().tolist()[0] == [0, 1]
    assert to_device(rows, "cpu") is rows


@pytest.mark.parametrize("name", METHODS)
def test_a_step_mixes_no_devices_and_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batches = tiny_method(name), [tiny_batch(view_sizes(name), step) for step in range(2)]
    monkeypatch.setattr(torch.autograd, "grad", gradients)
    with FakeGPU() as gpu:
        to_fake_gpu(method)
        method.bind(ROWS, fused=False)  # no fake tensor takes the fused step
        for micro, real in enumerate(batches):
            batch = batch_on_gpu(real, micro)
            method.begin_micro_batch(first=True)
            loss = method.training_loss(batch)["loss"]
            assert (loss.device, loss.shape, loss.requires_grad) == (GPU, (), True)
            for p in method.parameters():
                p.grad = fake_like(p) if p.requires_grad else None
            method.on_after_backward()
            method.configure_gradient_clipping(method.bound.optimizer)
            method.bound.optimizer.step()
            method.progress = replace(method.progress, step=method.progress.step + 1)
            gpu.warm = True


@pytest.mark.parametrize("scale", ["small", "large"])
@pytest.mark.parametrize("name", PIPELINES)
def test_views_mix_no_devices_and_wait_for_nothing(name: str, scale: str) -> None:
    size = 32 if scale == "small" else 96
    cfg = config.load([f"augmentation={name}", f"scale={scale}", "data=synthetic", f"data.image_size={size}"])
    data = build.build_data(cfg)
    channels = data.info.channels
    with FakeGPU():
        to_fake_gpu(data.views)
        images = torch.empty(ROWS, channels, size + 8, size + 8, dtype=torch.uint8, device=GPU)
        draw = Draw(stream_key(0, "train", 0), torch.arange(ROWS, device=GPU))
        views, extra = data.views(images, draw)
        assert {x.device for x in [*views, *extra.values()]} == {GPU}
        assert [len(view) for view in views] == [ROWS] * len(data.views.views)
