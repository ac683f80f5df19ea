"""MSN: which patches the anchors see, and what the teacher is for."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo import build, config
from ssl_zoo.errors import ConfigError
from tests.helpers import ROWS, tiny_batch, tiny_method, train_step, view_sizes


def test_patches_are_dropped_from_the_large_anchor_alone_and_the_same_for_all_images():
    method, sizes = tiny_method("msn", ["method.patch_drop=0.3"]), view_sizes("msn")
    seen = []
    inner = method.backbone.forward_tokens

    def spy(view, keep=None):
        seen.append((view.shape[-1], len(view), keep))
        return inner(view, keep)

    method.backbone.forward_tokens = spy
    method.training_loss(tiny_batch(sizes))
    (side, rows, keep), (focal, focal_rows, none) = seen
    assert (side, rows, focal, focal_rows) == (16, ROWS, 8, 4 * ROWS) and none is None
    assert keep.shape == (ROWS, math.floor(64 * 0.7)) and (keep == keep[0]).all()
    assert len(set(keep[0].tolist())) == keep.shape[1]


def test_the_encoder_is_the_teacher_and_has_no_gradient():
    method = tiny_method("msn")
    assert method.encoder is method.teacher.net
    out = method.training_loss(tiny_batch(view_sizes("msn")))
    assert not out["features"].requires_grad
    torch.testing.assert_close(out["features"], method.embed(tiny_batch(view_sizes("msn")).views[0]).detach())


def test_uniform_assignments_cost_ln_k():
    method = tiny_method("msn", ["method.temperature=1e6"])
    loss = method.training_loss(tiny_batch(view_sizes("msn")))["loss"].item()
    assert method.uniform_loss == math.log(method.prototypes.out_features)
    assert loss == pytest.approx(method.uniform_loss, rel=1e-4)
    weighted = tiny_method("msn", ["method.temperature=1e6", "method.entropy=0.5"])
    loss = weighted.training_loss(tiny_batch(view_sizes("msn")))["loss"].item()
    assert loss == pytest.approx(weighted.uniform_loss, rel=1e-4)


def test_the_weights_of_the_terms():
    out = tiny_method("msn", ["method.me_max=2.0", "method.entropy=0.5"]).training_loss(tiny_batch(view_sizes("msn")))
    wanted = out["cross_entropy"] + 2 * out["me_max"] + 0.5 * out["entropy"]
    torch.testing.assert_close(out["loss"], wanted)


def test_the_number_of_summed_processes_is_the_authors_and_not_the_runs():
    with pytest.raises(ConfigError, match="method.sum_prototype_gradients=True: MSN wants .*, got bool"):
        build.check_signatures(config.load(["method=msn", "method.sum_prototype_gradients=true"]))


def test_the_authors_processes_multiply_the_gradients_of_the_prototypes_alone():
    one, sixteen = (
        train_step(tiny_method("msn", [f"method.sum_prototype_gradients={n}"]), tiny_batch(view_sizes("msn")))
        for n in ("false", 16)
    )
    for name, gradient in one["gradients"].items():
        factor = 16 if name == "prototypes.weight" else 1
        torch.testing.assert_close(sixteen["gradients"][name], factor * gradient)


def test_a_network_without_class_token_is_read_by_its_patches():
    method = tiny_method("msn", ["backbone=vit_patches"])
    assert math.isfinite(train_step(method, tiny_batch(view_sizes("msn")))["loss"])


def test_the_encoder_alone_is_clipped():
    norms = {}
    for limit in (1e-3, 1e3):
        method = tiny_method("msn", [f"trainer.clip.value={limit}"])
        gradients = train_step(method, tiny_batch(view_sizes("msn")))["gradients"]
        prototypes = gradients.pop("prototypes.weight").norm().item()
        norms[limit] = torch.stack([g.norm() for g in gradients.values()]).norm().item(), prototypes
    assert norms[1e-3] == pytest.approx((1e-3, norms[1e3][1]), rel=1e-4) and norms[1e3][0] > 1e-2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("method.patch_drop=1.0", "method.patch_drop=1: the share of dropped patches wants 0 to below 1"),
        ("backbone=resnet8", "MSN needs a vision transformer: backbone 'resnet8' has no tokens"),
    ],
)
def test_what_cannot_work_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        tiny_method("msn", [given], tiny=False)


def test_the_large_recipe_is_the_authors():
    cfg = config.plain(config.load(["data=imagenet", "method=msn", "backbone=vit_small"]))
    assert [view.get("count") for view in cfg["augmentation"]["views"]] == [2, 10]
    rates = cfg["optimizer"]["values"]["lr"]
    assert [4 * rates[key] for key in ("peak", "start", "end")] == [1e-3, 2e-4, 1e-6]  # of a batch of 1024
    assert (rates["offset"], rates["stretch"], cfg["optimizer"]["lr_scale"]) == (1, 1.25, "linear256")
    assert cfg["optimizer"]["rules"]["prototypes"]["weight_decay"] == 0 and cfg["trainer"]["clip"]["value"] == 3.0
