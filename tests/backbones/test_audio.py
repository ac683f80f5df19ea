"""Networks that listen: sizes, what they refuse, and what an export needs of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_zoo.backbones.audio.cpc import ChannelNorm, cpc_encoder, shortest
from ssl_zoo.backbones.audio.log_mel_resnet import audio_resnet8
from ssl_zoo.errors import ConfigError


@pytest.mark.parametrize(
    ("rate", "frames", "least"),
    [(16000, 20480 // 160, 161), (8000, 20480 // 80 - 1, 161)],
)
def test_cpc_makes_a_hundred_frames_a_second(rate: int, frames: int, least: int) -> None:
    network = cpc_encoder(rate, width=8, context=6)
    found = network.forward_frames(torch.randn(2, 1, 20480))
    assert found.encoded.shape == (2, frames, 8) and found.context.shape == (2, frames, 6)
    assert network.frame_widths == (6, 8) and network.out_features == 6
    torch.testing.assert_close(network(torch.ones(2, 1, 4000)), network.forward_frames(torch.ones(2, 1, 4000)).pooled)
    strides = network.origin.arguments["strides"]
    assert network.forward_frames(torch.randn(1, 1, shortest(strides))).encoded.shape[1] == 1
    with pytest.raises(ConfigError, match=f"got windows of 5 samples, wanted at least {shortest(strides)}; set augmen"):
        network(torch.zeros(1, 1, 5))


def test_what_is_judged_is_the_mean_of_the_context_or_the_last_one() -> None:
    torch.manual_seed(0)
    view = torch.randn(2, 1, 2000)
    for pooling in ("mean", "last"):
        network = cpc_encoder(8000, width=8, context=6, pooling=pooling)  # type: ignore[arg-type]
        context = network.forward_frames(view).context
        torch.testing.assert_close(network(view), context.mean(1) if pooling == "mean" else context[:, -1])


def test_a_context_knows_nothing_of_what_follows() -> None:
    network = cpc_encoder(8000, width=8, context=6).double()
    view = torch.randn(1, 1, 4000, dtype=torch.float64)
    later = view.clone()
    later[..., 2400:] = 0
    a, b = (network.forward_frames(x) for x in (view, later))
    same = (a.context == b.context).all(2)[0]
    assert same[:20].all() and not same[35:].any()


def test_a_channel_norm_divides_by_the_unbiased_deviation() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    wanted = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(ChannelNorm(5).double()(x), wanted)


def test_a_spectrogram_may_be_made_by_the_network_or_by_the_view() -> None:
    network = audio_resnet8(8000, width=8).eval()
    view = torch.randn(2, 1, 4000)
    assert network(view).shape == (2, 32) == (2, network.out_features)
    assert torch.equal(network(network.net.front(view)), network(view))
    assert not [name for name in network.net.state_dict() if name.startswith("front")]


@pytest.mark.parametrize("make", [audio_resnet8, cpc_encoder])
def test_examples_and_views_that_are_refused(make: Any) -> None:
    network = make(8000, 2).eval()
    assert torch.equal(network(network.example()), network(network.example()))
    with pytest.raises(ConfigError, match=r"got a view \[3, 1, 9999\], wanted windows \[B, 2, T\]"):
        network(torch.zeros(3, 1, 9999))
    assert "at 8000 Hz" in network.preprocessing({"augmentation": {"views": [], "window": 7}})["input"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": [5, 4]}, r"backbone.strides=\[5, 4\] of 'cpc_encoder': wanted 5 numbers"),
        ({"norm": "layer"}, "backbone.norm=layer: there are: batch, channel"),
        ({"pooling": "max"}, "backbone.pooling=max: there are: last, mean"),
    ],
)
def test_wrong_settings_are_told(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cpc_encoder(8000, **options)
