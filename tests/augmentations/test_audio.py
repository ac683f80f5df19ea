"""Operations on windows and recordings, against numbers that can be checked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.audio.log_mel import LogMel, mel_filters
from ssl_zoo.augmentations.audio.views import ViewPipeline
from ssl_zoo.augmentations.audio.waves import Waves
from ssl_zoo.augmentations.rng import Draw, RecordedDraw, stream_key
from ssl_zoo.errors import ConfigError

RATE = 8000
NAMES = [name for name in registry.names() if name.startswith("audio/")]
FACTS = {"sample_rate": RATE, "channels": 1}


def op(name: str, **options: Any) -> Any:
    return registry.build({name: options}, facts=FACTS)


def draw(rows: int, seed: int = 0) -> Draw:
    return Draw(stream_key(seed, "test", 0), torch.arange(rows))


def tones(rows: int = 4, length: int = 1024, pitch: float = 500.0) -> Tensor:
    time = torch.arange(length) / RATE
    return torch.stack([torch.sin(2 * math.pi * pitch * time + i) for i in range(rows)])[:, None]


def peak(x: Tensor) -> Tensor:
    """``[B]`` Hz of the strongest frequency."""
    return torch.fft.rfft(x[:, 0]).abs().argmax(1) * RATE / x.shape[-1]


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_draws_of_its_own_that_no_batch_changes(name: str) -> None:
    x, made = tones(4, 1000), op(name, **({"window": 300} if name == "audio/crop" else {}))
    whole, rows = made(x, draw(4)), draw(4)
    for part in (slice(0, 1), slice(1, 2), slice(2, 4)):
        slots = torch.arange(4)[part]
        torch.testing.assert_close(made(x[part], Draw(rows.key, slots)), whole[part], rtol=1e-6, atol=1e-7)
    assert whole.isfinite().all() and len(whole) == 4


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("audio/crop", "audio/pitch")])
def test_what_works_on_windows_says_that_they_must_be_cut_first(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} works on windows of one length; put audio/crop before it"):
        op(name)(Waves.of([torch.zeros(1, 5)]), draw(1))


@pytest.mark.parametrize(
    ("fill", "place", "share", "wanted"),
    [
        ("zeros", "middle", None, [[2, 3, 4, 5], [0, 1, 2, 0]]),
        ("zeros", "random", 0.99, [[3, 4, 5, 6], [1, 2, 0, 0]]),
        ("zeros", "random", 0.0, [[1, 2, 3, 4], [0, 0, 1, 2]]),
        ("loop", "middle", None, [[2, 3, 4, 5], [1, 2, 1, 2]]),
        ("loop", "random", 0.99, [[3, 4, 5, 6], [2, 1, 2, 1]]),
    ],
)
def test_crops_of_long_and_of_short_recordings(fill: str, place: str, share: Any, wanted: Any) -> None:
    waves = Waves.of([torch.arange(1.0, 7.0)[None], torch.arange(1.0, 3.0)[None]])
    given = RecordedDraw({} if share is None else {"place": torch.full((2,), share)})
    assert op("audio/crop", window=4, fill=fill, place=place)(waves, given)[:, 0].tolist() == wanted


def test_random_crops_reach_every_place_equally_often() -> None:
    waves = Waves.of([torch.arange(10.0)[None]] * 4000)
    first = op("audio/crop", window=7)(waves, draw(4000))[:, 0, 0]
    counts = torch.bincount(first.long(), minlength=4)
    assert len(counts) == 4 and counts.min() > 900


def test_gain_is_in_decibels_and_noise_has_the_power_that_was_asked_for() -> None:
    x = tones(64)
    louder = op("audio/gain", decibels=[6.0, 6.0])(x, draw(64))
    assert (louder / x)[0, 0, 1].item() == pytest.approx(10 ** (6 / 20), rel=1e-5)
    noise = op("audio/noise", snr=[10.0, 10.0], p=1.0)(x, draw(64)) - x
    ratio = x.square().mean() / noise.square().mean()
    assert 10 * math.log10(ratio) == pytest.approx(10, abs=0.1)
    assert torch.equal(op("audio/noise", p=0.0)(x, draw(64)), x)


def test_a_shift_turns_the_window() -> None:
    x = torch.arange(8.0).expand(3, 1, 8)
    given = RecordedDraw({"by": torch.tensor([1.0, 0.5, 0.0]), "hit": torch.zeros(3)})
    moved = op("audio/shift", most=0.25)(x, given)[:, 0].tolist()
    assert moved == [[6, 7, 0, 1, 2, 3, 4, 5], list(range(8)), [2, 3, 4, 5, 6, 7, 0, 1]]


def test_pitch_moves_a_tone_by_semitones_and_changes_the_length_of_a_recording() -> None:
    given = RecordedDraw({"pitch": torch.tensor([0.0, 0.5, 1.0]), "hit": torch.zeros(3)})
    x = tones(3, 4096)
    found = op("audio/pitch", semitones=12.0)(x, given)
    assert peak(found).tolist() == pytest.approx([250, 500, 1000], abs=3)
    torch.testing.assert_close(found[1], x[1])
    whole = op("audio/pitch", semitones=12.0)(Waves(x, torch.full((3,), 4096)), given)
    assert whole.lengths.tolist() == [8192, 4096, 2048] and not whole.values[2, 0, 2048:].any()
    inner = torch.sin(2 * math.pi * 1000 * torch.arange(2048) / RATE + 2)
    torch.testing.assert_close(whole.values[2, 0, 20:2000], inner[20:2000], atol=2e-2, rtol=0)


def test_a_tone_above_the_new_half_rate_is_filtered_out() -> None:
    given = RecordedDraw({"pitch": torch.ones(1), "hit": torch.zeros(1)})
    assert op("audio/pitch", semitones=12.0)(tones(1, 2048, 3500.0), given)[..., 50:900].abs().max() < 0.05


def test_reverb_follows_the_sound_and_dies_away() -> None:
    x = torch.zeros(2, 1, 2048)
    x[..., 100] = 1.0
    found = op("audio/reverb", seconds=[0.1, 0.1], wet=1.0, p=1.0)(x, draw(2))[:, 0]
    assert not found[:, :100].abs().gt(1e-5).any() and torch.allclose(found[:, 100], torch.ones(2), atol=1e-5)
    early, late = found[:, 101:300].square().sum(1), found[:, 700:].square().sum(1)
    assert (early > 20 * late).all() and (early > 0.01).all()


def test_a_dropped_band_is_silent_and_the_others_stay() -> None:
    x = torch.randn(16, 1, 1024, generator=torch.Generator().manual_seed(0))
    found = op("audio/band_drop", width=0.5, p=1.0)(x, draw(16))
    before, after = torch.fft.rfft(x).abs(), torch.fft.rfft(found).abs()
    kept = after > 1e-3
    torch.testing.assert_close(after[kept], before[kept], rtol=1e-3, atol=1e-3)
    assert 0.15 < (~kept).float().mean() < 0.35


def test_standardised_windows_forget_the_microphone() -> None:
    x = tones()
    made = op("audio/standardize")
    torch.testing.assert_close(made(x, draw(4)), made(0.01 * x + 3, draw(4)), rtol=1e-3, atol=1e-3)
    assert not made(torch.zeros(1, 1, 9), draw(1)).any()


def test_log_mel_shows_a_tone_in_its_band() -> None:
    front = LogMel(RATE, mels=20)
    bands = front(tones(2, 4000, 1000.0))
    assert bands.shape == (2, 1, 20, 51)
    filters = mel_filters(20, front.bins // 2 + 1, RATE, 20.0)
    wanted = filters[:, round(1000 / RATE * front.bins)].argmax()
    assert (bands[:, 0, :, 25].argmax(1) == wanted).all()
    # A tone of amplitude 1 in a Hann window of N: (N / 4)^2 at its bin, and by Parseval bins * 3 N / 8 / 4 in all bins.
    power = bands[0, 0, :, 25].exp().max().item()
    assert (front.length / 4) ** 2 < power < front.bins * 3 * front.length / 8 / 4
    torch.testing.assert_close(front.double()(tones(2, 4000, 1000.0).double()).float(), bands, rtol=1e-3, atol=1e-3)


def test_mel_filters_are_triangles_and_too_many_are_refused() -> None:
    filters = mel_filters(10, 257, RATE)
    assert filters.shape == (10, 257) and filters.max() <= 1 and (filters > 0).sum(1).min() >= 2
    # 700 (10^(m / 2595) - 1) at the middle of 0 .. 2146.06 mel, the fifth of nine inner corners.
    assert mel_filters(9, 4001, RATE)[4].argmax().item() == round(700 * (10 ** (1073.03 / 2595) - 1))
    with pytest.raises(ValueError, match="200 mel bands of 8000 Hz are too narrow for a spectrum of 129 bins"):
        mel_filters(200, 129, RATE)


def test_workers_cut_first_and_the_rest_is_done_in_batches() -> None:
    ops = [{"audio/crop": {"window": 64}}, {"audio/noise": {"p": 1.0}}]
    pipeline = ViewPipeline([{"count": 2, "ops": ops}], FACTS, Waves.of)
    samples = [torch.randn(1, n) for n in (50, 200)]
    views, _ = pipeline(Waves.of(samples), draw(2))
    cut = [pipeline.crop(x, Draw(draw(2).key, torch.tensor([i]))) for i, x in enumerate(samples)]
    prepared = [torch.cat(parts) for parts in zip(*cut, strict=True)]
    again, _ = pipeline(prepared, draw(2), prepared=True)
    assert all(torch.equal(x, y) for x, y in zip(views, again, strict=True)) and prepared[0].shape == (2, 1, 64)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"audio/crop": {}}, "audio/crop needs the option 'window'"),
        ({"audio/crop": {"window": 4, "fill": "one"}}, "audio/crop: fill=one: there are: loop, zeros"),
        ({"audio/noise": {"snr": [9.0, 1.0]}}, r"audio/noise: snr is \[9.0, 1.0\], wanted \[lowest, highest\]"),
        ({"audio/reverb": {"seconds": [0.0, 1.0]}}, "audio/reverb: seconds is .*, wanted numbers above 0"),
        ({"audio/shift": {"most": 2.0}}, "audio/shift: most is 2.0, wanted"),
        ({"audio/cropp": {}}, "no augmentation is called 'audio/cropp': did you mean 'audio/crop'"),
    ],
)
def test_wrong_options_are_told(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewPipeline([{"ops": [entry]}], FACTS, Waves.of)


def test_a_view_without_a_window_says_what_is_missing() -> None:
    pipeline = ViewPipeline([{"ops": [{"audio/pitch": {}}]}], FACTS, Waves.of)
    with pytest.raises(ValueError, match="networks take windows: put audio/crop among the ops"):
        pipeline(Waves.of([torch.zeros(1, 99)]), draw(1))
