"""DINO's head: unit bottleneck, weight-normalised last layer, names of the authors."""

import copy

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.modules.dino_head import DINOHead, WeightNormLinear


def head(**changes: object) -> DINOHead:
    torch.manual_seed(0)
    return DINOHead(6, **{"hidden": [8, 8], "bottleneck": 4, "out_features": 5, **changes})  # type: ignore[arg-type]


def test_a_row_of_the_last_layer_is_its_direction_times_its_norm() -> None:
    layer = WeightNormLinear(2, 2)
    with torch.no_grad():
        layer.weight_v.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
        layer.weight_g.copy_(torch.tensor([[1.0], [5.0]]))
    torch.testing.assert_close(layer(torch.tensor([[1.0, 1.0]])), torch.tensor([[1.4, -5.0]]))


def test_scores_are_cosines_as_long_as_the_norms_are_fixed() -> None:
    net, x = head(), torch.randn(7, 6)
    torch.testing.assert_close(net.embed(x).norm(dim=1), torch.ones(7))
    torch.testing.assert_close(net(x), F.cosine_similarity(net.mlp(x)[:, None], net.last_layer.weight_v[None], dim=2))
    assert net.out_features == 5 and net(x[:, None].expand(7, 3, 6)).shape == (7, 3, 5)


@pytest.mark.parametrize("fixed", [True, False])
def test_names_and_what_is_trained(fixed: bool) -> None:
    net = head(norm="batch", norm_last_layer=fixed)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    layers = {f"mlp.{i}.{kind}" for i in (0, 1, 3, 4, 6) for kind in ("weight", "bias")}
    assert trained == layers | {"last_layer.weight_v"} | (set() if fixed else {"last_layer.weight_g"})


def test_it_starts_as_the_authors() -> None:
    net = DINOHead(64, [64], 64, 4096)
    weights, biases = net.mlp[0].weight, net.mlp[0].bias
    assert weights.std().item() == pytest.approx(0.02, rel=0.05) and not biases.any()
    # The last layer is built after that start: torch's own, uniform within 1 / sqrt(64).
    assert net.last_layer.weight_v.abs().max().item() == pytest.approx(1 / 8, rel=0.01)


def test_it_is_copied_after_a_forward_pass() -> None:
    net, x = head(), torch.randn(3, 6)
    net(x).sum().backward()
    assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_scores_stay_float32_under_autocast() -> None:
    net, z = head(), F.normalize(torch.randn(3, 4), dim=1)
    wanted = net.last_layer(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net.last_layer(z), wanted) and net(torch.randn(3, 6)).dtype == torch.float32
