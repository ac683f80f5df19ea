"""RMSProp of TensorFlow: by hand, and as timm's translation of it; and the staircase that goes with it."""

from __future__ import annotations

import pytest
import torch
from timm.optim import RMSpropTF

from ssl_zoo.optim.lengths import equal_until
from ssl_zoo.optim.rmsprop import RMSProp
from ssl_zoo.optim.schedules import Constant, Progress, Staircase, Warmup


def test_two_steps_by_hand():
    p = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = RMSProp([p], lr=0.1, alpha=0.5, momentum=0.9, eps=0.25, weight_decay=0.5)
    p.grad = torch.tensor([1.0], dtype=torch.float64)
    optimizer.step()  # d = 2, s = 0.5 + 0.5 * 4 = 2.5, v = 0.1 * 2 / sqrt(2.75)
    first = 0.2 / 2.75**0.5
    assert p.item() == pytest.approx(2 - first, rel=1e-12)
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()
    d = 1 + 0.5 * (2 - first)
    second = 0.9 * first + 0.01 * d / (0.5 * 2.5 + 0.5 * d**2 + 0.25) ** 0.5
    assert p.item() == pytest.approx(2 - first - second, rel=1e-12)


def test_it_is_timms():
    generator = torch.Generator().manual_seed(0)
    start, grads = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (5, 3, 4)))
    ends = []
    for kind in (RMSProp, RMSpropTF):
        p = torch.nn.Parameter(start.clone())
        optimizer = kind([p], lr=0.1, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-2)
        for i, grad in enumerate(grads):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + i)
            p.grad = grad.clone()
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)


def test_options_out_of_range_are_refused():
    p = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=r"eps=0 of RMSProp: wanted alpha and momentum in \[0, 1\), eps above 0 and"):
        RMSProp([p], lr=0.1, eps=0)
    with pytest.raises(ValueError, match="momentum=1 of RMSProp"):
        RMSProp([p], lr=0.1, momentum=1)


def test_the_staircase_counts_from_the_start_of_the_run():
    rate = Warmup(warmup_epochs=5, after=Staircase(1.0, 2.5), toward=Constant(1.0))
    at = [rate(Progress(step, 100, 10)) for step in (0, 25, 49, 50, 74, 75, 99)]
    assert at == pytest.approx([0, 0.5, 0.98, 0.97**2, 0.97**2, 0.97**3, 0.97**3])
    assert rate.scaled(2.0, 3.0)(Progress(75, 100, 10)) == pytest.approx(6 * 0.97**3)
    assert equal_until(Staircase(1.0, 2.5), Progress(0, 100, 10), Progress(0, 300, 10)) == float("inf")
