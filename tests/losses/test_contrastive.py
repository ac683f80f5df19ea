"""NT-Xent and InfoNCE against numbers by hand and the papers as loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.contrastive import decoupled, info_nce, nt_xent


def unit_rows(rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def nt_xent_as_loops(a: Tensor, b: Tensor, temperature: float) -> float:
    """Eq. 1 of SimCLR and the line below it: rows 2k-1 and 2k of ``z`` are a pair."""
    z = [row for pair in zip(a, b, strict=True) for row in pair]
    total = 0.0
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(len(z)) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[j]) / temperature) / others)
    return total / len(z)


def test_nt_xent_of_two_orthogonal_pairs_is_log_one_plus_two_over_e():
    # Each row meets its positive at cosine 1 and two negatives at cosine 0.
    z = torch.eye(2)
    assert nt_xent(z, z, z, z, 0, temperature=1.0).item() == pytest.approx(math.log(1 + 2 / math.e), abs=1e-6)


def test_nt_xent_of_a_collapsed_batch_is_log_of_the_other_rows():
    z = torch.ones(5, 1)
    assert nt_xent(z, z, z, z, 0, temperature=0.1).item() == pytest.approx(math.log(9), abs=1e-6)


@pytest.mark.parametrize(("rows", "temperature", "chunk"), [(1, 0.5, 64), (2, 0.1, 64), (7, 0.5, 64), (7, 0.2, 4)])
def test_nt_xent_equals_the_paper_written_as_loops(rows, temperature, chunk):
    a, b = unit_rows(rows, 5, seed=1), unit_rows(rows, 5, seed=2)
    loss = nt_xent(a, b, a, b, 0, temperature, chunk)
    assert loss.item() == pytest.approx(nt_xent_as_loops(a, b, temperature), rel=1e-12)


def test_nt_xent_by_chunks_has_the_same_gradient():
    a, b = (unit_rows(6, 4, seed).requires_grad_() for seed in (3, 4))
    whole = torch.autograd.grad(nt_xent(a, b, a, b, 0, 0.2), [a, b])
    chunks = torch.autograd.grad(nt_xent(a, b, a, b, 0, 0.2, chunk=5), [a, b])
    for ours, wanted in zip(chunks, whole, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-15)


def test_nt_xent_of_local_rows_averages_to_the_whole_batch():
    a, b = unit_rows(6, 4, seed=5), unit_rows(6, 4, seed=6)
    parts = [nt_xent(a[i : i + 2], b[i : i + 2], a, b, i, 0.3).item() for i in (0, 2, 4)]
    assert sum(parts) / 3 == pytest.approx(nt_xent(a, b, a, b, 0, 0.3).item(), rel=1e-12)


def test_nt_xent_is_float32_for_bfloat16_rows():
    z = unit_rows(4, 8, seed=7).bfloat16()
    loss = nt_xent(z, z, z, z, 0, 0.1)
    assert loss.dtype == torch.float32
    exact = z.float()
    assert loss.item() == pytest.approx(nt_xent(exact, exact, exact, exact, 0, 0.1).item(), rel=1e-6)


def test_nt_xent_names_an_offset_outside_the_keys():
    z = torch.eye(3)
    with pytest.raises(ValueError, match="rows 1 to 4 do not lie inside 3 keys; offset is rank \\* B"):
        nt_xent(z, z, z, z, 1, 0.1)


def test_info_nce_of_an_orthogonal_queue():
    # One positive at cosine 1, three negatives at cosine 0: -log(e^2 / (e^2 + 3)) at temperature 0.5.
    q, queue = torch.eye(4)[:1], torch.eye(4)[1:]
    assert info_nce(q, q, queue, 0.5).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)), abs=1e-6)


def test_info_nce_equals_the_paper_written_as_loops():
    q, k, queue = unit_rows(5, 4, seed=8), unit_rows(5, 4, seed=9), unit_rows(7, 4, seed=10)
    total = 0.0
    for i in range(5):
        positive = math.exp(float(q[i] @ k[i]) / 0.07)
        negatives = sum(math.exp(float(q[i] @ key) / 0.07) for key in queue)
        total -= math.log(positive / (positive + negatives))
    assert info_nce(q, k, queue, 0.07).item() == pytest.approx(total / 5, rel=1e-12)


def test_info_nce_gives_keys_and_queue_no_gradient():
    q, k, queue = (unit_rows(3, 4, seed).requires_grad_() for seed in (11, 12, 13))
    info_nce(q, k, queue, 0.2).backward()
    assert q.grad is not None and q.grad.abs().sum() > 0 and k.grad is None and queue.grad is None


@pytest.mark.parametrize("chunk", [None, 3])
def test_decoupled_with_negatives_of_either_view_apart_as_loops(chunk):
    a, b = unit_rows(5, 4, seed=14), unit_rows(5, 4, seed=15)
    total = 0.0
    for own, other in ((a, b), (b, a)):
        for i in range(5):
            for keys in (own, other):
                total += math.log(sum(math.exp(float(own[i] @ keys[k]) / 0.2) for k in range(5) if k != i))
            total -= float(own[i] @ other[i]) / 0.2
    assert decoupled(a, b, a, b, 0, 0.2, apart=True, chunk=chunk).item() == pytest.approx(total / 10, rel=1e-12)
