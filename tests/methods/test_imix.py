"""i-Mix: mixed identities, on any number of processes, and without mixing the methods that it improves."""

from typing import Any

import pytest
import torch

from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool
from tests.test_methods import EXACT

OPTIONS = [
    ("imix", ["method.mixer.kind=icutmix", "method.symmetric=true"]),
    ("imix", ["method.mixer.kind=none", "method.mixer.inputmix=2"]),
    ("imix_moco", ["method.mixer.kind=icutmix", "method.mixer.inputmix=1"]),
    ("imix_moco", ["method.symmetric=true"]),
    ("imix_byol", ["method.mixer.kind=icutmix", "method.symmetric=true"]),
]


def steps(name: str, extra: list[str]) -> dict[str, Any]:
    method, sizes = tiny_method(name, extra, EXACT), view_sizes(name)
    outs = [train_step(method, tiny_batch(sizes, step, EXACT)) for step in range(2)]
    tensors = {key: value for key, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    return {"gradients": outs[0]["gradients"], "state": tensors}


@pytest.mark.parametrize(
    ("name", "extra"), [OPTIONS[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in OPTIONS[1:])]
)
@pytest.mark.slow
def test_two_processes_equal_one(name: str, extra: list[str], pool: GlooPool) -> None:
    one = steps(name, extra)
    for two in pool.run(steps, name, extra):
        for kind, values in one.items():
            for key, value in values.items():
                torch.testing.assert_close(two[kind][key], value, rtol=1e-10, atol=1e-10, msg=f"{kind} {key}")


def test_on_moco_without_mixing_it_is_moco() -> None:
    heads = ["method.projector.norm=none", "method.projector.out_features=8", "method.temperature=0.2"]
    mixed = tiny_method("imix_moco", ["method.mixer.kind=none", "batch_norm.group=2", *heads])
    plain = tiny_method("moco_v2", ["batch_norm.group=2", *heads])
    plain.load_state_dict(mixed.state_dict())
    batch = tiny_batch(view_sizes("moco_v2"))
    losses = [method.training_loss(batch)["loss"].item() for method in (mixed, plain)]
    assert losses[0] == losses[1]


def test_in_chunks_it_is_the_same() -> None:
    one, chunks = (steps("imix", ["batch_norm.group=2", f"method.grad_cache={n}"]) for n in (1, 2))
    for kind, values in one.items():
        for key, value in values.items():
            torch.testing.assert_close(chunks[kind][key], value, rtol=1e-10, atol=1e-10, msg=f"{kind} {key}")


def test_the_probe_is_not_given_features_of_mixed_images() -> None:
    outs = {name: tiny_method(name).training_loss(tiny_batch(view_sizes(name))) for name in ("imix_moco", "imix_byol")}
    assert all("features" not in out for out in outs.values())
    method, batch = tiny_method("imix"), tiny_batch(view_sizes("imix"))
    features = method.training_loss(batch)["features"]
    assert features.shape == (8, method.backbone.out_features)
