"""Operations on rows of tables, by their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.augmentations.table.encode import Encode
from ssl_zoo.augmentations.table.ops import Corrupt, Drop, Mixup, Noise, by_content

NAN = float("nan")
WIDTHS = (1, 3, 1)  # a number, three categories, a number
TABLE = torch.tensor([[0.5, 0.0, NAN], [1.5, 2.0, -1.0], [2.5, 1.0, 3.0]])


def draw(rows: int, epoch: int = 0, first: int = 0) -> Draw:
    return Draw(stream_key(0, "train", epoch), torch.arange(first, first + rows))


def rows_of(count: int) -> Tensor:
    return TABLE[torch.arange(count) % 3]


def test_a_network_gets_one_number_for_each_category_and_zero_for_what_is_missing() -> None:
    encode = Encode(WIDTHS)
    rows = torch.tensor([[0.5, 1.0, NAN], [NAN, NAN, 2.0]])
    wanted = torch.tensor([[0.5, 0, 1, 0, 0], [0, 0, 0, 0, 2]])
    assert torch.equal(encode(rows), wanted) and torch.equal(encode(wanted), wanted) and encode.inputs == 5
    with pytest.raises(ValueError, match="a row has 4 numbers, and the table 3 columns"):
        encode(torch.zeros(2, 4))


def test_a_fixed_number_of_cells_come_from_other_rows_of_the_same_column() -> None:
    rows = rows_of(3000)
    pen = draw(3000)
    found = Corrupt(0.67, table=TABLE, widths=WIDTHS)(rows, pen)
    for column in range(3):  # every value stood in that column
        assert set(found[:, column].nan_to_num(9).tolist()) <= set(TABLE[:, column].nan_to_num(9).tolist())
    changed = pen.reports["changed"]
    same = (rows == found) | (rows.isnan() & found.isnan())
    assert torch.equal(changed, ~same) and int(changed.sum(1).max()) == 2
    # Two of three cells, of which a third came from a row with the same value.
    assert changed.float().mean().item() == pytest.approx(2 / 3 * 2 / 3, abs=0.01)
    # 0.6 * 5 is a little less than 3 in floating point.
    assert Corrupt(0.6)._mask(draw(9), 5).sum(1).tolist() == [3] * 9


def test_or_each_cell_with_its_own_chance() -> None:
    mask = Corrupt(0.3, "bernoulli")._mask(draw(4000), 10)
    assert mask.float().mean().item() == pytest.approx(0.3, abs=0.01) and len(mask.sum(1).unique()) > 5


def test_or_anything_between_the_least_and_the_largest() -> None:
    found = Corrupt(1.0, values="uniform", table=TABLE, widths=WIDTHS)(rows_of(3000), draw(3000))
    low, high = found.amin(0), found.amax(0)
    assert low.tolist() == pytest.approx([0.5, 0, -1], abs=0.01)
    assert high.tolist() == pytest.approx([2.5, 2, 3], abs=0.01)
    assert set(found[:, 1].tolist()) == {0.0, 1.0, 2.0}


def test_once_is_the_same_in_every_epoch_and_batch() -> None:
    torch.manual_seed(0)
    rows = torch.randn(64, 3)
    once, anew = (Corrupt(0.5, "bernoulli", once=fixed, table=torch.randn(500, 3)) for fixed in (True, False))
    first, second = (operation(rows, draw(64)) for operation in (once, anew))
    assert torch.equal(first[5:9], once(rows[5:9], draw(4, epoch=3, first=900)))
    assert not torch.equal(second, anew(rows, draw(64, epoch=1)))
    assert len(by_content(rows).unique()) == 64 and not torch.equal(first, rows)


def test_noise_moves_numbers_alone() -> None:
    found = Noise(0.5, WIDTHS)(torch.zeros(5000, 3), draw(5000))
    assert found[:, 1].eq(0).all() and found[:, 0].std().item() == pytest.approx(0.5, abs=0.02)


def test_dropped_cells_are_missing() -> None:
    assert Drop(0.25)(torch.zeros(4000, 3), draw(4000)).isnan().float().mean().item() == pytest.approx(0.25, abs=0.015)


def test_mixed_rows_lie_between_two_of_the_table() -> None:
    found = Mixup(0.6, TABLE, WIDTHS)(rows_of(3000), draw(3000))
    own = Encode(WIDTHS)(rows_of(3000))
    assert found.shape == (3000, 5) and torch.allclose(found[:, 1:4].sum(1), torch.ones(3000))
    kept = found[:, 1:4].gather(1, own[:, 1:4].argmax(1, keepdim=True))
    assert kept.min().item() == pytest.approx(0.6, abs=0.01) and torch.equal(Encode(WIDTHS)(found), found)


@pytest.mark.parametrize(
    "operation", [Corrupt(0.5, table=TABLE), Noise(0.1, WIDTHS), Drop(0.3), Mixup(0.5, TABLE, WIDTHS)]
)
def test_a_row_gets_the_same_draws_in_any_batch(operation: torch.nn.Module) -> None:
    whole, part = operation(rows_of(12), draw(12)), operation(rows_of(12)[3:6], draw(3, first=3))
    assert torch.equal(whole[3:6].nan_to_num(9), part.nan_to_num(9))


def test_wrong_words_are_named() -> None:
    with pytest.raises(ValueError, match="table/corrupt: count=fixd: did you mean 'fixed'"):
        Corrupt(0.5, "fixd")  # type: ignore[arg-type]
