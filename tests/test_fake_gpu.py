"""Every method's step on a GPU that is not there: torch's fake tensors know where they lie, but hold no numbers.

The host's own tensors are real. An operation that mixes devices is an error, and so is one for which the host would
wait: one that needs a number or a count from the GPU, a copy from there, and, after a first step in which constants are
moved, a copy to there that the GPU does not make by itself. Backward passes need a real device: gradients are made by
hand.

So are the other ranks of several: a collective of the GPU runs behind its kernels and fills nothing in; for one of the
hosts, which is answered when the slowest host has come to the same place, this host would wait, unless it asked at an
earlier step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.utils import instantiate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._pytree import tree_leaves

from ssl_zoo import build, config, distributed
from ssl_zoo.augmentations import accelerated
from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.callbacks.checkpoint import RunCheckpoint
from ssl_zoo.data.batch import Batch
from ssl_zoo.device import to_device
from tests.callbacks.tiny import fake_trainer
from tests.helpers import CLASSES, METHODS, ROWS, of_images, quickly, tiny_batch, tiny_method, view_sizes

GPU = torch.device("cuda", 0)
PIPELINES = of_images("augmentation")


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


class TwoRanks:
    """``torch.distributed`` as :mod:`ssl_zoo.distributed` uses it, for rank 0 of two.

    Attributes:
        step: At which something is asked or answered.
    """

    ReduceOp = dist.ReduceOp

    class group:
        class WORLD: ...

    def __init__(self) -> None:
        self.step = 0

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def get_world_size(self) -> int:
        return 2

    def get_rank(self) -> int:
        return 0

    def get_backend_config(self) -> str:
        return "cpu:gloo,cuda:nccl"

    get_backend = get_backend_config

    def all_reduce(self, x: Tensor, op: Any = None, group: Any = None, async_op: bool = False) -> Answer | None:
        if async_op:
            return Answer(self, self.step)
        return self._collective(x)

    def all_gather(self, parts: list[Tensor], x: Tensor) -> None:
        self._collective(x)

    def broadcast(self, x: Tensor, source: int) -> None:
        self._collective(x)

    def barrier(self) -> None:
        self._collective(torch.empty(0))

    def all_gather_object(self, items: list[Any], item: Any) -> None:
        self.barrier()

    def broadcast_object_list(self, items: list[Any]) -> None:
        self.barrier()

    def _collective(self, x: Tensor) -> None:
        if x.device != GPU:
            raise HostWaits("a collective of the hosts waits for the slowest of them")


class Answer:
    """What the hosts have asked one another in some step."""

    def __init__(self, ranks: TwoRanks, asked_at: int) -> None:
        self.ranks = ranks
        self.asked_at = asked_at

    def wait(self) -> None:
        if self.asked_at == self.ranks.step:
            raise HostWaits("the hosts' answer is waited for in the step that asked")


@pytest.fixture(params=[1, 2])
def ranks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TwoRanks:
    """How many processes there are, and of two what they tell each other."""
    told = TwoRanks()
    if request.param == 2:
        monkeypatch.setattr(distributed, "dist", told)
    return told


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


ASKS: dict[str, Callable[[], Any]] = {
    "a number": lambda: distributed.highest(1),
    "a number that is soon there": lambda: distributed.highest_soon(1)(),
    "a flag": lambda: distributed.any_rank(True),
    "a tensor": lambda: distributed.gather(torch.ones(3)),
    "a sum": lambda: distributed.all_reduce_sum_(torch.ones(3)),
    "objects": lambda: distributed.gather_lists([1]),
    "an object": lambda: distributed.broadcast_object(1),
    "whether all are here": distributed.barrier,
}


@pytest.mark.parametrize("ranks", [2], indirect=True)
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_what_the_host_would_ask_other_hosts_is_an_error(ask: Callable[[], Any], ranks: TwoRanks) -> None:
    with FakeGPU(), pytest.raises(HostWaits):
        ask()


@pytest.mark.parametrize("ranks", [2], indirect=True)
def test_what_was_asked_a_step_earlier_and_what_gpus_tell_one_another_is_none(ranks: TwoRanks) -> None:
    with FakeGPU():
        answer = distributed.highest_soon(1)
        ranks.step += 1
        assert answer() == 1
        assert distributed.gather(torch.empty(3, 2, device=GPU)).shape == (6, 2)


def observers() -> list[pl.Callback]:
    """The default ones, and checkpoints by all that can ask for them, none of which does so in the first steps."""
    nodes = config.load(["data=synthetic"]).callbacks.values()
    checkpoints = RunCheckpoint("run", {}, every=100, minutes=60, max_time=3600)
    return [*(instantiate(node, _convert_="all") for node in nodes), checkpoints]


@pytest.mark.parametrize("features", [True, False])
def test_no_callback_waits_between_its_readings(
    features: bool, ranks: TwoRanks, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, real = tiny_method("simclr"), tiny_batch(view_sizes("simclr"))
    monkeypatch.setattr(torch.autograd, "grad", gradients)
    monkeypatch.setattr(nn.Module, "to", lambda module, *_: to_fake_gpu(module) or module)
    monkeypatch.setattr(torch.random, "fork_rng", lambda **_: nullcontext())  # wants a driver
    width = method.backbone.out_features
    data = SimpleNamespace(info=SimpleNamespace(classes=CLASSES))
    trainer = fake_trainer(datamodule=data, is_last_batch=False, num_training_batches=100)
    callbacks = observers()
    with FakeGPU() as gpu:
        to_fake_gpu(method)
        monkeypatch.setattr(type(method), "device", GPU)
        for step in range(2, 6):  # of step 1 the monitors keep how embeddings began
            batch = batch_on_gpu(real, step)
            outputs = {"loss": torch.empty((), device=GPU)}
            outputs |= {"features": torch.empty(len(batch.index), width, device=GPU)} if features else {}
            for callback in callbacks:
                callback.on_train_batch_start(trainer, method, batch, step)
            trainer.global_step = ranks.step = step
            for callback in callbacks:
                callback.on_train_batch_end(trainer, method, outputs, batch, step)
            gpu.warm = True


@pytest.mark.parametrize("name", quickly(METHODS, ["deepcluster_v2", "dino", "ibot", "moco_v2", "simclr", "swav"]))
def test_a_step_mixes_no_devices_and_waits_for_nothing(
    name: str, ranks: TwoRanks, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            gpu.warm, ranks.step = True, micro + 1


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
