"""DINO: what is evaluated, what is frozen when, temperatures, centring, and the teacher in half precision."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.methods.dino import DINO
from ssl_zoo.optim.schedules import Constant, Progress, Warmup
from ssl_zoo.signatures import views_problem
from tests.helpers import tiny_batch, tiny_config, tiny_method, train_step, view_sizes

VIT = ["backbone=vit_mini", "backbone.embed_dim=16", "backbone.depth=2", "backbone.num_heads=2"]


def test_the_teacher_is_what_is_evaluated() -> None:
    method = tiny_method("dino")
    assert method.encoder is method.teacher.net and method.encoder is not method.backbone
    batch = tiny_batch(view_sizes("dino"))
    features = method.training_loss(batch)["features"]
    torch.testing.assert_close(features, method.teacher(torch.cat(batch.views[:2]))[: len(features)])


def test_the_student_is_evaluated_where_asked() -> None:
    method = tiny_method("dino", ["method.evaluate_student=true"])
    assert method.encoder is method.backbone
    batch = tiny_batch(view_sizes("dino"))
    features = method.training_loss(batch)["features"]
    torch.testing.assert_close(features, method.backbone(torch.cat(batch.views[:2]))[: len(features)])


def test_the_last_layer_waits_for_the_end_of_the_first_epoch() -> None:
    method, sizes = tiny_method("dino"), view_sizes("dino")
    method.progress = Progress(step=1, total=12, steps_per_epoch=3)
    v, layer = method.projector.last_layer.weight_v, method.projector.mlp[0].weight
    moved = []
    for step in range(3):
        before = v.detach().clone(), layer.detach().clone()
        train_step(method, tiny_batch(sizes, step))
        moved.append((not torch.equal(v, before[0]), not torch.equal(layer, before[1])))
    assert moved == [(False, True), (False, True), (True, True)]  # steps 1 and 2 of epoch 0, then epoch 1


def test_the_temperature_of_the_teacher_changes_between_epochs_only() -> None:
    method = tiny_method("dino")
    rising = Warmup(start=0.04, after=Constant(0.07), warmup_epochs=3, style="linspace", per_epoch=True)
    method.teacher_temperature = rising
    scores, seen = torch.arange(8.0)[None], []
    for step in range(10):
        method.progress = Progress(step, total=20, steps_per_epoch=2)
        seen.append(1 / method.target(scores)[0].log().diff()[-1].item())
    wanted = [0.04, 0.055, 0.07, 0.07, 0.07]
    assert seen == pytest.approx([t for t in wanted for _ in range(2)], rel=1e-4)


def test_a_batch_is_centred_by_the_batches_before_it() -> None:
    method, sizes = tiny_method("dino"), view_sizes("dino")
    method.centre.momentum = 0.0
    batch = tiny_batch(sizes)
    t = method.teacher_projector(method.teacher(torch.cat(batch.views[:2])))
    loss = method.training_loss(batch)["loss"]
    assert not method.centre.value.any()
    loss.backward()
    method.on_after_backward()
    torch.testing.assert_close(method.centre.value, t.mean(0, keepdim=True))
    assert method.training_loss(batch)["loss"] != loss


def test_without_centring_the_centre_stays_where_it_is() -> None:
    method, sizes = tiny_method("dino", ["method.centring=false"]), view_sizes("dino")
    train_step(method, tiny_batch(sizes))
    assert not method.centre.value.any()


@pytest.mark.parametrize("backbone", [[], VIT], ids=["resnet", "vit"])
def test_in_half_precision_a_slow_teacher_still_moves(backbone: list[str]) -> None:
    """0.9999 of a bfloat16 is the number itself: parameters must stay float32 under autocast."""
    method, sizes = tiny_method("dino", [*backbone, "method.momentum=0.9999"], tiny=not backbone), view_sizes("dino")
    before = {name: p.clone() for name, p in method.teacher.net.named_parameters()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = train_step(method, tiny_batch(sizes))
    assert out["loss"].dtype == torch.float32
    for name, p in method.teacher.net.named_parameters():
        student = method.backbone.get_parameter(name)
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, 0.9999 * before[name] + 0.0001 * student, rtol=1e-6, atol=1e-9)


def test_the_teacher_stays_in_training_mode_without_stochastic_depth() -> None:
    method = tiny_method("dino", [*VIT, "backbone.drop_path_rate=0.5"], tiny=False)
    depths = [part.drop_prob for part in method.teacher.modules() if hasattr(part, "drop_prob")]
    assert method.teacher.net.training and depths and not any(depths)


def test_the_recipes_clip_each_tensor_by_itself() -> None:
    for data in ("cifar10", "imagenet"):
        assert dict(config.load(["method=dino", f"data={data}", "data.root=DIR"]).trainer.clip) == {
            "mode": "per_tensor", "value": 3.0,
        }  # fmt: skip
    assert tiny_config("dino").optimizer.rules.last_layer.frozen_until == {"epochs": 1}


@pytest.mark.parametrize(
    ("words", "peak", "warmup"),
    [
        (["optimizer=dino/small"], 2e-3, 1),
        (["optimizer=dino/large"], 0.03, 10),
        (["optimizer=dino/large", "backbone=vit_mini"], 5e-4, 10),
    ],
)
@pytest.mark.parametrize("batch", [128, 1024])
def test_the_rate_scales_with_the_batch_and_ends_at_min_lr(
    words: list[str], peak: float, warmup: int, batch: int
) -> None:
    method = tiny_method("dino", words, tiny=False)
    method.bind(batch)
    rates = [method.bound.lr(Progress(step, 100_000, 1000)) for step in (1000 * warmup, 99_999)]
    assert rates == pytest.approx([peak * batch / 256, 1e-6], rel=1e-3)  # main_dino.py: --min_lr, of any batch


@pytest.mark.parametrize(
    ("words", "optimizer", "crop"),
    [
        ([], "AdamW", 0.4),
        (["backbone=vit_base"], "AdamW", 0.4),
        (["backbone=resnet50"], "SGD", 0.14),
        (["backbone=resnet"], "SGD", 0.14),
        (["backbone=timm", "backbone.name=resnet34"], "SGD", 0.14),
    ],
)
def test_on_large_images_the_network_chooses_views_optimizer_and_its_own_settings(
    words: list[str], optimizer: str, crop: float
) -> None:
    cfg = config.plain(config.load(["method=dino", "data=imagenet", *words]))
    assert cfg["optimizer"]["optimizer"]["_target_"].endswith(optimizer)
    assert cfg["augmentation"]["views"][0]["ops"][0]["image/random_resized_crop"]["scale"][0] == crop
    if optimizer == "AdamW":
        assert [cfg["backbone"][key] for key in ("start", "interpolation", "drop_path_rate")] == ["dino", "dino", 0.1]
    elif "name" not in cfg["backbone"]:
        assert cfg["backbone"]["zero_init_residual"] is False


def test_small_images_keep_the_residual_network() -> None:
    cfg = config.load(["method=dino", "data=cifar10"])
    assert cfg.backbone._target_.endswith("resnet8") and cfg.optimizer["values"].lr.peak == 2e-3


def test_one_view_is_refused() -> None:
    wanted = "augmentation.views gives 1 global view(s) and DINO needs at least 2; add views with kind: global"
    large, small = {"kind": "global"}, {"kind": "local", "count": 6}
    assert (views_problem(DINO, [large, small]) or "").startswith(wanted)
    assert views_problem(DINO, [large, large]) is None and views_problem(DINO, [large, large, small]) is None
