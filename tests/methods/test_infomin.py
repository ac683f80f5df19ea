"""InfoMin: tiles, their order, and the two weights."""

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.jigsaw_head import JigsawHead
from ssl_zoo.report.views import mosaic
from tests.golden.harness import Identity
from tests.helpers import tiny_batch, tiny_config, tiny_method, view_sizes


def test_tiles_are_mixed_in_the_order_that_is_asked_for():
    head = JigsawHead(Identity(2), tiles=3)
    x = torch.arange(12.0).view(2, 3, 2)
    order = torch.tensor([[2, 0, 1], [0, 1, 2]])
    sorted_by_hand = torch.stack([x[0, [2, 0, 1]].flatten(), x[1].flatten()])
    torch.testing.assert_close(head(x, order), head.mix(sorted_by_hand))
    assert head.out_features == 2


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum_of_crop_and_tiles():
    sizes = view_sizes("infomin")
    assert sizes == [16, 16, (9, 4)]
    for weight in (0.0, 0.25, 1.0):
        out = tiny_method("infomin", [f"method.jigsaw={weight}"]).training_loss(tiny_batch(sizes))
        wanted = (1 - weight) * out["loss_crop"] + weight * out["loss_jigsaw"]
        torch.testing.assert_close(out["loss"], wanted)


@pytest.mark.parametrize(
    ("ops", "tiles", "got"),
    [
        ("[image/flip]", 9, "ends with image/flip"),
        ("[{image/jigsaw: {grid: 2}}]", 9, "has 4 tiles"),
        ("[image/jigsaw]", 4, "has 9 tiles"),
    ],
)
def test_views_without_the_tiles_are_refused_before_the_start(ops, tiles, got):
    cfg = tiny_config("infomin", [f"augmentation.views.1.ops={ops}", f"method.tiles={tiles}"])
    with pytest.raises(ConfigError, match=f"method.tiles={tiles}: the local view of .* {got}; end its ops with"):
        build.check_signatures(cfg)
    build.check_signatures(tiny_config("infomin"))


def test_the_picture_of_the_views_shows_tiles_as_a_mosaic():
    tiles = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    picture = mosaic(tiles)
    assert picture.shape == (3, 6, 6)
    assert picture[0, ::2, ::2].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]
    assert torch.equal(mosaic(tiles[1]), tiles[1])
