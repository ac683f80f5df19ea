"""Pictures of sounds: waveforms above their spectrograms, a row for each recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_zoo import build, config
from ssl_zoo.report.sounds import NUMBERS, outline
from ssl_zoo.report.views import draw_views, preview


def test_waveforms_and_spectrograms_are_drawn(tmp_path: Path) -> None:
    small = ["method=simclr", "data=synthetic_audio", "data.source.samples=8", "data.batch_size=8"]
    cfg = config.load(small)
    path = preview(cfg, tmp_path / "deep" / "views.png")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    blue = (picture[..., 2] > picture[..., 0] + 60).mean()  # the lines of waveforms
    bright = ((picture[..., 0] > 200) & (picture[..., 2] < 160)).mean()  # the loud bands of spectrograms
    assert picture.shape[1] > 600 and blue > 0.01 and bright > 0.01
    data = build.build_data(cfg)
    before = torch.random.get_rng_state()
    assert draw_views(data, tmp_path / "again.png") == tmp_path / "again.png"
    assert torch.equal(before, torch.random.get_rng_state())
    assert (tmp_path / "again.png").read_bytes() == path.read_bytes()


def test_spectrograms_that_a_view_makes_are_drawn_as_they_are(tmp_path: Path) -> None:
    ops = "augmentation.views=[{ops: [{audio/crop: {window: 800}}, {audio/log_mel: {mels: 20}}]}]"
    cfg = config.load(["method=cpc", "data=synthetic_audio", "data.source.samples=4", "data.batch_size=4", ops])
    assert preview(cfg, tmp_path / "views.png").stat().st_size > 5000


def test_no_peak_of_a_long_recording_is_lost() -> None:
    wave = torch.zeros(100_000)
    wave[[7, 50_001]] = torch.tensor([2.0, -3.0])
    drawn = outline(wave)
    assert len(drawn) == NUMBERS and drawn.max() == 2 and drawn.min() == -3
    assert torch.equal(outline(wave[:100]), wave[:100])
