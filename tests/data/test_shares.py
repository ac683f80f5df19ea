"""How often samples of several roots are drawn: the same for any seed's epoch, batch size and number of processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.sampler import Groups, Mixture, Plan
from ssl_zoo.data.shares import drawn, shared_order
from ssl_zoo.data.source import Shares
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.views import first_images
from tests.data.helpers import augmentation, batches, by_slot, pictures


def shares(*sizes: int, share: tuple[float, ...]) -> Shares:
    return Shares(torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), share)


@pytest.mark.parametrize(
    ("share", "count", "wanted"),
    [((0.7, 0.3), 10, [7, 3]), ((7, 3), 10, [7, 3]), ((1, 1, 1), 10, [4, 3, 3]), ((0.5, 0.25, 0.25), 7, [3, 2, 2]),
     ((1e-9, 1.0), 5, [0, 5])],
)  # fmt: skip
def test_whole_numbers_are_made_of_shares_by_largest_remainders(
    share: tuple[float, ...], count: int, wanted: list[int]
) -> None:
    assert drawn(share, count) == wanted


def test_a_root_gives_its_share_of_an_epoch_and_repeats_its_samples_only_when_all_were_seen() -> None:
    order = shared_order(0, 0, shares(10, 90, share=(0.25, 0.75)), 100)
    small, large = order[order < 10], order[order >= 10]
    assert (len(small), len(large), len(large.unique())) == (25, 75, 75)
    assert small[:10].unique().tolist() == small[10:20].unique().tolist() == list(range(10))
    assert len(small[20:].unique()) == 5 and not torch.equal(small[:10], small[10:20])


def test_every_part_of_an_epoch_has_nearly_the_share() -> None:
    order = shared_order(3, 1, shares(1000, 3000, share=(0.25, 0.75)), 4000)
    counts = (order < 1000).view(40, 100).sum(1)
    assert 22 <= int(counts.min()) <= int(counts.max()) <= 28  # 25 of a hundred; a shuffle would be from 14 to 37


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    of = shares(7, 5, share=(0.5, 0.5))
    assert torch.equal(shared_order(1, 2, of, 12), shared_order(1, 2, of, 12))
    assert not torch.equal(shared_order(1, 2, of, 12), shared_order(1, 3, of, 12))
    assert not torch.equal(shared_order(1, 2, of, 12), shared_order(2, 2, of, 12))


def test_any_number_of_processes_reads_the_same_rows() -> None:
    of = shares(9, 23, share=(0.6, 0.4))
    one = Plan(32, 8, seed=0, shares=of)
    two = [Plan(32, 8, seed=0, rank=rank, world=2, shares=of) for rank in range(2)]
    for micro in range(one.length):
        parts = [plan.index(5, micro)[0] for plan in two]
        assert torch.equal(torch.cat(parts), one.index(5, micro)[0])


def roots(tmp_path: Path) -> list[str]:
    for name, n in (("a", 4), ("b", 20)):
        pictures(tmp_path / name, n)
    return [str(tmp_path / name) for name in "ab"]


def module(tmp_path: Path, **options: Any) -> Any:
    source = partial(folder, cache=False, shares=[0.5, 0.5])
    return ImageData(source, 4, 16, 3, augmentation(), root=roots(tmp_path), workers=0, **options)


def test_an_epoch_of_files_has_the_shares_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = [batch.index for batch in batches(module(tmp_path))]
    assert [len(part) for part in whole] == [4] * 6 and int((torch.cat(whole) < 4).sum()) == 12
    begun = module(tmp_path)
    batches(begun, 2)
    state, rest = begun.state_dict(), module(tmp_path)
    rest.load_state_dict(state)
    assert torch.equal(torch.cat([batch.index for batch in batches(rest)]), torch.cat(whole[2:]))


def test_pictures_of_the_views_begin_as_the_epoch_does(tmp_path: Path) -> None:
    wanted = torch.cat([batch.index for batch in batches(module(tmp_path))])[:8].tolist()
    assert module(tmp_path).first(8) == wanted and sum(i < 4 for i in wanted) == 4
    looked_at = module(tmp_path, trains=False)
    assert sum(i < 4 for i in looked_at.first(8)) == 4 and len(first_images(looked_at, 8)) == 8


def test_a_sample_that_comes_twice_gets_two_views(tmp_path: Path) -> None:
    rows = by_slot(batches(module(tmp_path))).values()
    of_one = [view for index, view in rows if index == 0]
    assert len(of_one) == 3 and not torch.equal(of_one[0], of_one[1])


def test_the_line_says_how_often_an_image_is_seen(tmp_path: Path) -> None:
    a, b = roots(tmp_path)
    assert module(tmp_path).decisions[-1] == f"an epoch draws 50% from {a} (each image 3 times), 50% from {b} (each " \
        "image 0.6 times)"


def test_subsets_keep_the_shares_of_what_is_left(tmp_path: Path) -> None:
    data = module(tmp_path, subset=12)
    left = data.train.positions < 4
    assert 0 < int(left.sum()) < 12
    drawn_left = torch.cat([left[batch.index] for batch in batches(data)])
    assert int(drawn_left.sum()) == 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Plan(8, 4, 0, shares=shares(8, 0, share=(0.5, 0.5))), "nothing is left to draw from root 2"),
        (lambda: Plan(8, 4, 0, shares=shares(4, 4, share=(0.5, 0.5))).group(Groups(torch.zeros(8), 2)),
         "this method reads samples by groups, not by roots; set data.source.shares=null"),
    ],
)  # fmt: skip
def test_what_shares_do_not_go_with(make: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert words in str(error.value)


def test_mixtures_say_themselves_how_often_samples_are_drawn() -> None:
    with pytest.raises(ConfigError, match="both say how often samples are drawn; set one of them to null"):
        Plan(8, 2, 0, mixture=Mixture(torch.arange(8) < 4, 1), shares=shares(4, 4, share=(0.5, 0.5)))
