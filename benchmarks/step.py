"""(d) What the framework adds to a training step, and the update of a teacher."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import nn

from ssl_zoo import config, worker
from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.timing import threads
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.modules.ema import EMA

DIFFERENT = 4  # batches that are made beforehand and used in turn
SKIP = 3  # first steps, in which everything is allocated
MOMENTUM = 0.99


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the screens and warnings of a run."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def by_hand(method: Any, batch_size: int, steps: int) -> Callable[[Batch], None]:
    """SimCLR's step as one would write it without any framework, on the same network and optimizer."""
    optimizer = method.bind(batch_size).optimizer
    peak, taken = [group["lr"] for group in optimizer.param_groups], itertools.count()

    def step(batch: Batch) -> None:
        factor = 0.5 * (1 + math.cos(math.pi * next(taken) / steps))
        for group, lr in zip(optimizer.param_groups, peak, strict=True):
            group["lr"] = lr * factor
        a, b = F.normalize(method.projector(method.backbone(torch.cat(batch.views))), dim=1).chunk(2)
        loss = 2 * nt_xent(a, b, a, b, 0, method.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


class Interleaved:
    """A loader of ready batches that gives each to the hand-written loop first, then to the trainer.

    The time from handing out a batch to the next request is all that the trainer does for a step, whatever that is.
    """

    def __init__(self, batches: list[Batch], steps: int, other: Callable[[Batch], None]) -> None:
        self.batches, self.steps, self.other = batches, steps, other
        self.ours: list[float] = []
        self.peer: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for batch in itertools.islice(itertools.cycle(self.batches), self.steps):
            began = time.perf_counter()
            self.other(batch)
            handed = time.perf_counter()
            yield batch
            self.ours.append(time.perf_counter() - handed)
            self.peer.append(handed - began)


class Ready(ImageData):
    """Trains on what it is given instead of its own views."""

    given: Interleaved

    def train_dataloader(self) -> Any:
        return self.given

    def ready(self, count: int) -> list[Batch]:
        """Batches with their views made."""
        raws = itertools.islice(iter(super().train_dataloader()), count)
        return [self.on_after_batch_transfer(raw, 0) for raw in raws]


NARROW = "backbone.width=16"  # a small network of images


def configured(folder: str, *overrides: str) -> DictConfig:
    """A run of SimCLR on drawn images of 32 pixels, as the command line would start it."""
    options = ["method=simclr", "data=synthetic", "trainer=cpu", "report=false", *overrides]
    cfg = config.load(options)
    cfg.run_dir = folder
    return cfg


def trainer_against_loop(steps: int, batch: int, cores: int) -> tuple[list[float], list[float]]:
    """Seconds of every step: ours, with all default callbacks and loggers, and the hand-written loop's."""
    with tempfile.TemporaryDirectory() as folder, silence(), threads(cores):
        cfg = configured(
            folder,
            NARROW,
            f"data._target_={Ready.__module__}.Ready",
            f"data.batch_size={batch}",
            f"data.source.samples={DIFFERENT * batch}",
            "trainer.max_epochs=1",
        )
        method, data = worker.build_run(cfg)
        worker.prepare(method, torch.device("cpu"), False)  # the loop gets the memory layout that a run has
        loop = by_hand(copy.deepcopy(method), batch, steps)
        data.given = Interleaved(data.ready(DIFFERENT), steps, loop)
        worker.run(cfg, Path(folder), (method, data))
        return data.given.ours[SKIP:], data.given.peer[SKIP:]


def step_vs_loop(run: Run) -> Measured:
    ours, peer = run.child(trainer_against_loop, run.pick(34, 5), run.pick(256, 8), run.cores)
    return Measured(ours, peer).times(1e3)


def ema_vs_loop(run: Run) -> Measured:
    """ResNet-50 against the loop over parameters of the authors' code (MoCo, BYOL's ports, DINO).

    In a process of its own with the system's allocator as it comes: ours needs none, the loop a new tensor for each
    parameter.
    """
    return run.child(ema_times, run)


def ema_times(run: Run) -> Measured:
    from torchvision.models import resnet18, resnet50

    torch.set_num_threads(run.cores)
    student: nn.Module = run.pick(resnet50, resnet18)()
    teacher, other = EMA(student), copy.deepcopy(student)

    @torch.no_grad()
    def loop() -> None:
        for k, q in zip(other.parameters(), student.parameters(), strict=True):
            k.data = k.data * MOMENTUM + q.data * (1.0 - MOMENTUM)

    return run.race(lambda: teacher.update(student, MOMENTUM), lambda: loop, rounds=21).times(1e3)


CASES = [
    Case("step_vs_loop", step_vs_loop, "ms", "hand-written loop", bar="<= 1.03", cores=2,
         note="SimCLR, batch 256 at 32 px, views ready; ours with all default callbacks and loggers"),
    Case("ema_vs_loop", ema_vs_loop, "ms", "loop over parameters", bar=">= 3", cores=2),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
