"""Losses against a bank: by hand, as loops, and without a copy of the rows."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses import nce as module
from ssl_zoo.losses.nce import instance_softmax, nce, picked_scores, sampled_softmax


def unit_rows(rows: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("samples", [6, 500])  # few: all products and a pick; many: rows fetched in parts
@pytest.mark.parametrize("part", [1, 2**24])
def test_picked_scores_equal_products_with_the_rows(samples, part, monkeypatch):
    monkeypatch.setattr(module, "PICKED", part)
    keys, queries = unit_rows(samples, 4, 0), unit_rows(5, 4, 1).requires_grad_()
    rows = torch.randint(0, samples, (5, 7), generator=torch.Generator().manual_seed(2))
    weight = torch.linspace(-1, 1, 35, dtype=torch.float64).view(5, 7)
    scores = picked_scores(queries, keys, rows)
    wanted = (keys[rows] * queries[:, None]).sum(2)
    torch.testing.assert_close(scores, wanted, rtol=1e-13, atol=1e-13)
    ours, theirs = (torch.autograd.grad((weight * s).sum(), queries)[0] for s in (scores, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("samples", [6, 500])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_bank_is_promoted_and_half_queries_too(samples, dtype):
    keys, queries = unit_rows(samples, 4, 0).to(dtype), unit_rows(5, 4, 1).to(dtype)
    rows = torch.randint(0, samples, (5, 7), generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = picked_scores(queries, keys, rows)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, (keys[rows].float() * queries.float()[:, None]).sum(2))


def test_nce_of_even_odds_is_ln_2_each():
    # Z = N makes p = exp(s / T) / N; with s = 0, one negative and N samples data and noise are equally likely.
    assert nce(torch.zeros(3, 2), 0.5, torch.tensor(8.0), 8).item() == pytest.approx(2 * math.log(2), abs=1e-5)


def test_nce_equals_the_authors_loops():
    scores, temperature, z, n = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double(), 0.5, 30.0, 20
    total = 0.0
    for row in scores.tolist():
        p = [math.exp(s / temperature) / z for s in row]
        noise = 5 / n
        total -= math.log(p[0] / (p[0] + noise + 1e-7)) + sum(math.log(noise / (q + noise + 1e-7)) for q in p[1:])
    assert nce(scores, temperature, torch.tensor(z), n).item() == pytest.approx(total / 4, rel=1e-12)


def test_softmax_of_a_positive_at_cosine_1_and_negatives_at_0():
    scores = torch.tensor([[1.0, 0.0, 0.0]])
    assert sampled_softmax(scores, 0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-6)


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_full_softmax_is_cross_entropy_over_the_bank(chunk):
    keys, queries, index = unit_rows(11, 4, 0), unit_rows(5, 4, 1).requires_grad_(), torch.tensor([3, 0, 10, 3, 7])
    ours = instance_softmax(queries, keys, index, 0.1, chunk)
    wanted = F.cross_entropy(queries @ keys.T / 0.1, index)
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-12)
    ours_grad, wanted_grad = (torch.autograd.grad(loss, queries)[0] for loss in (ours, wanted))
    torch.testing.assert_close(ours_grad, wanted_grad, rtol=1e-10, atol=1e-12)
