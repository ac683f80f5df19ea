"""(e) Whole runs: every epoch with its views, steps, evaluation and checkpoint."""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_zoo import worker
from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.step import NARROW, configured, silence
from ssl_zoo.benchmarks.timing import threads

EPOCHS = 2
BATCH = 256
SAMPLES = 2048


def ours(cores: int, epochs: int, *overrides: str) -> float:
    """Seconds an epoch of a whole run, everything that the default configuration does included."""
    with tempfile.TemporaryDirectory() as folder, silence(), threads(cores):
        cfg = configured(folder, f"trainer.max_epochs={epochs}", *overrides)
        built = worker.build_run(cfg)
        began = time.perf_counter()
        worker.run(cfg, Path(folder), built)
        return (time.perf_counter() - began) / epochs


class Pictures(Dataset):
    """PIL images in memory and a transform, as torchvision's CIFAR-10 gives them."""

    def __init__(self, images: Tensor, transform: Any) -> None:
        from torchvision.transforms.functional import to_pil_image

        self.pictures = [to_pil_image(image) for image in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index])


def lightly(cores: int, epochs: int, *overrides: str) -> float:
    """lightly's transform and loss in the loop of its SimCLR example, with our network and optimizer."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    with tempfile.TemporaryDirectory() as folder, threads(cores):
        cfg = configured(folder, *overrides)
        method: Any
        data: Any
        method, data = worker.build_run(cfg)
        optimizer = method.bind(data.batch_size).optimizer
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0, normalize=None)
    images = data.train.fetch(torch.arange(len(data.train)))
    loader: Any = DataLoader(
        Pictures(images, transform), data.batch_size, shuffle=True, drop_last=True, num_workers=cores
    )
    criterion = NTXentLoss(method.temperature)
    with threads(cores):
        began = time.perf_counter()
        for _ in range(epochs):
            for views in loader:
                loss = criterion(*(method.projector(method.backbone(view)) for view in views))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return (time.perf_counter() - began) / epochs


def epoch(run: Run, *overrides: str, peer: bool = False) -> Measured:
    """Each side in fresh processes, in turn."""
    rounds, epochs = run.pick(3, 1), run.pick(EPOCHS, 1)
    taken: dict[Any, list[float]] = {side: [] for side in ([ours, lightly] if peer and run.peer else [ours])}
    for _ in range(rounds):
        for side, seconds in taken.items():
            seconds.append(run.child(side, run.cores, epochs, *overrides))
    return Measured(taken[ours], taken.get(lightly))


def cifar_like(run: Run) -> Measured:
    samples, batch = run.pick((SAMPLES, BATCH), (32, 8))
    return epoch(run, NARROW, f"data.source.samples={samples}", f"data.batch_size={batch}", peer=True)


def digits(run: Run) -> Measured:
    return epoch(run, NARROW, "data=digits", *run.pick((), ("data.subset=32", "data.batch_size=8")))


def drawn(run: Run, kind: str) -> Measured:
    """Drawn samples that are no images."""
    samples, batch = run.pick((SAMPLES, 64), (32, 8))
    return epoch(run, f"data=synthetic_{kind}", f"data.source.samples={samples}", f"data.batch_size={batch}")


KINDS = {"audio": "recordings", "graph": "graphs", "series": "time series", "table": "rows of a table"}

CASES = [
    Case("epoch_32_vs_lightly", cifar_like, "s", "lightly's SimCLR example", needs="lightly", cores=2,
         note=f"one of {EPOCHS} epochs of {SAMPLES} images; ours with probe, kNN and checkpoints, lightly's without"),
    Case("epoch_digits", digits, "s", cores=2, note=f"one of {EPOCHS} epochs of 1,438 images"),
    *(Case(f"epoch_{kind}", partial(drawn, kind=kind), "s", cores=2, note=f"one of {EPOCHS} epochs of {SAMPLES} {name}")
      for kind, name in KINDS.items()),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
