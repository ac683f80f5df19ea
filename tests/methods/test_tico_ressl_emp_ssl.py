"""TiCo, ReSSL and EMP-SSL: what their states hold, and what is evaluated."""

from __future__ import annotations

import dataclasses
from itertools import product

import pytest
import torch
from torch.nn.functional import interpolate, normalize

from ssl_zoo import config
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.emp_ssl import spread
from tests.helpers import tiny_batch, tiny_method

SIZES = [16, 16]


def test_tico_remembers_second_moments_of_what_it_trained_on() -> None:
    method = tiny_method("tico")
    batch = tiny_batch(SIZES)
    out = method.training_loss(batch)
    out["loss"].backward()
    method.on_after_backward()
    z = normalize(method.projector(method.backbone(batch.views[0])), dim=1)
    torch.testing.assert_close(method.covariance.moments, 0.1 * z.T @ z / 8, rtol=1e-4, atol=1e-6)
    assert out["loss"].item() == pytest.approx(out["invariance"].item() + out["contrast"].item())


def test_tico_centred_as_in_lightly() -> None:
    method = tiny_method("tico", ["method.centre=true"])
    method.training_loss(tiny_batch(SIZES))["loss"].backward()
    raw = torch.randn(8, 8) + 5
    torch.testing.assert_close(method.unit(raw), normalize(raw - raw.mean(0), dim=1))


def test_ressl_queues_the_weak_view_after_the_backward_pass() -> None:
    method = tiny_method("ressl")
    batch, before = tiny_batch(SIZES), method.queue.keys.clone()
    method.training_loss(batch)["loss"].backward()
    assert torch.equal(method.queue.keys, before)
    method.on_after_backward()
    order = batch.rng.shared("shuffle").permutation(8)
    keys = normalize(method.teacher(batch.views[1][order])[order.argsort()], dim=1)
    torch.testing.assert_close(method.queue.keys[:8], keys, rtol=1e-4, atol=1e-5)
    assert torch.equal(method.queue.keys[8:], before[8:])


def test_ressl_compares_every_crop_with_the_last_view() -> None:
    method, batch = tiny_method("ressl"), tiny_batch([16, 12, 8, 16])
    loss = method.training_loss(batch)["loss"]
    parts = []
    for view in batch.views[:3]:
        pair = dataclasses.replace(batch, views=[view, batch.views[3]])
        parts.append(method.training_loss(pair)["loss"])
    torch.testing.assert_close(loss, torch.stack(parts).mean(), rtol=1e-5, atol=1e-6)


def test_the_five_crops_of_ressl_are_strong_and_the_teachers_view_is_a_crop_and_a_flip() -> None:
    cfg = config.plain(config.load(["experiment=ressl_imagenet_200ep_5crops"]))
    *strong, weak = cfg["augmentation"]["views"]
    names = [[key.removeprefix("image/") for op in view["ops"] for key in op] for view in (*strong, weak)]
    crop = "random_resized_crop"
    assert [view["size"] for view in strong] == [224, 192, 160, 128, 96] and weak["size"] == 224
    assert names == [*5 * [[crop, "color_jitter", "grayscale", "gaussian_blur", "flip"]], [crop, "flip"]]
    scales = [view["ops"][0][f"image/{crop}"]["scale"] for view in strong]
    assert scales == [[0.2, 1.0], [0.172, 0.86], [0.143, 0.715], [0.114, 0.571], [0.086, 0.429]]


def test_emp_ssl_averages_windows_at_evaluation() -> None:
    method, view = tiny_method("emp_ssl", ["method.bag=2"]).eval(), tiny_batch([16]).views[0]
    corners = [view[:, :, top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8)]
    large = [interpolate(x, (16, 16), mode="bilinear", antialias=True) for x in corners]
    wanted = torch.stack([method.backbone(x) for x in large]).mean(0)
    torch.testing.assert_close(method.embed(view), wanted)
    whole = tiny_method("emp_ssl").eval()
    assert torch.equal(whole.embed(view), whole.backbone(view))


def test_emp_ssl_refuses_a_negative_bag() -> None:
    with pytest.raises(ConfigError, match=r"method.bag=-1: wanted 0 \(the whole image\) or the number of windows"):
        tiny_method("emp_ssl", ["method.bag=-1"])


def test_emp_ssl_averages_windows_at_places_that_fill_the_image() -> None:
    places = spread(128, 17)  # windows of 16 pixels in an image of 32
    assert places[:3] == [(12, 9), (8, 2), (4, 12)] and {x for place in places for x in place} == set(range(17))
    rows = torch.tensor(places, dtype=torch.float64)
    assert (rows.mean(0) - 8).abs().max() < 0.2
    quarters = [int(((rows < 8.5) == torch.tensor(side)).all(1).sum()) for side in product((True, False), repeat=2)]
    assert min(quarters) >= 29 and len(set(places)) >= 120


def test_emp_ssl_evaluates_the_first_layer_of_its_head_on_so_many_patches() -> None:
    method = tiny_method("emp_ssl", ["method.patches=3", "method.evaluate_layers=1"]).eval()
    view = tiny_batch([16]).views[0]
    windows = [view[:, :, top : top + 8, left : left + 8] for top, left in spread(3, 9)]
    large = [interpolate(x, (16, 16), mode="bilinear", antialias=True) for x in windows]
    wanted = torch.stack([method.pre_feature(method.backbone(x)) for x in large]).mean(0)
    torch.testing.assert_close(method.embed(view), wanted)
    assert wanted.shape[1] == method.pre_feature[0].out_features and bool((wanted >= 0).all())


def test_emp_ssl_trains_the_same_whichever_layers_it_evaluates() -> None:
    batch, plain = tiny_batch(SIZES), tiny_method("emp_ssl")
    parted = tiny_method("emp_ssl", ["method.evaluate_layers=1"])
    weights = [*plain.parameters()]
    with torch.no_grad():
        for own, other in zip(parted.parameters(), weights, strict=True):
            own.copy_(other)
    one, other = plain.training_loss(batch), parted.training_loss(batch)
    assert one["loss"].item() == other["loss"].item()
    assert other["features"].shape[1] == parted.pre_feature[0].out_features


def test_emp_ssl_refuses_two_ways_to_average_and_layers_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="method.bag=2 and method.patches=3 both say what is averaged"):
        tiny_method("emp_ssl", ["method.bag=2", "method.patches=3"])
    with pytest.raises(ConfigError, match="method.*a head of 3 layers has no first 4; wanted 0 to 3"):
        tiny_method("emp_ssl", ["method.evaluate_layers=4"])
