"""Softened Kullback-Leibler divergence."""

import math

import pytest
import torch

from ssl_zoo.losses.distillation import softened_kl


def test_a_sure_teacher_and_an_undecided_student_differ_by_almost_ln_2():
    value = softened_kl(torch.zeros(3, 2), torch.tensor([[40.0, 0.0]]).repeat(3, 1), 2.0)
    assert value.item() == pytest.approx(4 * math.log(2), abs=1e-5)  # temperature^2 ln 2


def test_equal_logits_cost_nothing_and_the_teacher_gets_no_gradient():
    x = torch.randn(4, 5, requires_grad=True)
    t = x.detach().clone().requires_grad_()
    loss = softened_kl(x, t, 4.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.autograd.grad(loss, [x, t], allow_unused=True)[1] is None
