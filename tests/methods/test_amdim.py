"""AMDIM and YADIM: levels of any network, one flip for both views, the authors' classifiers."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError
from tests.helpers import TINY_VIT, tiny_batch, tiny_method, train_step

SIZES = [16, 16]


def flips(name: str) -> list[torch.Tensor]:
    augmentation = config.plain(config.load([f"method={name}", "data=synthetic"]))["augmentation"]
    pipeline = ViewPipeline(augmentation["views"], augmentation["normalize"])
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    _, reports = pipeline(images, Draw(stream_key(0, "train", 0), torch.arange(64)))
    return [reports[f"{view}/image/flip/flipped"] for view in (0, 1)]


def test_one_flip_serves_both_views() -> None:
    one, other = flips("amdim")
    assert torch.equal(one, other) and 16 < one.sum() < 48
    one, other = flips("yadim")
    assert not torch.equal(one, other)


def test_levels_are_the_whole_and_the_last_two_maps_averaged_down() -> None:
    method = tiny_method("amdim")
    h, levels = method.levels(tiny_batch(SIZES).views[0])
    # Maps of 8 x 8 and 4 x 4 (16 px): the last one is smaller than 5 x 5 and stays.
    assert h.shape == (8, 32) and [x.shape[2:] for x in levels.values()] == [(1, 1), (4, 4), (7, 7)]
    torch.testing.assert_close(h, method.backbone(tiny_batch(SIZES).views[0]), rtol=1e-4, atol=1e-5)


def test_a_vision_transformer_gives_tokens_for_maps() -> None:
    method = tiny_method("amdim", ["backbone=vit_mini", *TINY_VIT], tiny=False)
    h, levels = method.levels(tiny_batch(SIZES).views[0])
    assert h.shape == (8, 16) and [x.shape[2:] for x in levels.values()] == [(1, 1), (5, 5), (7, 7)]


def test_the_authors_encoder_compares_the_whole_as_it_is() -> None:
    whole = "{_target_: ssl_zoo.modules.embedding_block.OutputNorm, _partial_: true, width: 8}"
    sizes = ["backbone.ndf=4", "backbone.n_rkhs=8", "backbone.n_depth=1"]
    words = ["data.image_size=32", "backbone=amdim_encoder", *sizes, "method.layers=[-3,-4]", "method.block.width=8"]
    words.append(f"method.whole={whole}")
    method = tiny_method("amdim", words, tiny=False)
    h, levels = method.levels(tiny_batch([32, 32]).views[0])
    assert [x.shape[2:] for x in levels.values()] == [(1, 1), (5, 5), (7, 7)]
    torch.testing.assert_close(levels[0].flatten(1), torch.nn.functional.batch_norm(h, None, None, training=True))
    with pytest.raises(ConfigError, match="a norm alone leaves 8 features in a space of 9; set method.whole=null, or"):
        tiny_method("amdim", [*words[:-1], f"method.whole={whole.replace('8', '9')}"], tiny=False)


ENCODER = ["backbone=amdim_encoder", "backbone.ndf=4", "backbone.n_rkhs=8", "backbone.n_depth=1", "data.image_size=32"]


@pytest.mark.parametrize("name", ["amdim", "yadim"])
@pytest.mark.parametrize("words", [ENCODER, ["backbone=resnet18", "data.image_size=32"]], ids=["own", "resnet18"])
def test_it_trains_on_its_encoder_and_on_resnets(name: str, words: list[str]) -> None:
    method = tiny_method(name, words, tiny=False)
    view = tiny_batch([32, 32]).views[0]
    # YADIM is a choice of the framework, whose extraction is handed the network.
    _, levels = method.levels(view) if name == "amdim" else method.extraction.levels(method.backbone, view)
    sides = [x.shape[2] for x in levels.values()]
    own = {"amdim": [1, 5, 7], "yadim": [1]}
    assert sides == (own[name] if words is ENCODER else {"amdim": [1, 4, 7], "yadim": [4]}[name])
    out = train_step(method, tiny_batch([32, 32]))
    assert out["loss"].isfinite()
    assert {n for n, p in method.named_parameters() if p.requires_grad} == out["gradients"].keys()


@pytest.mark.parametrize(("grids", "layers"), [([5, 7], [-3, -4]), ([7], [-4]), ([5, 6], [-1, -2])])
def test_layers_are_those_whose_maps_have_the_sides_of_the_grids(grids: list[int], layers: list[int]) -> None:
    method = tiny_method("amdim", [*ENCODER, f"method.grids={grids}", "method.comparisons=[[0,1]]"], tiny=False)
    assert method.layers == layers


def test_the_authors_classifiers_learn_and_leave_the_encoder_alone() -> None:
    plain, method = tiny_method("amdim"), tiny_method("amdim", ["method.classifiers=true"])
    outs = [train_step(m, tiny_batch(SIZES)) for m in (plain, method)]
    assert {name.split(".")[0] for name in outs[1]["gradients"].keys() - outs[0]["gradients"].keys()} == {"classifiers"}
    for name, gradient in outs[0]["gradients"].items():
        torch.testing.assert_close(gradient, outs[1]["gradients"][name])


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.comparisons=\[\(0, 3\)\]: wanted a grid for each layer, .* to 2"):
        tiny_method("amdim", ["method.comparisons=[[0,3]]"])
    with pytest.raises(ConfigError, match=r"layers=\[-1, -9\]: backbone 'resnet8' has the layers -1 to -3"):
        tiny_method("amdim", ["method.layers=[-1,-9]"])
