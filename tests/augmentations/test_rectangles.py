"""Views that are no squares: crops, the evaluation view, networks that take them."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as TF

from ssl_zoo import build, config
from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.geometry import RandomResizedCrop, ResizeCenterCrop
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.backbones import image
from ssl_zoo.backbones.image import tiny
from ssl_zoo.errors import ConfigError


def draws(n: int) -> Draw:
    return Draw(stream_key(0, "train", 0), torch.arange(n))


def test_a_crop_is_resized_to_the_height_and_width_of_the_view() -> None:
    x = torch.rand(6, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    crop, draw = RandomResizedCrop((16, 32), scale=(0.2, 1.0)), draws(6)
    out = crop(x, draw)
    assert out.shape == (6, 3, 16, 32)
    for i, (top, left, height, width) in enumerate(draw.reports["box"].tolist()):
        wanted = TF.resized_crop(x[i], top, left, height, width, [16, 32], antialias=True)
        torch.testing.assert_close(out[i], wanted, atol=1e-5, rtol=0)
    one = RandomResizedCrop((16, 32), scale=(0.2, 1.0))(x[:1].mul(255).to(torch.uint8), draws(1))
    assert one.shape == (1, 3, 16, 32) and (one / 255 - out[:1]).abs().max() < 2 / 255


def test_boxes_have_the_shape_of_the_view_as_those_of_a_square_are_square() -> None:
    wide, square = RandomResizedCrop((16, 48)), RandomResizedCrop(16)
    boxes = [op.boxes(draws(4000), 300, 900 if op is wide else 300).double() for op in (wide, square)]
    ratios = [torch.quantile(box[:, 3] / box[:, 2], torch.tensor([0.01, 0.5, 0.99]).double()) for box in boxes]
    torch.testing.assert_close(ratios[0] / 3, ratios[1], rtol=0.05, atol=0)
    assert ratios[1][0] == pytest.approx(3 / 4, rel=0.05) and ratios[1][2] == pytest.approx(4 / 3, rel=0.05)


@pytest.mark.parametrize("image_shape, resized", [
    ((100, 100), (256, 256)), ((50, 200), (128, 512)), ((400, 100), (1024, 256)), ((64, 128), (128, 256)),
])  # fmt: skip
def test_the_evaluation_view_is_covered_by_an_image_of_its_own_shape(image_shape, resized) -> None:
    x = torch.rand(1, 3, *image_shape, generator=torch.Generator().manual_seed(0))
    out = ResizeCenterCrop((64, 128), fraction=0.5)(x, draws(1))
    whole = TF.resize(x, list(resized), antialias=True)
    torch.testing.assert_close(out, TF.center_crop(whole, [64, 128]), atol=1e-6, rtol=0)
    assert ResizeCenterCrop((64, 128), 0.5).reduction(*image_shape, draws(1)) == pytest.approx(
        image_shape[0] / resized[0])  # fmt: skip


def test_local_views_are_a_share_of_both_sides() -> None:
    spec = {"count": 1, "size": [32, 64], "ops": [{"image/random_resized_crop": {}}, {"image/flip": {}}]}
    pipeline = ViewPipeline([spec, {**spec, "count": 2, "kind": "local", "fraction": 0.5}], None)
    views, _ = pipeline(torch.rand(2, 3, 40, 80), draws(2))
    assert [tuple(view.shape[2:]) for view in views] == [(32, 64), (16, 32), (16, 32)]


@pytest.mark.parametrize("words", [
    ["backbone=resnet8", "backbone.width=4"], ["backbone=resnet18"], ["backbone=convnext_tiny"],
    ["backbone=vit_mini", "backbone.depth=1", "backbone.embed_dim=16", "backbone.num_heads=2"],
    ["method=moco_v3", "backbone=vit_mini", "backbone.depth=1", "backbone.embed_dim=16", "backbone.num_heads=2"],
    ["method=dino", "backbone=vit_mini", "backbone.depth=1", "backbone.embed_dim=16", "backbone.num_heads=2"],
])  # fmt: skip
def test_networks_take_the_views_of_a_rectangle(words: list[str]) -> None:
    small = ["data=synthetic", "data.image_size=[32,64]", "data.batch_size=4", "data.source.samples=8"]
    cfg = config.load([*small, *words])
    data = build.build_data(cfg)
    method = build.build_method(cfg, data.info)
    view, _, _ = next(iter(data.train_eval_loader()))
    assert view.shape[1:] == (3, 32, 64)
    with torch.no_grad():
        assert method.eval().embed(view).isfinite().all()


def test_small_stems_divide_the_shorter_side() -> None:
    net = tiny.vit_mini(image_size=(32, 64), embed_dim=16, depth=1, num_heads=2)
    assert net.net.patch_embed.patch_size == (4, 4) and net.net.patch_embed.grid_size == (8, 16)
    assert net.forward_tokens(torch.rand(1, 3, 32, 64)).grid == (8, 16)
    with pytest.raises(ConfigError, match="8 x more patches, which 36 px do not divide into; set data.im"):
        tiny.vit_mini(image_size=(36, 64))
    with pytest.raises(ConfigError, match=r"patch of 16 px; set data.image_size"):
        image.vit_tiny(image_size=(32, 40), depth=1)


def test_methods_on_squares_say_so() -> None:
    cfg = config.load(["method=mae", "data=synthetic", "data.image_size=[32,64]", "backbone=vit_mini"])
    with pytest.raises(ConfigError, match=r"works on square images, and data.image_size is \[32, 64\]; set"):
        build.build_method(cfg, build.build_data(cfg).info)


def test_the_registry_lets_crops_make_rectangles() -> None:
    assert registry.build("image/random_resized_crop", size=[16, 32]).size == (16, 32)
    assert registry.build("image/resize_center_crop", size=[16, 32]).size == (16, 32)
