"""iBOT: when it masks, which temperature it then has, its two last layers, and which networks it takes."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.callbacks.collapse import Collapse
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.self_distillation import centred_softmax
from ssl_zoo.methods import ibot
from ssl_zoo.optim.schedules import Progress
from tests.callbacks.tiny import fake_method, fake_trainer
from tests.helpers import tiny_batch, tiny_method, train_step

SIZES = [16, 16, 8]  # two global crops and a local one


def test_before_the_first_epoch_of_masks_the_loss_is_dinos_and_the_temperature_waits(monkeypatch):
    used = []
    monkeypatch.setattr(ibot, "centred_softmax", lambda *given: used.append(given[2]) or centred_softmax(*given))
    rise = ["start=0.04", "after.value=0.07", "warmup_epochs=2"]
    method = tiny_method("ibot", ["method.mask_start=1", *(f"method.patch_temperature.{word}" for word in rise)])
    for step, hides, temperature in ((0, False, 0.04), (4, True, 0.04), (8, True, 0.07)):
        method.progress = Progress(step, 16, 4)
        out = method.training_loss(tiny_batch(SIZES, step))
        assert (out["patch"] > 0) == hides
        assert used[-1] == pytest.approx(temperature)  # of patches, the second of a step


def test_the_uniform_loss_is_that_of_equal_scores_and_the_monitor_names_it():
    method = tiny_method("ibot", ["method.class_weight=0.5"])
    with torch.no_grad():
        method.projector.last_layer.weight_v.copy_(torch.ones_like(method.projector.last_layer.weight_v))
    watch, half = Collapse(every_n_steps=1, patience=3), []
    with pytest.warns(UserWarning, match=r"that of uniform assignments \(its parts at ln K = "):
        for step in range(3):
            batch = tiny_batch(SIZES, step)
            out = {name: told.detach() for name, told in method.training_loss(batch).items()}
            assert out["loss"].item() == pytest.approx(out["uniform_loss"].item(), rel=1e-5)
            half.append(out["uniform_loss"].item())
            watch.on_train_batch_end(fake_trainer(global_step=step + 1), fake_method(), out, batch, 0)
    assert len(set(half)) > 1  # as many crops hide patches as the draws say


def test_the_cards_say_where_the_losses_start():
    for name, outputs in (("ibot", 8192), ("dinov2", 65536)):
        cfg = config.load([f"method={name}", "data=imagenet"])
        assert cfg.method.projector.out_features == outputs
        assert f"starts near 1.5 ln K ({1.5 * math.log(outputs):.2f} for {outputs})" in cfg.card.healthy


def test_local_crops_are_compared_and_never_masked():
    method = tiny_method("ibot")
    seen = []
    inner = method.backbone.forward_tokens
    method.backbone.forward_tokens = lambda x, **given: seen.append((x.shape, given["mask"].shape)) or inner(x, **given)
    without, with_local = (method.training_loss(tiny_batch(sizes)) for sizes in (SIZES[:2], SIZES))
    assert seen == [((16, 3, 16, 16), (16, 64))] * 2
    assert without["patch"] == with_local["patch"] and without["class"] != with_local["class"]


def test_patches_are_centred_by_all_of_them_class_tokens_by_themselves():
    method = tiny_method("ibot")
    batch = tiny_batch(SIZES)
    method.training_loss(batch)
    method.on_after_backward()
    tokens = method.teacher.net.forward_tokens(torch.cat(batch.views[:2]))
    head = method.teacher_projector.net
    torch.testing.assert_close(method.centre.value[0], 0.1 * head(tokens.cls).mean(0))
    torch.testing.assert_close(method.patch_centre.value[0], 0.1 * head.patches(tokens.patches).mean((0, 1)))


@pytest.mark.parametrize("shared_teacher", [True, False])
def test_a_student_with_two_last_layers_may_have_a_teacher_with_one(shared_teacher):
    method = tiny_method("ibot", ["method.projector.shared=false", f"method.shared_teacher={shared_teacher}"])
    assert (method.teacher_projector.net.last_layer2 is None) == shared_teacher
    before = method.teacher_projector.net.mlp[0].weight.clone()
    out = train_step(method, tiny_batch(SIZES))
    assert out["gradients"]["mask_token"].abs().sum() > 0
    assert not torch.equal(method.teacher_projector.net.mlp[0].weight, before)
    assert "last_layer2.weight_v" in dict(method.projector.named_parameters())


def test_the_teacher_is_evaluated():
    method = tiny_method("ibot")
    assert method.encoder is method.teacher.net and method.encoder is not method.backbone


@pytest.mark.parametrize("name", ["ibot", "dinov2"])
def test_a_network_without_class_token_is_refused(name):
    with pytest.raises(ConfigError, match="compares class tokens, and backbone '.*' has none; set backbone.class"):
        tiny_method(name, ["+backbone.class_token=false", "+backbone.global_pool=avg"])
