"""The networks of BYOL's authors: where their zeros lie, and what they share with torchvision's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.backbones.image import resnet18
from ssl_zoo.backbones.image.same_padding import SameConv2d, SameMaxPool2d, resnet18_same, resnet50_same


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "sides"),
    [(7, 2, 224, (2, 3)), (3, 2, 56, (0, 1)), (3, 2, 7, (1, 1)), (1, 2, 56, (0, 0)), (3, 1, 56, (1, 1))],
)
def test_zeros_lie_as_tensorflow_lays_them(kernel: int, stride: int, side: int, sides: tuple[int, int]) -> None:
    conv, x = SameConv2d(2, 3, kernel, stride, padding=kernel // 2), torch.randn(1, 2, side, side)
    wanted = F.conv2d(F.pad(x, [*sides, *sides]), conv.weight, conv.bias, stride)
    assert torch.equal(conv(x), wanted) and wanted.shape[-1] == -(-side // stride)
    around = [side % 2, 1] * 2
    assert torch.equal(SameMaxPool2d(3, 2, 1)(x.relu()), F.max_pool2d(F.pad(x.relu(), around), 3, 2))


@pytest.mark.parametrize(("factory", "features"), [(resnet18_same, 512), (resnet50_same, 2048)])
def test_every_group_projects_its_shortcut(factory, features: int) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        backbone = factory(image_size=64)
        assert backbone(torch.empty(2, 3, 64, 64)).shape == (2, features)
        assert backbone.forward_maps(torch.empty(2, 3, 64, 64))[-1].shape == (2, features, 2, 2)
    firsts = [stage[0].downsample for stage in (backbone.net.layer1, backbone.net.layer2, backbone.net.layer4)]
    assert all(isinstance(shortcut, nn.Sequential) for shortcut in firsts)
    assert all(type(m) is SameConv2d for m in backbone.net.modules() if isinstance(m, nn.Conv2d) and m.stride[0] == 2)


def test_with_odd_sides_it_is_torchvisions_network_but_for_the_projection() -> None:
    ours, theirs = resnet18_same(image_size=33), resnet18(image_size=33)
    extra = set(ours.net.state_dict()) - set(theirs.net.state_dict())
    assert {name.split(".")[:2] != ["layer1", "0"] for name in extra} == {False}
    shared = {name: value for name, value in ours.net.state_dict().items() if name not in extra}
    theirs.net.load_state_dict(shared)
    for net in (ours.net, theirs.net):
        net.layer1[0].downsample = None
    x = torch.randn(2, 3, 65, 65)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
