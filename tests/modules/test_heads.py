"""Heads have the authors' layers, by number and by name."""

import copy

import pytest
import torch
from torch import nn

from ssl_zoo.modules.heads import MLP


def kinds(head: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in head]


def shapes(head: nn.Module) -> dict[str, list[int]]:
    return {name: list(parameter.shape) for name, parameter in head.named_parameters()}


def test_byol_projector_is_the_default():
    head = MLP(6, [8], 4)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"] and head.out_features == 4
    assert shapes(head) == {"0.weight": [8, 6], "0.bias": [8], "1.weight": [8], "1.bias": [8], "3.weight": [4, 8]}


def test_simsiam_projector_has_the_authors_names_and_a_frozen_bias():
    head = MLP(6, [6, -1], 5, bias=False, last_norm="batch_no_affine", last_bias="frozen")
    assert list(shapes(head)) == ["0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias", "6.weight"]
    assert "6.bias" in head.state_dict() and list(head[7].state_dict()) == [
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]


def test_no_hidden_layer_is_a_linear_head():
    head = MLP(6, [], 3, last_bias=True)
    assert kinds(head) == ["Linear"] and shapes(head) == {"0.weight": [3, 6], "0.bias": [3]}


def test_minus_one_is_the_width_of_the_input():
    assert shapes(MLP(6, [-1], -1, norm="none")) == {"0.weight": [6, 6], "0.bias": [6], "2.weight": [6, 6]}


def test_layer_norm_and_gelu():
    assert kinds(MLP(6, [4], 3, norm="layer", activation="gelu", last_norm="layer")) == [
        "Linear",
        "LayerNorm",
        "GELU",
        "Linear",
        "LayerNorm",
    ]


def test_batch_norm_without_offset_equals_one_with_offset_zero():
    torch.manual_seed(0)
    head = MLP(6, [-1], 4, bias=False, last_norm="batch_no_offset")
    assert list(shapes(head))[-1] == "4.weight"  # a scale, no offset
    assert "4.bias" not in head.state_dict()
    x = torch.randn(5, 6)
    out = copy.deepcopy(head)(x)
    features = nn.Sequential(*list(head)[:4])(x)
    wanted = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(out, wanted)
    assert head.double().eval()(x.double()).dtype == torch.float64


def test_two_layers_by_hand():
    head = MLP(2, [2], 1, norm="none", bias=False)
    with torch.no_grad():
        head[0].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        head[2].weight.copy_(torch.tensor([[2.0, 3.0]]))
    assert head(torch.tensor([[5.0, 1.0], [1.0, 5.0]])).tolist() == [[8.0], [12.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "batsh"}, "norm=batsh: did you mean 'batch'?"),
        ({"last_norm": "batch_no_afine"}, "last_norm=batch_no_afine: did you mean 'batch_no_affine'?"),
        ({"activation": "relu6"}, "activation=relu6: did you mean 'relu'?"),
        ({"last_bias": "frosen"}, "last_bias=frosen: did you mean 'frozen'?"),
        ({"hidden": [4, 0]}, "widths must be positive, or -1 for the input's; got [4, 0, 3]"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError) as error:
        MLP(**{"in_features": 6, "hidden": [4], "out_features": 3, **arguments})
    assert str(error.value) == f"MLP: {message}"


def test_a_slice_of_a_head_shares_its_layers():
    head = MLP(6, [5], 4)
    assert head[:3][0] is head[0] and kinds(head[1:3]) == ["BatchNorm1d", "ReLU"] and head[-1] is head[3]


def test_a_predictor_of_another_width_is_refused_with_both_numbers():
    from ssl_zoo.modules.heads import same_width

    with pytest.raises(ValueError, match=r"method.predictor.out_features=4 differs from the projector's 8"):
        same_width(MLP(16, [], 8), MLP(8, [], 4))
