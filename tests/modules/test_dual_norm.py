"""Two sets of batch norms in one network."""

import copy

import pytest
import torch
from torch import nn

from ssl_zoo.modules.batch_norm import BatchNorm, convert
from ssl_zoo.modules.dual_norm import DualNorm

ROWS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 5


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), nn.BatchNorm1d(4))


def test_the_twins_normalise_inside_and_the_originals_outside() -> None:
    net = network()
    dual = DualNorm(net, momentum=0.5)
    names = list(net.state_dict())
    with dual.inside(net):
        net(ROWS)
    assert list(net.state_dict()) == names and [twin.momentum for twin in dual.twins] == [0.5, 0.5]
    assert net[2].num_batches_tracked == 0 and [int(twin.num_batches_tracked) for twin in dual.twins] == [1, 1]
    mean = net[0](ROWS).mean(0)
    torch.testing.assert_close(dual.twins[0].running_mean, 0.5 * mean)
    net(ROWS)
    torch.testing.assert_close(net[1][0].running_mean, 0.1 * mean)


def test_the_originals_come_back_after_an_error() -> None:
    net = network()
    dual, norms = DualNorm(net), [net[1][0], net[2]]
    with pytest.raises(RuntimeError), dual.inside(net):
        net(ROWS[:, :2])
    assert [net[1][0], net[2]] == norms


def test_weights_learn_apart_and_both_are_converted() -> None:
    model = nn.Module()
    model.net = network()
    model.dual = DualNorm(model.net)
    convert(model, group=4)
    with model.dual.inside(model.net):
        model.net(ROWS).square().sum().backward()
    assert model.net[2].weight.grad is None and model.dual.twins[1].weight.grad is not None
    assert all(isinstance(twin, BatchNorm) and twin.group == 4 for twin in model.dual.twins)


def test_divided_rows_are_normalised_as_if_alone() -> None:
    net, twins = network(), torch.arange(8) % 2 == 0
    dual, alone = DualNorm(net), [copy.deepcopy(net) for _ in range(2)]
    with torch.no_grad():
        dual.twins[1].weight.fill_(3.0)
        alone[0][2].weight.fill_(3.0)
    out = dual.divided(net, ROWS, twins)
    for part, own, norms in zip(alone, (twins, ~twins), (dual.twins, [net[1][0], net[2]]), strict=True):
        torch.testing.assert_close(out[own], part(ROWS[own]), rtol=0, atol=0)
        for norm, wanted in zip(norms, (part[1][0], part[2]), strict=True):
            assert torch.equal(norm.running_mean, wanted.running_mean) and norm.num_batches_tracked == 1
            assert torch.equal(norm.running_var, wanted.running_var)
    out.square().sum().backward()
    assert all(norm.weight.grad is not None for norm in (*dual.twins, net[1][0], net[2]))


def test_groups_of_rows_are_counted_within_one_part() -> None:
    model = nn.Module()
    model.net = nn.Sequential(nn.BatchNorm1d(3, affine=False))
    model.dual = DualNorm(model.net)
    convert(model, group=2)
    out = model.dual.divided(model.net, ROWS, torch.arange(8) % 2 == 0)
    # Rows 0 and 2, 4 and 6 are the groups of the one, 1 and 3, 5 and 7 those of the other.
    for pair in ([0, 2], [4, 6], [1, 3], [5, 7]):
        torch.testing.assert_close(out[pair].sum(0), torch.zeros(3), rtol=0, atol=1e-5)
