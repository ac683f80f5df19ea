"""SwAV's prototypes."""

import torch

from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.swav import SwAV
from tests.golden.harness import Identity, no_recipe


def test_prototypes_of_weight_norm_are_divided_in_every_pass_and_left_as_they_are() -> None:
    info = image_info(samples=16, classes=4, image_size=8, channels=3, batch_size=4)
    method = SwAV(Identity(3), no_recipe(), info, Identity, prototypes=5, weight_norm=True)
    before = method.prototypes.weight_v.detach().clone()
    method.before_step()
    assert torch.equal(method.prototypes.weight_v, before)
    z = torch.eye(3)
    torch.testing.assert_close(method.prototypes(z), torch.nn.functional.normalize(before, dim=1).T)
    assert [name for name, p in method.prototypes.named_parameters() if p.requires_grad] == ["weight_v"]
