"""ReSSL's relations."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.relation import relational_cross_entropy


def test_by_hand() -> None:
    # The teacher is at cosines (1, 0), the student at (0, 0): its relations are uniform, whatever the teacher's are.
    queue = torch.eye(3)[:2]
    loss = relational_cross_entropy(torch.eye(3)[2:], torch.eye(3)[:1], queue, 0.1, 0.04)
    assert loss.item() == pytest.approx(math.log(2))


def test_equals_the_paper_as_loops_and_gives_the_teacher_no_gradient() -> None:
    torch.manual_seed(0)
    q, k, queue = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 3, 5))
    loss = relational_cross_entropy(q, k, queue, 0.5, 0.3)
    rows = []
    for i in range(3):
        teacher = [math.exp((k[i] @ x).item() / 0.3) for x in queue]
        student = [math.exp((q[i] @ x).item() / 0.5) for x in queue]
        rows.append(-sum(a / sum(teacher) * math.log(b / sum(student)) for a, b in zip(teacher, student, strict=True)))
    assert loss.item() == pytest.approx(sum(rows) / 3, rel=1e-12)
    loss.backward()
    assert q.grad is not None and k.grad is None and queue.grad is None
