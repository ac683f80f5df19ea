"""Networks for time series: sizes, missing numbers, pooling, what is refused, and pieces of long series."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.backbones.base import backbone_of
from ssl_zoo.backbones.series.encoding import multiscale, pooled, sliding
from ssl_zoo.backbones.series.ts2vec_encoder import ts2vec_encoder
from ssl_zoo.backbones.series.ts_tcc_encoder import length_after, ts_tcc_encoder
from ssl_zoo.errors import ConfigError

NAN = float("nan")


def series(steps: int = 20, channels: int = 3) -> torch.Tensor:
    return torch.randn(4, steps, channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_ts2vec_has_the_authors_size_and_takes_any_length() -> None:
    net = ts2vec_encoder(3).double().eval()
    assert sum(p.numel() for p in net.parameters()) == 637_312 + 64 and net.out_features == 320
    assert net(series(20)).shape == (4, 320) and net(series(33)).shape == (4, 320)
    assert backbone_of(net) is net and net.example().shape == (2, 32, 3)


def test_a_step_with_a_missing_number_is_a_step_that_is_not_seen() -> None:
    net = ts2vec_encoder(3, 8, 4, 2).double().eval()
    view = series()
    keep = torch.ones(4, 20, dtype=torch.bool)
    keep[1, 5] = False
    view[1, 5, 0] = NAN
    other = view.clone()
    other[1, 5] = 7.0
    before = view.clone()
    torch.testing.assert_close(net.forward_steps(view), net.forward_steps(other, keep), rtol=0, atol=0)
    assert torch.equal(view.nan_to_num(9), before.nan_to_num(9))  # the authors write into it
    assert net.forward_steps(view).isfinite().all()


def test_ts_tcc_makes_of_har_what_its_authors_say() -> None:
    net = ts_tcc_encoder(9, 128).eval()
    assert net.forward_sequence(torch.zeros(2, 128, 9)).shape == (2, 128, 18) and net.out_features == 128 * 18
    assert net.sequence(128) == (128, 18) and length_after(128, 8, 1) == 18
    view = torch.randn(2, 128, 9)
    torch.testing.assert_close(net(view), net.forward_sequence(view).flatten(1))
    for pool in ("mean", "max"):
        assert ts_tcc_encoder(9, 128, pool=pool)(torch.zeros(2, 99, 9)).shape == (2, 128)
    view[0, 3] = NAN
    assert net(view).isfinite().all()


def test_other_series_than_it_was_built_for_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"'ts2vec_encoder' takes series \[B, T, 3\], got \[4, 20, 2\]; leave"):
        ts2vec_encoder(3)(series(channels=2))
    with pytest.raises(ConfigError, match=r"takes series of 30 steps, got 20; backbone.pool=mean or max takes any"):
        ts_tcc_encoder(3, 30)(series())
    with pytest.raises(ConfigError, match=r"backbone.widths=\[1\]: wanted two"):
        ts_tcc_encoder(3, 30, widths=[1])
    with pytest.raises(ConfigError, match="'ts_tcc_encoder' has no features of each step; these have: ts2vec_encoder"):
        ts_tcc_encoder(3, 30).forward_steps(series(30))


def test_windows_of_features() -> None:
    steps = torch.tensor([[[0.0], [5.0], [1.0], [2.0], [3.0]]])
    assert pooled(steps, 3).flatten().tolist() == [5, 5, 5, 3, 3]
    assert pooled(steps, 4).flatten().tolist() == [5, 5, 5, 5, 3]
    assert multiscale(steps)[0].T.tolist() == [[5, 5, 5, 3, 3], [5, 5, 5, 5, 3]]


@pytest.mark.parametrize("causal", [True, False])
def test_pieces_see_what_is_beside_them_and_no_further(causal: bool) -> None:
    def count(view: torch.Tensor) -> torch.Tensor:
        """Of each step how many numbers there are in its piece."""
        return (~view.isnan()).sum(1, keepdim=True).expand_as(view)

    got = sliding(count, torch.zeros(1, 7, 1), length=2, padding=3, causal=causal)
    want = [2, 2, 4, 4, 5, 5, 4, 4] if causal else [5, 5, 7, 7, 6, 6, 4, 4]
    assert got.flatten().tolist() == want
