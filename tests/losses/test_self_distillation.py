"""Self-distillation against numbers by hand and the authors' loss as loops."""

import math

import pytest
import torch
from torch import Tensor

from ssl_zoo.losses.self_distillation import centred_softmax, self_distillation


def scores(count: int, rows: int = 3, width: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(count)]


def as_loops(student: list[Tensor], targets: list[Tensor], temperature: float, same_view: bool) -> float:
    terms = []
    for q, target in enumerate(targets):
        for v, s in enumerate(student):
            if v == q and not same_view:
                continue
            for row, t in zip((s / temperature).tolist(), target.tolist(), strict=True):
                total = math.log(sum(map(math.exp, row)))
                terms.append(-sum(p * (x - total) for p, x in zip(t, row, strict=True)))
    return sum(terms) / len(terms)


def test_targets_are_sharpened_after_the_centre_is_taken_away() -> None:
    # (1, 1) - (1, 0) = (0, 1), and 1 / 0.5 = 2.
    p = centred_softmax(torch.ones(1, 2), torch.tensor([[1.0, 0.0]]), 0.5)
    assert p[0].tolist() == pytest.approx([1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)])
    assert not centred_softmax(torch.ones(1, 2, requires_grad=True), 0.0, 1.0).requires_grad


def test_a_student_that_tells_nothing_apart_pays_ln_k() -> None:
    targets = [centred_softmax(s, 0.0, 0.04) for s in scores(2)]
    assert self_distillation([torch.zeros(3, 4)] * 5, targets, 0.1).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize(("views", "held"), [(2, 2), (4, 2), (3, 1), (4, 3)])
def test_it_equals_the_authors_loops(views: int, held: int, same_view: bool) -> None:
    student = scores(views)
    targets = [centred_softmax(s, 0.3, 0.07) for s in scores(held, rows=3)]
    got = self_distillation(student, targets, 0.1, same_view).item()
    assert got == pytest.approx(as_loops(student, targets, 0.1, same_view), rel=1e-12)


def test_no_gradient_reaches_a_target_and_a_view_learns_from_others_only() -> None:
    student = [s.requires_grad_() for s in scores(2)]
    targets = [s.softmax(1).requires_grad_() for s in scores(1)]
    self_distillation(student, targets, 0.1).backward()
    assert targets[0].grad is None and student[0].grad is None and student[1].grad is not None


def test_half_precision_is_promoted() -> None:
    student, targets = [s.bfloat16() for s in scores(2)], [s.softmax(1).bfloat16() for s in scores(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = self_distillation(student, targets, 0.1)
    exact = self_distillation([s.float() for s in student], [t.float() for t in targets], 0.1)
    assert loss.dtype == torch.float32 and loss == exact


@pytest.mark.parametrize(("views", "held"), [(1, 1), (2, 0), (2, 3)])
def test_no_pair_is_refused(views: int, held: int) -> None:
    with pytest.raises(ValueError, match=rf"a pair of different views; got {views} view\(s\) and {held} target\(s\)"):
        self_distillation(scores(views), scores(held), 0.1)
