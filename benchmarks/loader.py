"""(b) The whole loader at 224 pixels: decode JPEG files, two views with SimCLR's full recipe, collate."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import to_pil_image

from ssl_zoo import build, config
from ssl_zoo.benchmarks.rows import Case, Measured, Run

WORKERS = 2
BATCH = 32
HEIGHT, WIDTH, QUALITY = 375, 500, 90  # what most of ImageNet has


def write_images(folder: Path, count: int) -> None:
    """Random JPEG files in two class folders: noise on four scales, the coarser the stronger, as in photographs.

    Files of about 90 kB, which take about as long to decode as ImageNet's of 110 kB.
    """
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        x = torch.zeros(3, HEIGHT, WIDTH)
        for cells, share in ((4, 0.4), (24, 0.2), (96, 0.15), (320, 0.25)):
            coarse = torch.rand(1, 3, cells, cells, generator=generator)
            x += share * F.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0]
        path = folder / f"class_{i % 2}" / f"{i:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        to_pil_image((x * 255).round().clamp(0, 255).to(torch.uint8)).save(path, quality=QUALITY)


class Ours:
    """Our DataModule on a CPU: workers make whole views."""

    def __init__(self, root: str, batch: int) -> None:
        options = ["data=folder", "method=simclr", "scale=large", "trainer=cpu", "data.image_size=224"]
        options += [f"data.root={root}", f"data.batch_size={batch}", f"data.workers={WORKERS}"]
        cfg = config.load([*options, "data.source.cache=false", "augmentation.where=worker"])
        for view in cfg.augmentation.views:  # lightly's interpolation; SimCLR's own is bicubic
            view.ops[0]["image/random_resized_crop"].interpolation = "bilinear"
        config.quick_check(cfg)
        self.data = build.build_data(cfg)

    def batches(self) -> Iterator[Any]:
        return iter(self.data.train_dataloader())

    def close(self) -> None:
        self.data.teardown("fit")


class Lightly:
    """LightlyDataset and SimCLRTransform with their defaults, less the normalisation that ours does not do either."""

    def __init__(self, root: str, batch: int) -> None:
        from lightly.data import LightlyDataset
        from lightly.transforms import SimCLRTransform

        inner = Path(root) / "train"
        transform = SimCLRTransform(input_size=224, normalize=None)
        dataset = LightlyDataset(str(inner if inner.is_dir() else root), transform=transform)
        self.loader: Any = torch.utils.data.DataLoader(
            dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=WORKERS
        )

    def batches(self) -> Iterator[Any]:
        return iter(self.loader)

    def close(self) -> None:
        """Its workers end with their iterator."""


def race(run: Run) -> Measured:
    """So many batches from a loader that has just been made, workers and all; images a second.

    Both prepare some batches more than are asked for, and are ended before the other begins.
    """
    batch, count = run.pick(BATCH, 4), run.pick(16, 2)
    with tempfile.TemporaryDirectory() as made:
        if run.root is None:
            write_images(Path(made), batch * (count + run.pick(8, 4)))
        root = run.root or made
        sides: list[Any] = [Ours(root, batch)] + ([Lightly(root, batch)] if run.peer else [])
        running: list[Iterator[Any]] = []

        def read(side: Any) -> int:
            running.append(side.batches())
            return sum(1 for _ in itertools.islice(running[0], count))

        def end() -> None:
            running.clear()
            for side in sides:
                side.close()

        peer = (lambda: lambda: read(sides[1])) if run.peer else None
        return run.race(lambda: read(sides[0]), peer, rounds=3, after=end).per_second(batch * count)


CASES = [
    Case(
        "loader_224_vs_lightly",
        race,
        "images/s",
        "lightly SimCLRTransform + LightlyDataset",
        needs="lightly",
        bar=">= 1.2",
        note=f"{WORKERS} workers; generated files of {WIDTH}x{HEIGHT}, quality {QUALITY}, unless root=DIR; "
        "both crop bilinearly",
    )
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
