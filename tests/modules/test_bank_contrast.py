"""The constant Z of NCE, and the rows that are scored."""

import math

import pytest
import torch

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.modules.bank_contrast import BankContrast, candidates
from tests.pool import GlooPool


def test_z_is_that_of_the_first_batch_for_ever_and_is_saved():
    contrast, keys = BankContrast("nce", 1.0, samples=3), torch.eye(3)
    rows = torch.tensor([[0, 1], [1, 2]])
    contrast(torch.eye(3)[:2], keys, rows)
    first = 3 * (2 * math.e + 2) / 4  # N times the mean of exp(1), exp(0), exp(1), exp(0)
    assert contrast.normaliser.item() == pytest.approx(first)
    contrast(torch.eye(3)[:2], keys, rows.flip(1))
    contrast(-torch.eye(3)[:2], keys, rows)
    assert contrast.normaliser.item() == pytest.approx(first)
    copy = BankContrast("nce", 1.0, samples=3)
    copy.load_state_dict(contrast.state_dict())
    copy(-torch.eye(3)[:2], keys, rows)
    assert copy.normaliser.item() == pytest.approx(first)


def first_z() -> float:
    from ssl_zoo.distributed import own_rows

    contrast = BankContrast("nce", 0.5, samples=6).double()
    queries = own_rows(torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3))
    rows = own_rows(torch.tensor([[0, 1], [1, 2], [2, 0], [3, 5]]))
    contrast(queries, torch.linspace(-1, 1, 18, dtype=torch.float64).view(6, 3), rows)
    return contrast.normaliser.item()


def test_z_is_that_of_all_processes(pool: GlooPool):
    one = first_z()
    assert pool.run(first_z) == pytest.approx([one, one], rel=1e-12)


def test_candidates_are_the_own_row_and_uniform_ones_with_replacement():
    index = torch.arange(400) % 10
    rows = candidates(index, BatchRNG(0, 0, 0, torch.arange(400)).sample("negatives"), samples=10, count=50)
    assert torch.equal(rows[:, 0], index) and rows.shape == (400, 51)
    share = rows[:, 1:].flatten().bincount(minlength=10) / 20000
    assert share.tolist() == pytest.approx([0.1] * 10, abs=0.01)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss=ncee: did you mean 'nce'"):
        BankContrast("ncee", 0.07, 4)  # type: ignore[arg-type]
