"""Jigsaw, relative patches and PIRL: classes and rows by number, and views that do not go with the methods."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import build
from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.errors import ConfigError
from tests.helpers import ROWS, info, tiny_batch, tiny_config, tiny_method, train_step, view_sizes

JIGSAW = "{image/random_resized_crop: {size: 66}},{image/jigsaw: {grid: 3, shuffle: false}}"


def changed(name: str, settings: Sequence[str]) -> DictConfig:
    """The tiny configuration with other settings, which need not be composed anew for each test."""
    cfg = tiny_config(name)
    for key, _, value in (setting.partition("=") for setting in settings):
        OmegaConf.update(cfg, key, yaml.safe_load(value), merge=False)
    return cfg



def test_the_permutation_is_the_class_and_in_the_checkpoint() -> None:
    method, batch = tiny_method("jigsaw"), tiny_batch(view_sizes("jigsaw"))
    state = method.state_dict()
    assert state["permutations"].shape == (100, 9)
    with torch.no_grad():
        h = torch.stack([method.backbone(tile) for tile in batch.views[0].transpose(0, 1)])  # [P, B, F]
    assert h.shape[:2] == (9, ROWS)
    seen: list[torch.Tensor] = []
    inner = method.classifier[0].forward
    method.classifier[0].forward = lambda x: (seen.append(x.detach()), inner(x))[1]
    out = method.training_loss(batch)
    z = method.projector(method.backbone(batch.views[0].flatten(0, 1))).relu().view(ROWS, 9, -1)
    order = method.permutations[batch.rng.sample("permutation").integers("label", 100)]
    wanted = torch.stack([row[places] for row, places in zip(z, order, strict=True)]).flatten(1)
    torch.testing.assert_close(seen[0], wanted.detach(), rtol=1e-4, atol=1e-5)
    assert out["loss"].item() == pytest.approx(math.log(100), rel=0.1)


def test_other_permutations_of_a_checkpoint_are_taken_from_it() -> None:
    one, other = tiny_method("jigsaw"), build.build_method(changed("jigsaw", ["method.permutation_seed=3"]), info())
    assert not torch.equal(one.permutations, other.permutations)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.permutations, other.permutations)


@pytest.mark.parametrize(("pairing", "pairs"), [("centre", 8), ("neighbours", 40)])
def test_a_classifier_that_knows_the_places_has_no_loss(pairing: str, pairs: int) -> None:
    method = build.build_method(changed("relative_patch", [f"method.pairing={pairing}"]), info())
    assert method.pairs.shape == (pairs, 2) and len(method.labels) == pairs
    method.dropout = 0.0
    scores = 50.0 * torch.nn.functional.one_hot(method.labels, 8).float()
    method.classifier[-1].forward = lambda hidden: scores.expand(len(hidden), -1, -1)
    out = method.training_loss(tiny_batch(view_sizes("relative_patch")))
    assert out["loss"].item() < 1e-6 and out["accuracy"] == 1 and out["features"].shape == (ROWS, 32)


def test_the_bank_has_the_rows_of_images_and_tiles_have_their_own_negatives() -> None:
    sizes = view_sizes("pirl")
    assert sizes == [16, (9, 16)]
    batch = tiny_batch(sizes)
    method = build.build_method(changed("pirl", ["method.loss=nce", "method.shared_negatives=false"]), info())
    assert not torch.equal(method.rows(batch, "negatives"), method.rows(batch, "negatives of tiles"))
    before = method.bank.keys.clone()
    out = method.training_loss(batch)
    assert torch.equal(method.bank.keys, before)
    h = method.backbone(batch.views[0])
    method.on_after_backward()
    z = torch.nn.functional.normalize(method.projector(h), dim=1)
    wanted = torch.nn.functional.normalize(0.5 * before[batch.index] + 0.5 * z, dim=1)
    torch.testing.assert_close(method.bank.keys[batch.index], wanted.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["loss"], 0.5 * out["loss_image"] + 0.5 * out["loss_tiles"])


def test_z_is_that_of_the_first_tiles() -> None:
    method, batch = build.build_method(changed("pirl", ["method.loss=nce"]), info()), tiny_batch(view_sizes("pirl"))
    method.bind(ROWS)
    order = batch.rng.sample("tiles").permutation(9)
    tiles = torch.stack([method.backbone(x) for x in [batch.views[1].flatten(0, 1)]])[0].view(ROWS, 9, -1)
    z = torch.nn.functional.normalize(method.jigsaw_projector(tiles, order), dim=1)
    rows = method.bank.keys[method.rows(batch, "negatives" if method.shared_negatives else "negatives of tiles")]
    wanted = 64 * torch.einsum("bd,bkd->bk", z, rows).div(0.07).exp().mean()
    train_step(method, batch)
    torch.testing.assert_close(method.contrast.normaliser, wanted.detach(), rtol=1e-3, atol=0)
    first = method.contrast.normaliser.clone()
    train_step(method, tiny_batch(view_sizes("pirl"), 1))
    assert torch.equal(method.contrast.normaliser, first)


@pytest.mark.parametrize(
    ("name", "extra", "words"),
    [
        ("jigsaw", ["augmentation.views.0.ops=[image/flip]"], "method.tiles=9: the view of .* ends with image/flip; "),
        ("jigsaw", ["augmentation.views.0.ops=[]"], "method.tiles=9: the view of .* ends with nothing"),
        ("jigsaw", ["method.tiles=4"], "method.tiles=4: the view of .* has 9 tiles; end its ops with"),
        ("jigsaw", ["augmentation.views.0.ops=[{image/random_resized_crop: {size: 66}},image/jigsaw]"],
         "Jigsaw knows the places of tiles by their order, and those of .* come in any; set shuffle: false"),
        ("jigsaw", ["augmentation.views.0.size=23"],
         "augmentation.views: image/jigsaw: an image side of 66 makes 3 cells of 22, too small for tiles of 23 with"),
        ("jigsaw", ["augmentation.views.0.size=8", f"augmentation.views.0.ops=[{JIGSAW.replace('66', '20')}]"],
         "an image side of 20 makes 3 cells of 6, too small for tiles of 8 with jitter 0; crop to at least 24"),
        ("relative_patch", ["method.grid=2", "method.pairing=neighbours"],
         "method.grid: 2 x 2, and the view of augmentation.views has 3 x 3 tiles; end its ops with image/jigsaw"),
        ("relative_patch", ["augmentation.views.0.ops=[image/jigsaw]"],
         "RelativePatch knows the places of tiles by their order"),
        ("relative_patch", ["augmentation.views.0.ops=[{image/resize: {size: 40}},{image/spaced_tiles: {grid: 3}}]"],
         "an image of 40x40 is too small for 3 x 3 tiles of 16 with gaps of 8; crop to at least 64x64"),
        ("pirl", ["augmentation.views.1.ops=[image/flip]"], "method.tiles=9: the local view .* ends with image/flip"),
        ("pirl", ["augmentation.views.1.size=30"], "3 cells of 22, too small for tiles of 30 with jitter 0; crop"),
    ],
)  # fmt: skip
def test_views_that_do_not_go_with_the_method(name: str, extra: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build.check_signatures(changed(name, extra))
    build.check_signatures(tiny_config(name))


@pytest.mark.parametrize(
    ("name", "extra", "words"),
    [
        ("jigsaw", ["method.tiles=4"], "method.permutations=100: 4 tiles have 24 permutations; set"),
        ("jigsaw", ["method.classifier.out_features=7"], "classifier.out_features=7: there are 100 permutations"),
        ("jigsaw", ["method.distance=max"], "method.distance=max: did you mean 'max_"),
        ("relative_patch", ["method.classifier.out_features=4"], "classifier.out_features=4: a tile has 8 places"),
        ("relative_patch", ["method.grid=2"], "method.pairing=centre wants 3 x 3 tiles, and method.grid says 2 x 2"),
        ("relative_patch", ["method.pairing=all"], "method.pairing=all: there are: centre, neighbours"),
    ],
)
def test_settings_that_make_no_sense(name: str, extra: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build.build_method(changed(name, extra), info())


def test_draws_belong_to_samples() -> None:
    whole = BatchRNG(0, 0, 0, torch.arange(8)).sample("permutation").integers("label", 100)
    part = BatchRNG(0, 0, 0, torch.arange(8)[4:]).sample("permutation").integers("label", 100)
    assert torch.equal(whole[4:], part)
