"""Pairs of tiles and their classes."""

import pytest
import torch

from ssl_zoo.modules.patch_pairs import centre_pairs, neighbour_pairs, pair_features


def test_the_classes_of_pairs_are_where_the_second_lies() -> None:
    pairs = neighbour_pairs(2, 2)
    found = dict(zip(map(tuple, pairs.tiles.tolist()), pairs.label.tolist(), strict=True))
    # Tiles 0 1 / 2 3; places 0 1 2 / 3 . 4 / 5 6 7 around the first of a pair.
    assert found == {
        (0, 1): 4, (1, 0): 3, (0, 2): 6, (2, 0): 1, (0, 3): 7, (3, 0): 0, (1, 2): 5, (2, 1): 2, (1, 3): 6, (3, 1): 1,
        (2, 3): 4, (3, 2): 3,
    }  # fmt: skip
    assert len(neighbour_pairs(3, 3).label) == 40


def test_two_embeddings_stand_side_by_side_or_number_by_number() -> None:
    x = torch.arange(6.0).view(1, 3, 2)
    tiles = torch.tensor([[2, 0], [0, 1]])
    assert pair_features(x, tiles).tolist() == [[[4, 5, 0, 1], [0, 1, 2, 3]]]
    assert pair_features(x, tiles, interleaved=True).tolist() == [[[4, 0, 5, 1], [0, 2, 1, 3]]]


def test_grids_without_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="method.pairing=centre wants 3 x 3 tiles, and method.grid says 2 x 4; set"):
        centre_pairs(2, 4)
    with pytest.raises(ValueError, match="method.grid: 1 x 1 tiles have no neighbours; set it to 2 or more"):
        neighbour_pairs(1, 1)
