"""Pictures of what a method hears: recordings, the windows that its views cut, and their log-mel spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ssl_zoo.augmentations.audio.log_mel import LogMel
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.report.views import first_images

WIDTH, HEIGHT = 2.2, 1.5  # inches of a cell: a waveform above its spectrogram
NUMBERS = 1200  # of a waveform that are drawn: pairs of the lowest and the highest within a piece


def save_sound_views(data: Any, path: str | Path, rows: int = 6) -> Path:
    """Draw one row for each recording that the first batch of epoch 0 begins with: the whole of it, then its views.

    Above each spectrogram stands its waveform, where the view is one. The draws are those of the first training batch.

    Args:
        data: Data module.
        path: PNG to write; its folder is made.
        rows: At most so many recordings.

    Returns:
        ``path``.
    """
    samples = first_images(data, rows)
    rate = data.facts["sample_rate"]
    front = LogMel(rate)
    cells = [[sample, *_views(data, sample, slot)] for slot, sample in enumerate(samples)]
    titles = [f"recording, {rate} Hz", *(f"view {i}, {_words(view, rate)}" for i, view in enumerate(cells[0][1:]))]
    figure = Figure(figsize=(len(titles) * WIDTH, len(cells) * HEIGHT + 0.3), layout="constrained")
    axes = figure.subplots(2 * len(cells), len(titles), squeeze=False, height_ratios=[1, 2] * len(cells))
    for i, row in enumerate(cells):
        for j, view in enumerate(row):
            _draw(axes[2 * i, j], axes[2 * i + 1, j], view, front)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8, fontweight="bold" if title.startswith("recording") else "normal")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def _views(data: Any, sample: Tensor, slot: int) -> list[Tensor]:
    draw = Draw(stream_key(data.seed, "train", epoch=0), torch.tensor([slot]))
    return [view[0].cpu() for view in data.views.full(sample, draw)]


def _words(view: Tensor, rate: int) -> str:
    """How long a window is, or how large a spectrogram."""
    return f"{view.shape[-1] / rate:.2f} s" if view.ndim == 2 else f"{view.shape[-2]} x {view.shape[-1]}"


def _draw(above: Axes, below: Axes, view: Tensor, front: LogMel) -> None:
    """The first channel of a waveform ``[C, L]`` and of its spectrogram, or of a spectrogram ``[C, M, F]`` alone."""
    above.set_axis_off()
    below.set_axis_off()
    if view.ndim == 2:
        above.plot(outline(view[0]).numpy(), linewidth=0.5, color="tab:blue")
        view = front(view[None])[0]
    below.imshow(view[0].numpy(), origin="lower", aspect="auto", cmap="magma", interpolation="nearest")


def outline(wave: Tensor) -> Tensor:
    """``[L]`` as at most NUMBERS numbers, the lowest and the highest of each piece, so that no peak is lost."""
    if len(wave) <= NUMBERS:
        return wave
    pieces = torch.tensor_split(wave, NUMBERS // 2)
    return torch.stack([torch.stack([piece.min(), piece.max()]) for piece in pieces]).flatten()
