"""(f) Evaluation of frozen features: nearest neighbours and a linear classifier."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.timing import peak_memory
from ssl_zoo.evaluation.linear import fit
from ssl_zoo.knn import knn_predict

CLASSES, WIDTH = 10, 512
K, TEMPERATURE = 200, 0.1
BATCH = 256  # queries at a time in lightly's own benchmarks (batch size of its loaders)
PENALTY = 1e-3


def features(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors ``[rows, 512]`` around one centre a class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    noise = torch.randn(rows, WIDTH, generator=generator)
    return F.normalize(centres[labels] + 3.0 * noise, dim=1), labels


def knn_ours(bank_rows: int, query_rows: int, k: int) -> Callable[[], Tensor]:
    (bank, labels), (query, _) = features(bank_rows, 1), features(query_rows, 2)
    return lambda: knn_predict(query, bank, labels, CLASSES, k, TEMPERATURE)


def knn_lightly(bank_rows: int, query_rows: int, k: int) -> Callable[[], Tensor]:
    from lightly.utils.benchmarking import knn_predict as predict

    (bank, labels), (query, _) = features(bank_rows, 1), features(query_rows, 2)
    across = bank.T.contiguous()  # what its classifier keeps: [F, N]

    def work() -> Tensor:
        return torch.cat([predict(rows, across, labels, CLASSES, k, TEMPERATURE)[:, 0] for rows in query.split(BATCH)])

    return work


def knn_seconds(run: Run) -> Measured:
    sizes = run.pick((50_000, 10_000, K), (500, 100, 20))
    return run.race(knn_ours(*sizes), lambda: knn_lightly(*sizes), rounds=3)


def knn_memory(run: Run) -> Measured:
    sizes = run.pick((50_000, 2_000, K), (500, 100, 20))

    def peak(build: Callable[..., Any]) -> list[float]:
        return [max(run.child(peak_memory, build, sizes, run.cores), 4 / 1024)]

    return Measured(peak(knn_ours), peak(knn_lightly) if run.peer else None)


def linear(run: Run) -> Measured:
    """One penalty, from zero to convergence; the same objective in scikit-learn's parametrisation."""
    x, labels = features(run.pick(10_000, 200), 1)
    x = x * WIDTH**0.5  # about one a dimension, as the probe standardises
    start = torch.zeros(WIDTH + 1, CLASSES)

    def peer() -> Callable[[], Any]:
        from sklearn.linear_model import LogisticRegression

        solver = LogisticRegression(C=1 / (PENALTY * len(x)), max_iter=200, tol=1e-5)
        return functools.partial(solver.fit, x.numpy(), labels.numpy())

    return run.race(lambda: fit(x, labels, PENALTY, start), peer, rounds=5)


LIGHTLY = f"lightly knn_predict, {BATCH} queries at a time"

CASES = [
    Case("knn_vs_lightly", knn_seconds, "s", LIGHTLY, needs="lightly", bar=">= 1.1", cores=2),
    Case("knn_memory_vs_lightly", knn_memory, "MiB", LIGHTLY, needs="lightly", cores=2,
         note="bounded by blocks of similarities, whatever the bank; lightly's grows with batch x bank"),
    Case("linear_vs_scikit_learn", linear, "s", "scikit-learn LogisticRegression (L-BFGS)", cores=2),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
