"""I-JEPA: what student and teacher see, and what is evaluated."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.masking.multiblock import RandomPatches
from tests.helpers import ROWS, tiny_batch, tiny_method, view_sizes


def test_the_student_sees_the_context_and_the_teacher_everything():
    method, batch = tiny_method("ijepa"), tiny_batch(view_sizes("ijepa"))
    seen = {}
    for name, network in (("student", method.backbone), ("teacher", method.teacher.net)):
        def spy(view, keep=None, name=name, inner=network.forward_tokens):
            seen[name] = keep
            return inner(view, keep)

        network.forward_tokens = spy
    method.training_loss(batch)
    context, targets = method.blocks(batch, (8, 8))
    assert seen["teacher"] is None and torch.equal(seen["student"], context[0])
    assert targets.shape[:2] == (4, ROWS)


def test_features_are_the_mean_of_the_teachers_patches():
    method, batch = tiny_method("ijepa"), tiny_batch(view_sizes("ijepa"))
    view = batch.views[0]
    wanted = method.teacher.net.forward_tokens(view).patches.mean(1)
    torch.testing.assert_close(method.embed(view), wanted)
    torch.testing.assert_close(method.training_loss(batch)["features"], wanted)
    torch.testing.assert_close(method.encoder(view), wanted)  # so that an exported encoder gives the same


def test_the_encoder_has_no_class_token_and_fixed_positions():
    net = tiny_method("ijepa").backbone.net
    assert net.cls_token is None and not net.pos_embed.requires_grad


def test_a_class_token_is_no_hindrance():
    method, batch = tiny_method("ijepa", ["backbone=vit"]), tiny_batch(view_sizes("ijepa"))
    method.training_loss(batch)["loss"].backward()
    assert method.backbone.net.cls_token.grad.any()
    assert method.embed(batch.views[0]).shape == (ROWS, 16)


def test_squares_instead_of_hubers_distance():
    losses = [tiny_method("ijepa", [f"method.form={form}"]).training_loss(tiny_batch(view_sizes("ijepa")))["loss"]
              for form in ("l2", "smooth_l1")]
    assert losses[0] > losses[1]


def test_random_patches_instead_of_blocks():
    method, batch = tiny_method("ijepa"), tiny_batch(view_sizes("ijepa"))
    method.masks = RandomPatches((0.5, 0.5))
    context, targets = method.blocks(batch, (8, 8))
    assert context.shape == targets.shape == (1, ROWS, 32)
    method.training_loss(batch)["loss"].backward()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("method.masks.min_keep=20", "masks.min_keep=20: a block of"),
        ("method.form=l1", "method.form=l1: there are: l2, smooth_l1"),
        ("backbone=resnet8", "IJEPA needs a vision transformer: backbone 'resnet8' has no tokens"),
    ],
)
def test_what_cannot_work_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        tiny_method("ijepa", [given], tiny=False)


def test_the_large_recipe_is_the_authors():
    cfg = config.plain(config.load(["data=imagenet", "method=ijepa", "backbone=vit_patches"]))
    assert cfg["method"]["masks"]["min_keep"] == 10 and cfg["trainer"]["max_epochs"] == 300
    assert cfg["backbone"]["class_token"] is False and cfg["backbone"]["_target_"].endswith("vit_small")
    assert cfg["optimizer"]["values"]["weight_decay"]["end"] == 0.4
