"""DINOv2: its parts, heads and balances, on one process and on two."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from ssl_zoo import config
from ssl_zoo.distributed import world_size
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.optim.schedules import Progress
from tests.helpers import tiny_batch, tiny_method, train_step
from tests.pool import GlooPool

SIZES = [16, 16, 8]  # two global crops and a local one
CENTRED = ["method.centring=centre", "method.patch_projector=null"]


def test_the_loss_is_its_parts():
    method = tiny_method("dinov2", ["method.koleo_weight=0.5", "method.patch_weight=2", "method.class_weight=3"])
    out = method.training_loss(tiny_batch(SIZES))
    wanted = 3 * (out["global"] + out["local"]) + 0.5 * out["koleo"] + 2 * out["patch"]
    torch.testing.assert_close(out["loss"], wanted)


def test_without_local_crops_two_pairs_are_divided_by_three():
    method = tiny_method("dinov2")
    batch = tiny_batch(SIZES[:2])
    with torch.no_grad():
        method.projector.last_layer.weight_v.copy_(torch.ones_like(method.projector.last_layer.weight_v))
    out = method.training_loss(batch)  # all scores are equal: each pair costs ln K
    assert "local" not in out
    assert out["global"].item() == pytest.approx(2 / 3 * torch.tensor(8.0).log().item(), rel=1e-5)


def equal_scores(method: Any) -> None:
    with torch.no_grad():
        for head in (method.projector, method.patch_projector):
            head.last_layer.weight_v.copy_(torch.ones_like(head.last_layer.weight_v))


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:2]])
def test_the_uniform_loss_is_that_of_equal_scores(sizes):
    method = tiny_method("dinov2", ["method.koleo_weight=0.5", "method.patch_weight=2", "method.class_weight=3"])
    equal_scores(method)
    out = method.training_loss(tiny_batch(sizes))
    assert out["loss"].item() == pytest.approx(out["uniform_loss"].item(), rel=1e-5)


def test_the_large_recipe_has_the_authors_steps():
    cfg = config.load(["experiment=dinov2_imagenet_vitl16_short"])
    steps = 1_281_167 // cfg.data.batch_size  # 1250 in their epoch
    assert cfg.trainer.max_epochs * steps == 100 * 1250
    schedule = instantiate(cfg.method.teacher_temperature)
    assert [schedule(Progress(step, 125_000, steps)) for step in (0, 37_499, 37_500)] == pytest.approx(
        [0.04, 0.07, 0.07]
    )
    values = instantiate(cfg.optimizer["values"], _convert_="all")
    assert values["lr"].warmup(Progress(0, 125_000, steps)) == 10 * 1250
    assert instantiate(cfg.optimizer.rules.last_layers.lr).epochs * steps == 1250


def test_patches_have_a_head_of_their_own_or_not():
    own, shared = tiny_method("dinov2"), tiny_method("dinov2", ["method.patch_projector=null"])
    assert any(name.startswith("teacher_patch_projector") for name in own.state_dict())
    assert not any("patch_projector" in name for name in shared.state_dict())
    assert not own.targets.centres and len(tiny_method("dinov2", CENTRED).targets.centres) == 2


def steps(extra: list[str]) -> dict[str, Any]:
    method = tiny_method("dinov2", extra, torch.float64)
    outs = [train_step(method, tiny_batch(SIZES, step, torch.float64)) for step in range(2)]
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
    centres = [centre.value for centre in method.targets.centres]
    return {"losses": losses / world_size(), "centres": centres, "weights": list(method.state_dict().values())}


def test_centred_on_two_processes_with_unequal_numbers_of_hidden_patches(pool: GlooPool):
    one = steps(CENTRED)
    for two in pool.run(steps, CENTRED):
        torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_koleo_among_the_rows_of_a_rank_is_another_loss(pool: GlooPool):
    one = steps(["method.scope=rank"])
    torch.testing.assert_close(one, steps([]))
    for two in pool.run(steps, ["method.scope=rank"]):
        assert not torch.allclose(two["losses"], one["losses"])


def large() -> Any:
    tiny = ["data.image_size=16", "backbone.embed_dim=16", "backbone.depth=2", "backbone.num_heads=2"]
    return tiny_method("dinov2", ["scale=large", "backbone=vit_mini", *tiny], tiny=False)


def test_the_recipe_for_large_images_holds_the_last_layers_and_slows_the_patches():
    method = large()
    groups = {group["name"]: group for group in method.bound.optimizer.param_groups}
    for step, held in ((7, True), (8, False)):  # the authors' first epoch is two of ImageNet
        method.bound.apply(Progress(step, 800, 4))
        assert (groups["last_layers"]["lr"] == 0) == held
    patches = next(group for name, group in groups.items() if name.startswith("patches"))
    assert patches["lr"] == pytest.approx(0.2 * 0.9**3 * groups["default"]["lr"])  # two blocks and the last behind
    assert next(g for n, g in groups.items() if n.startswith("patch_bias"))["weight_decay"] == 0
    assert method.clip == Clip("per_module", 3.0)


@pytest.mark.parametrize("batch", [256, 2048])
def test_the_rates_of_large_images_scale_with_the_root_of_the_batch_and_end_at_min_lr(batch):
    method = large()
    method.bind(batch)
    for step, rate in ((2000, 0.004 * (batch / 1024) ** 0.5), (10_000, 1e-6)):  # the end of the warm-up, and of the run
        method.bound.apply(Progress(step, 10_000, 100))
        found = {group["name"]: group["lr"] for group in method.bound.optimizer.param_groups}
        assert (found["default"], found["last_layers"]) == pytest.approx((rate, rate))
        patches = next(lr for name, lr in found.items() if name.startswith("patches"))
        assert patches == pytest.approx(0.2 * 0.9**3 * rate)  # their lr_multiplier is one of the end too


def test_all_blocks_of_large_images_have_the_same_stochastic_depth_and_the_teacher_none():
    method = large()
    rates = [[part.drop_prob for part in net.modules() if hasattr(part, "drop_prob")]
             for net in (method.backbone, method.teacher)]  # fmt: skip
    assert rates == [[0.3] * 4, [0.0] * 4]
