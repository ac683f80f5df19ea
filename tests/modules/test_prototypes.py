"""Prototypes are a linear layer that can be put back on the sphere."""

import torch

from ssl_zoo.modules.prototypes import Prototypes


def test_scores_are_inner_products():
    prototypes = Prototypes(2, 3)
    with torch.no_grad():
        prototypes.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    assert prototypes(torch.tensor([[3.0, 4.0]])).tolist() == [[3.0, 8.0, 7.0]]
    assert [name for name, _ in prototypes.named_parameters()] == ["weight"] and prototypes.out_features == 3


def test_normalize_keeps_directions_and_the_same_parameter():
    prototypes = Prototypes(2, 2)
    weight = prototypes.weight
    with torch.no_grad():
        weight.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
    prototypes.normalize_()
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    assert prototypes.weight is weight and weight.requires_grad and weight.grad is None


def test_scores_stay_float32_under_autocast():
    prototypes, z = Prototypes(4, 3), torch.nn.functional.normalize(torch.randn(2, 4), dim=1)
    wanted = prototypes(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prototypes(z), wanted)
        assert prototypes(z.bfloat16()).dtype == torch.float32
