"""Sets of permutations: by hand, deterministic, and refused where there are not so many."""

import pytest
import torch

from ssl_zoo.modules.permutations import permutation_set


def test_the_farthest_of_three_tiles_by_hand() -> None:
    # After 012 those without a fixed place are farthest: 120, then 201; 021, 102 and 210 are equally near to all three.
    wanted = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0]]
    for distance in ("max_avg", "max_min"):
        assert permutation_set(3, 6, distance, first=0).tolist() == wanted  # type: ignore[arg-type]


def test_all_are_different_and_far_apart() -> None:
    for distance, least in (("max_avg", 1), ("max_min", 5)):
        found = permutation_set(9, 100, distance)  # type: ignore[arg-type]
        differs = (found[:, None] != found[None]).sum(2) + 9 * torch.eye(100, dtype=torch.int64)
        assert found.dtype == torch.int64 and torch.equal(found.sort(1).values, torch.arange(9).expand(100, 9))
        assert differs.min() >= least and differs.sum() / (100 * 99) > 8


def test_the_seed_decides() -> None:
    one, same, other = (permutation_set(4, 8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    one.zero_()
    assert torch.equal(permutation_set(4, 8, seed=0), same)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="permutations=25: 4 tiles have 24 permutations; set .* to 24 or less"):
        permutation_set(4, 25)
    with pytest.raises(ValueError, match="method.tiles=16: the permutations of more than 9 tiles are too many to "):
        permutation_set(16, 100)
