"""Views from CUDA graphs: when they are recorded, and (on a GPU) that they are the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_zoo.augmentations import captured
from ssl_zoo.augmentations.captured import CapturedViews
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key

OPS = [
    {"image/random_resized_crop": {"scale": [0.2, 1.0]}},
    {"image/flip": {"p": 0.5}},
    {"image/color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8}},
]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")


class Pipeline:
    """Notes the keys of its calls; the second one raises ``problem``."""

    def __init__(self, problem: str = "") -> None:
        self.keys: list[int] = []
        self.problem = problem

    def __call__(self, images: Any, draw: Draw, prepared: bool = False) -> tuple[list[Tensor], dict[str, Tensor]]:
        self.keys.append(int(draw.key))
        if self.problem and len(self.keys) == 2:
            raise RuntimeError(self.problem)
        return [draw.uniform("x")], {}


class Recording:
    """Runs what a graph would, and counts."""

    made = 0

    def __init__(self, make: Any, images: Any, slot: Tensor, before: Any = None) -> None:
        Recording.made += 1
        self.make, self.before = make, before

    def replay(self, images: Any, slot: Tensor) -> Any:
        return self.make(images, slot)


class OnGPU(torch.Tensor):
    """A CPU tensor that says it lies on a GPU."""

    @property
    def device(self) -> Any:  # type: ignore[override]
        return torch.device("cuda", 0)


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", seen.append)
    monkeypatch.setattr(captured, "Recording", Recording)
    Recording.made = 0
    return seen


def run(views: CapturedViews, epochs: list[int], rows: int = 4, side: int = 8) -> None:
    slot = torch.arange(rows).as_subclass(OnGPU)
    images = torch.zeros(rows, 3, side, side, dtype=torch.uint8)
    for epoch in epochs:
        views(images, stream_key(0, "train", epoch), slot)


@pytest.fixture
def plain_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draw, "uniform", lambda self, name: torch.zeros(1))


@pytest.mark.usefixtures("plain_draws")
def test_a_graph_is_recorded_from_the_third_batch_on_and_once_an_epoch(modes: list[Any]) -> None:
    pipeline = Pipeline()
    views = CapturedViews(pipeline)  # type: ignore[arg-type]
    run(views, [0, 0])
    assert (Recording.made, modes, views.recording) == (0, ["error", 0], False)
    run(views, [0, 0, 1, 1, 1])
    assert (Recording.made, views.recording) == (2, True)
    assert pipeline.keys == [int(stream_key(0, "train", epoch)) for epoch in [0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.usefixtures("plain_draws")
def test_a_pipeline_that_waits_for_the_device_is_never_recorded(modes: list[Any]) -> None:
    pipeline = Pipeline(problem="called a synchronizing CUDA operation")
    views = CapturedViews(pipeline)  # type: ignore[arg-type]
    run(views, [0] * 5)
    assert (Recording.made, len(pipeline.keys)) == (0, 6)  # the second batch twice
    assert modes == ["error", 0]


@pytest.mark.usefixtures("plain_draws", "modes")
def test_a_run_goes_on_without_the_graph_that_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(captured, "Recording", refused)
    pipeline = Pipeline()
    views = CapturedViews(pipeline)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="without a CUDA graph from here on: operation not permitted") as told:
        run(views, [0] * 5)
    assert (len(told), len(pipeline.keys), views.recording) == (1, 5, False)


@pytest.mark.usefixtures("plain_draws")
def test_other_errors_are_told(modes: list[Any]) -> None:
    views = CapturedViews(Pipeline(problem="a view is 7x7"))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="a view is 7x7"):
        run(views, [0, 0])
    assert modes == ["error", 0]


@pytest.mark.usefixtures("plain_draws", "modes")
def test_large_batches_are_not_recorded() -> None:
    side = int((captured.LARGEST / (4 * 3 * 4)) ** 0.5) + 1
    run(views := CapturedViews(Pipeline()), [0] * 4, side=side)  # type: ignore[arg-type]
    assert (Recording.made, views.recording) == (0, False)


def test_on_a_cpu_it_is_the_pipeline() -> None:
    pipeline = ViewPipeline([{"ops": OPS, "size": 16, "count": 2}], None)
    images, slot = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8), torch.arange(6)
    key = stream_key(0, "train", 0)
    (a, b), _ = CapturedViews(pipeline)(images, key, slot)
    (c, d), _ = pipeline(images, Draw(key, slot))
    assert torch.equal(a, c) and torch.equal(b, d)


@needs_gpu
@pytest.mark.parametrize("listed", [False, True])
def test_replays_are_the_same_bits(listed: bool) -> None:
    pipeline = ViewPipeline([{"ops": OPS, "size": 16, "count": 2}], {"mean": [0.5], "std": [0.2]}).cuda()
    views = CapturedViews(pipeline)
    for step in range(8):
        slot, key = torch.arange(6, device="cuda") + 6 * step, stream_key(0, "train", step // 4)
        images: Any = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, device="cuda")
        images = [images, images.flip(0)] if listed else images
        got, _ = views(images, key, slot)
        want, _ = pipeline(images, Draw(key, slot), prepared=listed)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert views.recording
