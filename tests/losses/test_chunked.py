"""Tiles against the one matrix: values, gradients, memory."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.contrastive import decoupled, hard_negatives, info_nce, nt_xent
from ssl_zoo.losses.supervised import sup_con


def unit_rows(rows: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1).to(dtype)


def value_and_gradients(loss, *rows: Tensor) -> tuple[Tensor, ...]:
    leaves = [row.clone().requires_grad_() for row in rows]
    value = loss(*leaves)
    value.backward()
    return value.detach(), *[leaf.grad for leaf in leaves]


def dense(queries: Tensor, keys: Tensor, temperature: float, skip: Tensor | None) -> Tensor:
    logits = queries @ keys.T / temperature
    return (logits if skip is None else logits.scatter(1, skip, -torch.inf)).logsumexp(1)


@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_tiles_equal_the_matrix(chunk, left_out):
    queries, keys = unit_rows(9, 6, 1), unit_rows(13, 6, 2)
    skip = torch.stack([(torch.arange(9) * step) % 13 for step in (3, 5)], 1)[:, :left_out] if left_out else None
    weights = torch.linspace(-1, 2, 9, dtype=torch.float64)   # any gradient, not that of a mean
    ours = value_and_gradients(lambda q, k: (log_sum_exp(q, k, 0.1, skip, chunk) * weights).sum(), queries, keys)
    wanted = value_and_gradients(lambda q, k: (dense(q, k, 0.1, skip) * weights).sum(), queries, keys)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("chunk", [1, 3, 8, 64])
def test_rows_against_themselves(chunk):
    z = unit_rows(10, 4, 3)
    skip = torch.stack([torch.arange(10), (torch.arange(10) + 5) % 10], 1)   # itself and its partner: symmetric
    weights = torch.linspace(0.5, 2, 10, dtype=torch.float64)
    ours = value_and_gradients(lambda x: (log_sum_exp(x, x, 0.2, skip, chunk) * weights).sum(), z)
    wanted = value_and_gradients(lambda x: (dense(x, x, 0.2, skip) * weights).sum(), z)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_small_temperatures_neither_overflow_nor_vanish():
    # Cosines of -1 and 1 at temperature 0.002: exponents of -500 and 500, beyond float32's 88.
    q, k = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [1.0], [1.0]])
    found = log_sum_exp(q, k, 0.002, chunk=2)
    assert found.tolist() == pytest.approx([500 + 1.0986123, -500 + 1.0986123], abs=1e-4)


def losses(chunk):
    labels = torch.arange(30) % 7
    return {
        "nt_xent": lambda a, b: nt_xent(a, b, a, b, 0, 0.1, chunk),
        "nt_xent of other keys": lambda a, b: nt_xent(a[4:9], b[4:9], a, b, 4, 0.1, chunk),
        "info_nce": lambda a, b: info_nce(a, b, unit_rows(50, 16, 9, a.dtype), 0.1, chunk),
        "decoupled": lambda a, b: decoupled(a, b, a, b, 0, 0.1, sigma=0.5, chunk=chunk),
        "hard_negatives": lambda a, b: hard_negatives(a, b, a, b, 0, 0.5, chunk=chunk),
        "sup_con": lambda a, b: sup_con(torch.cat([a, b]), torch.cat([a, b]), torch.arange(60), labels.repeat(2), 0.1,
                                        chunk=chunk),
    }


@pytest.mark.parametrize("name", losses(None))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_every_loss_in_tiles_equals_the_dense_one(name, dtype, tolerance):
    rows = [unit_rows(30, 16, seed, dtype) for seed in (5, 6)]
    ours = value_and_gradients(losses(7)[name], *rows)
    wanted = value_and_gradients(losses(None)[name], *rows)
    for a, b in zip(ours, wanted, strict=True):
        if b is None:   # the keys of info_nce
            assert a is None
        else:
            assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1.0)


def test_tiles_are_chosen_by_the_size():
    rows = unit_rows(2100, 4, 7, torch.float32).requires_grad_()
    assert type(log_sum_exp(rows, rows, 0.1).grad_fn).__name__ == "_SymmetricBackward"
    assert type(log_sum_exp(rows, rows.clone(), 0.1).grad_fn).__name__ == "_TiledBackward"
    assert "LogsumexpBackward" in type(log_sum_exp(rows[:9], rows[:9], 0.1).grad_fn).__name__


PEAK = """
import resource, sys, torch
import torch.nn.functional as F
from ssl_zoo.losses.contrastive import nt_xent
torch.set_num_threads(1)
small = F.normalize(torch.randn(64, 32), dim=1).requires_grad_()
nt_xent(small, small, small, small, 0, 0.1, chunk=32).backward()
a, b = (F.normalize(torch.randn(int(sys.argv[1]), 32), dim=1).requires_grad_() for _ in range(2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nt_xent(a, b, a, b, 0, 0.1).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_square_of_the_batch():
    # 4,096 pairs are 67 million similarities: 256 MB as one matrix, and several of them in a dense backward pass.
    done = subprocess.run([sys.executable, "-c", PEAK, "4096"], capture_output=True, text=True, check=True)
    assert int(done.stdout) / 1024 < 80
