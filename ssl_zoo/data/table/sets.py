"""Tables that need no file of the user's: those inside scikit-learn, and drawn ones."""

from __future__ import annotations

import numpy as np

from ssl_zoo.data.source import Splits
from ssl_zoo.data.splits import seed_of
from ssl_zoo.data.table.encoding import Numbers
from ssl_zoo.data.table.files import Cells
from ssl_zoo.data.table.table import Options, built
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Count, Size

SETS = ("breast_cancer", "digits", "iris", "wine")
HELD_OUT = 0.2  # of each class
LABEL = "class"
KINDS = ("north", "east", "south", "west")


def scikit_learn(
    name: str = "breast_cancer",
    numbers: Numbers = "standard",
    encoding: str = "auto",
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """A table inside scikit-learn; a fifth of each class validates, by a fixed permutation.

    Args:
        name: breast_cancer (569 rows, 30 columns), digits (1,797 and 64), iris (150 and 4) or wine (178 and 13).
        numbers, encoding: As of :func:`ssl_zoo.data.table.table.table`.
    """
    require("data.source.name", name, SETS, ConfigError)
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    head = (*(str(column) for column in found.feature_names), LABEL)
    words = [str(word) for word in found.target_names]
    rows = [[*map(repr, map(float, row)), words[label]] for row, label in zip(found.data, found.target, strict=True)]
    order = np.random.RandomState(0).permutation(len(rows))
    held_out: set[int] = set()
    for label in range(len(words)):
        own = [i for i in order.tolist() if found.target[i] == label]
        held_out |= set(own[: round(HELD_OUT * len(own))])
    parts = ([i for i in range(len(rows)) if (i in held_out) is held] for held in (False, True))
    cells = Cells(name, head, rows, list(range(1, len(rows) + 1)), [])
    train, val = (cells.select(part) for part in parts)
    return built(train, val, _options(numbers, encoding))


def synthetic(
    samples: Size = 512,
    val_samples: Count = 128,
    seed: int = 0,
    numbers: Numbers = "standard",
    encoding: str = "auto",
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Four classes: six numbers around a centre of each, three categories that each prefers, some cells missing.

    Args:
        seed: Of the rows, not of the training.
        numbers, encoding: As of :func:`ssl_zoo.data.table.table.table`.
    """
    centres = np.random.RandomState(seed_of("centres", seed) % 2**32).randn(len(KINDS), 6)

    def drawn(count: int, part: str) -> Cells:
        rng = np.random.RandomState(seed_of(part, seed) % 2**32)
        label = np.arange(count) % len(KINDS)
        values = centres[label] + 0.7 * rng.randn(count, 6)
        kinds = np.where(rng.rand(count, 3) < 0.6, label[:, None], rng.randint(0, len(KINDS), (count, 3)))
        missing = rng.rand(count, 9) < 0.03
        rows: list[list[str | None]] = []
        for i in range(count):
            row = [*map(repr, map(float, values[i])), *(KINDS[kind] for kind in kinds[i])]
            seen = (None if gone else text for gone, text in zip(missing[i], row, strict=True))
            rows.append([*seen, KINDS[label[i]]])
        head = (*(f"number_{i}" for i in range(6)), *(f"kind_{i}" for i in range(3)), LABEL)
        return Cells(f"synthetic {part}", head, rows, list(range(1, count + 1)), [])

    held_out = drawn(val_samples, "val") if val_samples else None
    return built(drawn(samples, "train"), held_out, _options(numbers, encoding))


def _options(numbers: Numbers, encoding: str) -> Options:
    return Options(LABEL, (), (), numbers, "refuse", encoding)
