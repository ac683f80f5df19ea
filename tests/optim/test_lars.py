import copy
import math

import pytest
import torch

from ssl_zoo.optim.lars import LARC, LARS


def tensor(*numbers):
    return torch.nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


def run(optimizer, p, *grads, rates=None):
    for i, grad in enumerate(grads):
        if rates:
            optimizer.param_groups[0]["lr"] = rates[i]
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
    return p.tolist()


def test_one_step_by_hand():
    # |w| = 5, g + wd w = (0.3, 0.4) + 0.1 (3, 4) = (0.6, 0.8) of norm 1: trust 0.01 * 5 / 1 = 0.05, step 2 * 0.05.
    p = tensor(3.0, 4.0)
    assert run(LARS([p], lr=2.0, weight_decay=0.1, trust=0.01), p, [0.3, 0.4]) == pytest.approx([2.94, 3.92])


def test_larc_adds_the_norms_by_hand():
    # trust 0.01 * 5 / (|g| 0.5 + 0.1 * 5) = 0.05: here the norms add up to the same number as above.
    p = tensor(3.0, 4.0)
    optimizer = LARC([p], lr=2.0, weight_decay=0.1, trust=0.01, eps=0.0)
    assert run(optimizer, p, [0.3, 0.4]) == pytest.approx([2.94, 3.92])
    # With the gradient turned around g + wd w is 0, but LARC's ratio stays.
    p = tensor(3.0, 4.0)
    optimizer = LARC([p], lr=2.0, weight_decay=0.0, trust=0.01, eps=0.0)
    assert run(optimizer, p, [0.6, -0.8]) == pytest.approx([3 - 2 * 0.05 * 0.6, 4 + 2 * 0.05 * 0.8])


def test_larc_clip_never_exceeds_the_rate():
    p = tensor(30.0, 40.0)
    assert run(LARC([p], lr=0.1, trust=1.0, clip=True), p, [3.0, 4.0]) == pytest.approx([29.7, 39.6])
    p = tensor(30.0, 40.0)
    assert run(LARC([p], lr=0.0, trust=1.0, clip=True), p, [3.0, 4.0]) == [30.0, 40.0]


def test_larc_looks_ahead_as_torch_does_around_scaled_gradients():
    # Two steps of t g = (0.3, 0.4), t = 1 by the clip: 1.9 of it, then 0.9 * 1.9 + 1 = 2.71 of it.
    p = tensor(30.0, 40.0)
    optimizer = LARC([p], lr=0.1, trust=1.0, clip=True, nesterov=True)
    assert run(optimizer, p, [3.0, 4.0], [3.0, 4.0]) == pytest.approx([30 - 4.61 * 0.3, 40 - 4.61 * 0.4])


def test_larc_goes_on_from_a_checkpoint_that_does_not_know_of_looking_ahead():
    p, q = tensor(3.0, 4.0), tensor(3.0, 4.0)
    one, two = LARC([p], lr=0.1), LARC([q], lr=0.1)
    run(one, p, [1.0, 2.0])
    kept = copy.deepcopy(one.state_dict())
    del kept["param_groups"][0]["nesterov"]
    with torch.no_grad():
        q.copy_(p)
    two.load_state_dict(kept)
    assert run(one, p, [0.5, -1.0]) == run(two, q, [0.5, -1.0])


@pytest.mark.parametrize("optimizer", [LARS, LARC])
def test_zero_weights_take_the_plain_gradient(optimizer):
    p = tensor(0.0, 0.0)
    assert run(optimizer([p], lr=0.5, weight_decay=0.1), p, [1.0, 2.0]) == pytest.approx([-0.5, -1.0])


@pytest.mark.parametrize("optimizer", [LARS, LARC])
def test_group_that_does_not_adapt_is_torch_sgd(optimizer):
    p, q = tensor(1.0, -2.0), tensor(1.0, -2.0)
    grads = [[0.3, 0.1], [0.2, -0.5], [0.0, 0.7]]
    got = run(optimizer([p], lr=0.1, weight_decay=0.01, adapt=False), p, *grads)
    want = run(torch.optim.SGD([q], lr=0.1, momentum=0.9, weight_decay=0.01), q, *grads)
    assert got == pytest.approx(want, rel=1e-12)


def test_buffers_differ_only_where_the_rate_changes():
    def end(buffer, rates):
        p = tensor(3.0, 4.0)
        return run(LARS([p], lr=1.0, buffer=buffer, adapt=False), p, [1.0, 0.0], [1.0, 0.0], rates=rates)[0]

    assert end("step", [1.0, 1.0]) == pytest.approx(end("scaled", [1.0, 1.0])) == pytest.approx(3 - 1 - 1.9)
    # Rate 1 then 0: what is in SimCLR's buffer still moves the weights.
    assert end("step", [1.0, 0.0]) == pytest.approx(3 - 1 - 0.9)
    assert end("scaled", [1.0, 0.0]) == pytest.approx(3 - 1)


def test_parameters_without_gradient_are_left_alone():
    p, q = tensor(3.0, 4.0), tensor(1.0)
    optimizer = LARS([p, q], lr=1.0, weight_decay=0.1)
    run(optimizer, p, [1.0, 0.0])
    assert q.tolist() == [1.0]
    assert q not in optimizer.state


def test_momentum_survives_the_checkpoint():
    p, q = tensor(3.0, 4.0), tensor(3.0, 4.0)
    one, two = LARS([p], lr=0.1), LARS([q], lr=0.1)
    run(one, p, [1.0, 2.0])
    with torch.no_grad():
        q.copy_(p)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert run(one, p, [0.5, -1.0]) == run(two, q, [0.5, -1.0])


def test_trust_is_the_same_for_any_scale_of_the_gradient():
    ends = []
    for scale in (1.0, 1000.0):
        p = tensor(3.0, 4.0)
        ends.append(run(LARS([p], lr=1.0), p, [scale * 0.1, scale * 0.2]))
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    assert ends[0][0] == pytest.approx(3 - 0.001 * 5 / math.sqrt(5))


def test_unknown_options_are_told():
    with pytest.raises(ValueError, match="buffer=steps: did you mean 'step'"):
        LARS([tensor(1.0)], lr=1.0, buffer="steps")
    with pytest.raises(ValueError, match="nesterov of LARS needs buffer=step or buffer=raw"):
        LARS([tensor(1.0)], lr=1.0, nesterov=True)
