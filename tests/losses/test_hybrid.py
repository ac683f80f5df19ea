"""The hybrid memory's loss by hand, as loops, and where exponentials would overflow."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses.hybrid import hybrid_memory


def test_a_cluster_answers_with_its_mean() -> None:
    # Class 0 holds two rows at similarities 1 and 0, class 1 one at 0: exp(1/2) against exp(0).
    memory, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.tensor([0, 0, 1])
    z = torch.tensor([[1.0, 0.0]])
    loss = hybrid_memory(z, memory, labels, torch.tensor([0]), 2, 1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5)), abs=1e-5)


def test_it_equals_the_authors_formula_written_as_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    z, memory = (F.normalize(torch.randn(n, 4, generator=generator).double(), dim=1) for n in (3, 7))
    labels, targets = torch.tensor([0, 2, 2, -1, 4, 0, 2]), torch.tensor([2, 0, 4])  # classes 1 and 3 are empty
    for i, loss in enumerate(hybrid_memory(z, memory, labels, targets, 5, 0.1)):
        scores = {}
        for c in (0, 2, 4):
            members = [float(z[i] @ memory[m]) / 0.1 for m in range(7) if labels[m] == c]
            scores[c] = math.exp(sum(members) / len(members))
        share = scores[int(targets[i])] / (sum(scores.values()) + 1e-6)
        assert loss.item() == pytest.approx(-math.log(share + 1e-6), rel=1e-12)


def test_small_temperatures_do_not_overflow() -> None:
    z = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1).requires_grad_()
    loss = hybrid_memory(z, z.detach(), torch.arange(4), torch.arange(4), 4, 0.005)
    loss.sum().backward()
    assert loss.isfinite().all() and z.grad is not None and z.grad.isfinite().all()
