"""How many images a recorded data set has, and how many a configuration of ours leaves to an epoch."""

from __future__ import annotations

from omegaconf import DictConfig

# Training images and classes; None: unlabelled.
SETS: dict[str, tuple[int, int | None]] = {
    "imagenet": (1_281_167, 1000),
    "imagenet_lt": (115_846, 1000),
    "imagenet100": (126_689, 100),
    "imagenette": (9_469, 10),
    "cifar10": (50_000, 10),
    "cifar100": (50_000, 100),
    "stl10": (105_000, 10),  # 5,000 of them labelled
    "svhn": (73_257, 10),
    "market1501": (12_936, 751),
}
# Where a source takes another part of its set than the usual one.
SPLITS = {
    ("stl10", "train"): 5_000,
    ("stl10", "unlabeled"): 100_000,
    ("cifar10", "train+test"): 60_000,
    ("cifar100", "train+test"): 60_000,
    ("svhn", "train+extra"): 604_388,
}


def samples(dataset: str, cfg: DictConfig) -> int:
    """Samples of an epoch of ours: of the split that the source takes, less what is held out, of a subset of it."""
    count = SPLITS.get((dataset, str(cfg.data.source.get("split"))), SETS[dataset][0])
    count -= round(count * (cfg.data.get("val_fraction") or 0))
    return min(count, cfg.data.get("subset") or count)


def classes(dataset: str) -> int | None:
    return SETS[dataset][1]
