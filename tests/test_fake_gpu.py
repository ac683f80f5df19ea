"""Every method's step on a GPU that is not there: torch's fake tensors know where they lie, but hold no numbers.

An operation that mixes devices is an error, and so is one that needs a number or a count from the device, for which
the host would wait. Backward passes need a real device: gradients are made by hand.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from ssl_zoo import build, config
from ssl_zoo.augmentations import accelerated
from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.data.batch import Batch
from tests.helpers import CONF, METHODS, ROWS, tiny_batch, tiny_method, view_sizes

GPU = torch.device("cuda", 0)
# What they need is drawn or found anew for each batch, and how much it is shows only in the numbers.
WAITING = {
    "dinov2": DynamicOutputShapeException,  # blocks until enough patches are hidden
    "ibot": DynamicOutputShapeException,  # the same
    "ijepa": DataDependentOutputException,  # sizes of blocks; of numbers on the host, which no GPU is asked for
    "spcl": DataDependentOutputException,  # rounds for rows that a batch holds several times
    "w_mse": DataDependentOutputException,  # whether a covariance has an inverse
}
PIPELINES = sorted(path.stem for path in (CONF / "augmentation").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches nothing on fake tensors; tests/augmentations/test_kernels.py has its kernels."""
    monkeypatch.setattr(accelerated, "_kernels", lambda device: None)


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
    rng = BatchRNG(seed=0, epoch=0, micro=micro, slot=fake_like(batch.rng.slot))
    extra = {key: fake_like(value) for key, value in batch.extra.items()}
    label = None if batch.label is None else fake_like(batch.label)
    return Batch([fake_like(view) for view in batch.views], fake_like(batch.index), label, rng, extra)


def gradients(outputs: Any, inputs: Any, *_: Any, **__: Any) -> list[Tensor]:
    return [fake_like(x) for x in ([inputs] if isinstance(inputs, Tensor) else inputs)]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_mixes_no_devices_and_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batches = tiny_method(name), [tiny_batch(view_sizes(name), step) for step in range(2)]
    monkeypatch.setattr(torch.autograd, "grad", gradients)
    waits: AbstractContextManager[Any] = pytest.raises(WAITING[name]) if name in WAITING else nullcontext()
    with waits, FakeTensorMode():
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


@pytest.mark.parametrize("scale", ["small", "large"])
@pytest.mark.parametrize("name", PIPELINES)
def test_views_mix_no_devices_and_wait_for_nothing(name: str, scale: str) -> None:
    size = 32 if scale == "small" else 96
    cfg = config.load([f"augmentation={name}", f"scale={scale}", "data=synthetic", f"data.image_size={size}"])
    data = build.build_data(cfg)
    channels = data.info.channels
    with FakeTensorMode():
        to_fake_gpu(data.views)
        images = torch.empty(ROWS, channels, size + 8, size + 8, dtype=torch.uint8, device=GPU)
        draw = Draw(stream_key(0, "train", 0), torch.arange(ROWS, device=GPU))
        views, extra = data.views(images, draw)
        assert {x.device for x in [*views, *extra.values()]} == {GPU}
        assert [len(view) for view in views] == [ROWS] * len(data.views.views)
