"""Views of small batches as one CUDA graph: the launches of a pipeline are recorded once an epoch, then replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations.pipeline import ViewPipeline
from ssl_zoo.augmentations.rng import Draw

Images = Tensor | list[Tensor]
Made = tuple[list[Tensor], dict[str, Tensor]]
# Above this the kernels take longer than their launches, and a graph would only hold memory of its own for every
# intermediate result: 256 images of 96 pixels as float32 are 27 MiB, of 224 pixels 147 MiB.
LARGEST = 32 << 20  # bytes of the batch as float32


class Recording:
    """The launches of ``make`` on copies of its inputs, as a CUDA graph.

    Args:
        make: Called once here; it may ask the device for nothing.
        images, slot: Of the shapes and types that :meth:`replay` is given later.
        before: A recording that is not replayed any more, whose memory this one takes.
    """

    def __init__(
        self, make: Callable[[Images, Tensor], Made], images: Images, slot: Tensor, before: Recording | None = None
    ):
        self.images, self.slot = _each(images, Tensor.clone), slot.clone()
        self.graph = torch.cuda.CUDAGraph()
        self.pool: Any = before.pool if before else torch.cuda.graph_pool_handle()
        self.side: torch.cuda.Stream = before.side if before else torch.cuda.Stream(slot.device)  # its memory's
        current = torch.cuda.current_stream(slot.device)
        self.side.wait_stream(current)
        # Not ``torch.cuda.graph``, which waits for the device and hands all unused memory back. Other threads (pinning,
        # NCCL's watchdog) go on calling CUDA meanwhile.
        with torch.cuda.stream(self.side):
            self.graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                self.views, self.extra = make(self.images, self.slot)
            finally:
                self.graph.capture_end()
        current.wait_stream(self.side)

    def replay(self, images: Images, slot: Tensor) -> Made:
        """What ``make`` gives for these, in tensors of their own: the next replay writes into the graph's."""
        for kept, new in zip(_list(self.images), _list(images), strict=True):
            kept.copy_(new)
        self.slot.copy_(slot)
        self.graph.replay()
        return [view.clone() for view in self.views], {name: x.clone() for name, x in self.extra.items()}


class CapturedViews:
    """A pipeline whose views of small batches on a GPU come from a graph; elsewhere it is the pipeline itself.

    The same kernels run in the same order, so that the views are the same bits. The first batch of a shape runs as
    usual, and moves constants; the second too, and shows whether an operation waits for the device, which no graph
    can hold; from the third on its launches are replayed. A graph holds the keys of its random numbers, and so is
    recorded anew for every epoch.

    Args:
        pipeline: On the device of its batches.

    Batches that are no tensors, whose shapes change all the time, run as usual.
    """

    def __init__(self, pipeline: ViewPipeline):
        self.pipeline = pipeline
        self._seen: dict[Any, int] = {}  # how often a shape ran as usual
        self._plain = False  # for good: this pipeline cannot be recorded
        self._recording: Recording | None = None
        self._name: Any = None  # shape and key of the recording

    @property
    def recording(self) -> bool:
        """Whether the last epoch's views came from a graph."""
        return self._recording is not None

    def __call__(self, images: Images, key: Tensor, slot: Tensor) -> Made:
        """Views and reports as :meth:`ViewPipeline.forward`.

        Args:
            images: As there.
            key: Of the pass over the data, :func:`ssl_zoo.augmentations.rng.stream_key`.
            slot: ``[B]`` on the device of the images.
        """
        replayed = slot.device.type == "cuda" and not self._plain and all(isinstance(x, Tensor) for x in _list(images))
        if not replayed or _size(images) > LARGEST:
            return self._make(images, key, slot)
        name = (*((x.shape, x.dtype) for x in _list(images)), slot.device)
        runs = self._seen.get(name, 0)
        if runs < 2:
            self._seen[name] = runs + 1
            return self._make(images, key, slot) if runs == 0 else self._try(images, key, slot)
        recording = self._recorded((*name, int(key)), images, key, slot)
        return recording.replay(images, slot) if recording else self._make(images, key, slot)

    def _make(self, images: Images, key: Tensor, slot: Tensor) -> Made:
        return self.pipeline(images, Draw(key, slot), prepared=isinstance(images, list))

    def _try(self, images: Images, key: Tensor, slot: Tensor) -> Made:
        """As usual, and see whether the host waits for the device."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return self._make(images, key, slot)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            self._plain = True
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return self._make(images, key, slot)

    def _recorded(self, name: Any, images: Images, key: Tensor, slot: Tensor) -> Recording | None:
        if self._recording is None or self._name != name:
            try:
                # The one before is let go only now: torch ends a pool of memory that no graph holds.
                self._recording = Recording(lambda x, at: self._make(x, key, at), images, slot, self._recording)
            except RuntimeError as error:  # a run of days shall not end for what only saves time
                warnings.warn(f"views are made without a CUDA graph from here on: {error}", stacklevel=2)
                self._plain, self._recording = True, None
            self._name = name
        return self._recording


def _list(images: Images) -> list[Tensor]:
    return images if isinstance(images, list) else [images]


def _each(images: Images, change: Callable[[Tensor], Tensor]) -> Images:
    return [change(x) for x in images] if isinstance(images, list) else change(images)


def _size(images: Images) -> int:
    return sum(x.numel() for x in _list(images)) * torch.float32.itemsize
