"""CLAE: the attack raises the loss, the clean network does not know of it, and every base loss trains."""

from typing import Any

import pytest
import torch

from ssl_zoo.methods.clae import CLAE
from tests.golden.harness import Identity, no_recipe
from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool
from tests.test_methods import EXACT


def test_the_attack_moves_every_pixel_by_one_step_and_raises_the_loss() -> None:
    method, batch = tiny_method("clae", dtype=EXACT), tiny_batch(view_sizes("clae"), dtype=EXACT)
    view = batch.views[0]
    moved = method.attack(view)  # type: ignore[operator]
    step = (moved - view).abs()
    assert step.max().item() == pytest.approx(0.03) and ((step < 1e-12) | (step > 0.03 - 1e-12)).all()
    with torch.no_grad():
        anchor, still, after = (method.encode_adversarial(x)[1] for x in (view, view, moved))  # type: ignore[operator]
        before, now = (method.contrast(anchor, z, 0.5) for z in (still, after))  # type: ignore[operator]
    assert now > before


def test_the_attack_leaves_no_gradients_and_no_trace_in_the_clean_statistics() -> None:
    method, batch = tiny_method("clae"), tiny_batch(view_sizes("clae"))
    clean = {name: buffer.clone() for name, buffer in method.backbone.named_buffers()}
    method.attack(batch.views[0])  # type: ignore[operator]
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(buffer, clean[name]) for name, buffer in method.backbone.named_buffers())
    tracked = [int(twin.num_batches_tracked) for twin in method.adversarial.twins]  # type: ignore[union-attr]
    assert tracked and set(tracked) == {2}  # the anchor, and the view that is attacked


def test_what_is_evaluated_has_the_clean_norms_and_no_others() -> None:
    method, plain = tiny_method("clae"), tiny_method("simclr")
    assert method.encoder is method.backbone
    assert list(method.backbone.state_dict()) == list(plain.backbone.state_dict())


def steps(extra: list[str]) -> dict[str, Any]:
    method, sizes = tiny_method("clae", extra, EXACT), view_sizes("clae")
    outs = [train_step(method, tiny_batch(sizes, step, EXACT)) for step in range(2)]
    tensors = {name: value for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    return {"gradients": outs[0]["gradients"], "state": tensors}


@pytest.mark.parametrize("extra", [["method.base=plain", "method.repeat_anchor=true"], ["method.base=uel"]])
@pytest.mark.slow
def test_two_processes_equal_one_for_the_other_losses(extra: list[str], pool: GlooPool) -> None:
    one = steps(extra)
    for two in pool.run(steps, extra):
        for kind, values in one.items():
            for name, value in values.items():
                torch.testing.assert_close(two[kind][name], value, rtol=1e-9, atol=1e-9, msg=f"{kind} {name}")


def test_in_chunks_it_is_the_same() -> None:
    one, chunks = (steps(["batch_norm.group=2", f"method.grad_cache={n}"]) for n in (1, 2))
    for kind, values in one.items():
        for name, value in values.items():
            torch.testing.assert_close(chunks[kind][name], value, rtol=1e-9, atol=1e-9, msg=f"{kind} {name}")


def test_an_unknown_base_is_named() -> None:
    with pytest.raises(ValueError, match="method.base=simlcr: did you mean 'simclr'"):
        CLAE(Identity(2), no_recipe(), Identity, base="simlcr")  # type: ignore[arg-type]
