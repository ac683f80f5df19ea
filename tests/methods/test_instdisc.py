"""InstDisc: what is scored against which rows, and the proximal term."""

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo import build
from tests.helpers import ROWS, info, tiny_batch, tiny_config, tiny_method, train_step


@pytest.mark.parametrize("loss", ["nce", "sampled", "full"])
def test_every_loss_steps_and_writes_the_rows_of_the_batch_only(loss):
    method = tiny_method("instdisc", [f"method.loss={loss}"])
    batch = tiny_batch([16])
    before = method.bank.keys.clone()
    train_step(method, batch)
    moved = (method.bank.keys != before).any(1).nonzero().flatten()
    assert sorted(moved.tolist()) == sorted(batch.index.tolist())


def test_sampled_with_every_row_drawn_is_near_the_full_softmax():
    full, sampled = (tiny_method("instdisc", [f"method.loss={name}"], torch.float64) for name in ("full", "sampled"))
    sampled.negatives = 50_000  # each of 64 rows 781 times, a constant factor of the denominator
    values = [method.training_loss(tiny_batch([16], dtype=torch.float64))["loss"].item() for method in (full, sampled)]
    assert values[1] - torch.log(torch.tensor(50_000 / 64)).item() == pytest.approx(values[0], abs=0.02)


def test_the_proximal_term_is_the_squared_distance_to_the_own_row():
    plain, drawn = tiny_method("instdisc"), tiny_method("instdisc", ["method.proximal=30"])
    batch = tiny_batch([16])
    z = F.normalize(plain.projector(plain.backbone(batch.views[0])), dim=1)
    apart = (z - plain.bank.keys[batch.index]).square().sum(1).mean()
    gap = drawn.training_loss(batch)["loss"] - plain.training_loss(batch)["loss"]
    assert gap.item() == pytest.approx(30 * apart.item(), rel=1e-4)


def test_a_half_bank_trains_and_is_saved_as_such():
    method = build.build_method(tiny_config("instdisc", ["method.bank_dtype=bfloat16", "method.loss=nce"]), info())
    method.bind(ROWS)
    assert train_step(method, tiny_batch([16]))["loss"].isfinite()
    assert method.state_dict()["bank.keys"].dtype == torch.bfloat16
    assert len(method.state_dict()["bank.keys"]) == 64 > ROWS


def test_embeddings_are_evaluated_where_told():
    method, view = tiny_method("instdisc", ["method.evaluate_head=true"]).eval(), tiny_batch([16]).views[0]
    h = method.backbone(view)
    torch.testing.assert_close(method.embed(view), F.normalize(method.projector(h), dim=1))
    assert torch.equal(tiny_method("instdisc").eval().embed(view), h)
