"""``--device``: what is made without a word lies there, whatever the code under test says of generators."""

import numpy as np
import torch

from tests.golden.device import OnDevice


def test_new_tensors_lie_on_the_device() -> None:
    before = torch.zeros(3).device
    generator = torch.Generator().manual_seed(0)
    with OnDevice("meta"):
        made = [torch.as_tensor(np.ones(3)), torch.arange(3), torch.randn(3, generator=generator),
                torch.empty(3, device=None), torch.nn.Linear(2, 2).weight]  # fmt: skip
        assert [x.device.type for x in made] == ["meta"] * 5
        here = torch.zeros(3, device="cpu")
        assert here.device.type == "cpu" and (np.asarray(here) == 0).all() and (here.numpy() == 0).all()
    assert torch.zeros(3).device == before
