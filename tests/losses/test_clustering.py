"""Sinkhorn and swapped prediction against numbers by hand and the authors' code as loops."""

import math

import pytest
import torch
from torch import Tensor

from ssl_zoo.losses.clustering import sinkhorn, swapped_prediction


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sinkhorn_as_loops(scores: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """``distributed_sinkhorn`` of main_swav.py, with every constant it carries."""
    n, k = scores.shape
    q = [[math.exp(s / epsilon) for s in row] for row in scores.tolist()]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        columns = [sum(row[j] for row in q) for j in range(k)]
        q = [[value / columns[j] / k for j, value in enumerate(row)] for row in q]
        q = [[value / sum(row) / n for value in row] for row in q]
    return [[value * n for value in row] for row in q]


def swapped_as_loops(scores: list[Tensor], assignments: list[Tensor], temperature: float) -> float:
    total = 0.0
    for i, q in enumerate(assignments):
        for v, s in enumerate(scores):
            for b in range(len(s)) if v != i else ():
                log_sum = math.log(sum(math.exp(x / temperature) for x in s[b].tolist()))
                entropy = -sum(
                    w * (x / temperature - log_sum) for w, x in zip(q[b].tolist(), s[b].tolist(), strict=True)
                )
                total += entropy / len(s) / (len(scores) - 1) / len(assignments)
    return total


def test_sinkhorn_of_equal_scores_is_uniform():
    torch.testing.assert_close(sinkhorn(torch.zeros(6, 4), 0.05, 3), torch.full((6, 4), 0.25))


def test_sinkhorn_of_one_iteration_by_hand():
    # exp(scores) = [[1, 1], [1, 3]]: columns -> [[1/2, 1/4], [1/2, 3/4]], rows -> [[2/3, 1/3], [2/5, 3/5]].
    scores = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    torch.testing.assert_close(sinkhorn(scores, 1.0, 1), torch.tensor([[2 / 3, 1 / 3], [0.4, 0.6]]))


@pytest.mark.parametrize(
    ("rows", "columns", "epsilon", "iterations"), [(5, 3, 0.5, 1), (8, 6, 0.2, 3), (3, 7, 0.3, 10)]
)
def test_sinkhorn_equals_the_authors_code_as_loops(rows, columns, epsilon, iterations):
    scores = matrix(rows, columns, seed=1)
    wanted = torch.tensor(sinkhorn_as_loops(scores, epsilon, iterations), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), wanted, rtol=1e-11, atol=1e-300)


def test_sinkhorn_balances_the_prototypes_and_fills_every_row():
    q = sinkhorn(matrix(12, 4, seed=2), 0.5, 100)
    torch.testing.assert_close(q.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((4,), 3.0, dtype=torch.float64))


def test_sinkhorn_survives_a_tiny_epsilon_and_takes_no_gradient():
    scores = torch.eye(4).mul(5).requires_grad_()  # exp(5 / 0.01) is infinite in float32
    q = sinkhorn(scores, 0.01, 3)
    assert not q.requires_grad
    torch.testing.assert_close(q, torch.eye(4))


def test_sinkhorn_wants_an_iteration():
    with pytest.raises(ValueError, match="sinkhorn: iterations must be 1 or more, got 0"):
        sinkhorn(torch.zeros(2, 2), 0.05, 0)


def test_swapped_prediction_of_equal_scores_is_log_of_the_prototypes():
    scores, q = [torch.zeros(3, 5)] * 3, [torch.eye(5)[:3]] * 2
    assert swapped_prediction(scores, q, 0.1).item() == pytest.approx(math.log(5), abs=1e-6)


def test_swapped_prediction_by_hand():
    # View 1 predicts prototype 0 with probability 3/4 and view 0's assignment is 0; no assignment of view 1.
    scores = [torch.tensor([[9.0, -9.0]]), torch.tensor([[math.log(3), 0.0]])]
    loss = swapped_prediction(scores, [torch.tensor([[1.0, 0.0]])], 1.0)
    assert loss.item() == pytest.approx(math.log(4 / 3), abs=1e-6)


@pytest.mark.parametrize(("views", "assigned"), [(2, 2), (4, 2), (3, 1)])
def test_swapped_prediction_equals_the_paper_written_as_loops(views, assigned):
    scores = [matrix(4, 5, seed) for seed in range(views)]
    q = [matrix(4, 5, seed).softmax(1) for seed in range(10, 10 + assigned)]
    assert swapped_prediction(scores, q, 0.3).item() == pytest.approx(swapped_as_loops(scores, q, 0.3), rel=1e-12)


@pytest.mark.parametrize(("views", "assigned"), [(1, 1), (2, 0), (2, 3)])
def test_swapped_prediction_names_wrong_counts(views, assigned):
    with pytest.raises(ValueError, match=f"got {views} views and {assigned} assignments"):
        swapped_prediction([torch.zeros(2, 3)] * views, [torch.zeros(2, 3)] * assigned, 0.1)
