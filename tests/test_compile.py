"""trainer.compile=true: the same names, and the same numbers up to rounding."""

import pytest
import torch

from ssl_zoo.worker import prepare
from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["byol", "simclr"])
def test_compiled_networks_train_like_eager_ones(name):
    found = {}
    for compiled in (False, True):
        method = tiny_method(name)
        names = list(method.state_dict())
        prepare(method, torch.device("cpu"), compiled)
        steps = [train_step(method, tiny_batch(view_sizes(name), step)) for step in range(2)]
        assert list(method.state_dict()) == names
        found[compiled] = [step["loss"] for step in steps], method.state_dict()
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-4, atol=1e-4)
    for key, value in found[False][1].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[True][1][key], value, rtol=1e-3, atol=1e-4, msg=key)
