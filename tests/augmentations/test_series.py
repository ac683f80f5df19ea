"""Operations on time series: what each does to known numbers, and that draws belong to samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, RecordedDraw, stream_key
from ssl_zoo.augmentations.series.operations import Crop, Jitter, Mask, Permute, Scale, between, ends, permuted

NAMES = ["series/crop", "series/jitter", "series/mask", "series/permute", "series/scale"]
NAN = float("nan")


def ramp(steps: int = 10, channels: int = 2) -> Tensor:
    """``[1, T, C]``: step number, and ten times it."""
    return torch.stack([torch.arange(steps).float() * 10**c for c in range(channels)], 1)[None]


def draw_for(rows: int, first: int = 0) -> Draw:
    return Draw(stream_key(0, "train", 0), torch.arange(first, first + rows))


def test_these_are_all() -> None:
    assert [name for name in registry.names() if name.startswith("series/")] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_draws_belong_to_samples_and_shapes_stay(name: str) -> None:
    view = torch.randn(6, 12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    view[1, 9:] = NAN
    op = registry.build({name: {}})
    whole = op(view, draw_for(6))
    assert whole.shape == view.shape and whole.dtype == view.dtype
    parts = torch.cat([op(view[:2], draw_for(2)), op(view[2:], draw_for(4, 2))])
    assert torch.equal(whole.nan_to_num(99), parts.nan_to_num(99))
    assert not torch.equal(whole.nan_to_num(99), view.nan_to_num(99))


def test_a_piece_is_stretched_on_straight_lines() -> None:
    drawn = RecordedDraw({"share": torch.tensor([0.0]), "first": torch.tensor([0.5])})
    got = Crop(least=0.5)(ramp(), drawn)  # 5 of 10 steps, from step 3 on
    want = 3 + torch.arange(10) * 4 / 9
    torch.testing.assert_close(got[0], torch.stack([want, 10 * want], 1))
    kept = Crop(least=0.5, stretch=False)(ramp(), drawn)[0, :, 0]
    assert kept[3:8].tolist() == [3, 4, 5, 6, 7] and kept.isnan().sum() == 5


def test_a_piece_of_a_short_series_lies_in_what_there_is_of_it() -> None:
    view = ramp()
    view[:, 6:] = NAN
    assert ends(view).tolist() == [6]
    drawn = RecordedDraw({"share": torch.tensor([0.0]), "first": torch.tensor([0.999])})
    got = Crop(least=0.5)(view, drawn)[0, :, 0]  # the last 3 of 6
    torch.testing.assert_close(got[:6], 3 + torch.arange(6) * 2 / 5)
    assert got[6:].isnan().all()
    whole = Crop(least=1.0)(view, draw_for(1))
    torch.testing.assert_close(whole, view, equal_nan=True)


def test_between_does_not_let_a_missing_neighbour_spoil_a_number_that_is_there() -> None:
    view = torch.tensor([[[1.0], [NAN]]])
    assert between(view, torch.tensor([[0.0, 0.5]]))[0, :, 0].isnan().tolist() == [False, True]


def test_steps_become_missing_in_all_channels_alone_or_in_runs() -> None:
    hit = torch.tensor([[0.05, 0.5, 0.05, 0.5, 0.5]])
    got = Mask(p=0.1, run=2)(ramp(9), RecordedDraw({"hit": hit}))
    assert got.isnan()[0].all(1).nonzero().flatten().tolist() == [0, 1, 4, 5] and got.isnan().sum() == 8
    share = Mask(p=0.3)(torch.zeros(200, 100, 1), draw_for(200)).isnan().float().mean()
    assert share.item() == pytest.approx(0.3, abs=0.01)


def test_noise_and_factors_have_the_deviation_and_the_mean_that_are_asked_for() -> None:
    ones = torch.ones(500, 40, 2)
    noise = Jitter(0.8)(ones, draw_for(500))
    assert (noise.mean().item(), noise.std().item()) == pytest.approx((1.0, 0.8), abs=0.02)
    factor = Scale(1.1, mean=2.0, each="step")(ones, draw_for(500))
    assert (factor.mean().item(), factor.std().item()) == pytest.approx((2.0, 1.1), abs=0.03)
    assert torch.equal(factor[..., 0], factor[..., 1])  # one for all channels
    whole = Scale(0.5, each="series")(ones, draw_for(500))
    assert (whole == whole[:, :1, :1]).all() and whole[:, 0, 0].unique().numel() > 490
    channel = Scale(0.5, each="channel")(ones, draw_for(500))
    assert (channel == channel[:, :1]).all() and (channel[..., 0] != channel[..., 1]).all()


def test_pieces_in_another_order() -> None:
    cuts, order = torch.tensor([[2, 5, 10]]), torch.tensor([[2, 0, 1, 3]])  # 0-1, 2-4, 5-9, and an empty one
    got = permuted(ramp(), cuts, order)
    assert got[0, :, 0].tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4] and torch.equal(got[..., 1], 10 * got[..., 0])
    first = permuted(ramp(), cuts, order, first_channel=True)
    assert torch.equal(first[..., 1], got[..., 0])
    alone = permuted(ramp(), torch.tensor([[10, 10, 10]]), torch.tensor([[0, 1, 2, 3]]), first_channel=True)
    assert torch.equal(alone, ramp())  # one piece: nothing is overwritten


def test_every_number_of_pieces_is_equally_likely_and_every_step_stays() -> None:
    view = torch.arange(30.0).expand(4000, -1)[..., None]
    moved = Permute(5)(view, draw_for(4000))[..., 0]
    assert torch.equal(moved.sort(1).values, view[..., 0])
    jumps = (moved.diff(dim=1) != 1).sum(1)
    untouched = (jumps == 0).float().mean().item()
    # One piece; of two pieces every other order is the same (or a cut before step 0), of three one in six, ...
    least = (1 + 1 / 2 + 1 / 6 + 1 / 24) / 4
    assert least - 0.03 < untouched < least + 0.08 and int(jumps.max()) <= 3
    assert math.isclose(Permute(1)(view, draw_for(4000))[3, 7, 0], 7)
