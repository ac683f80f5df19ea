"""Pictures of what a method sees: the first rows of the first training batch, beside the images they were made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from ssl_zoo.augmentations.image.views import Normalize, ViewPipeline, unit
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.damage import Damage, readable
from ssl_zoo.errors import ConfigError
from ssl_zoo.signatures import locate

CELL = 1.25  # inches
DARK = 0.5  # pictures whose brightest pixels are below it are drawn brighter


def save_views(
    pipeline: ViewPipeline,
    images: Sequence[Tensor],
    path: str | Path,
    seed: int = 0,
    rows: int = 8,
) -> Path:
    """Draw a grid with one row per image: the image, then its views in the order in which the method gets them.

    The draws are those of the first training batch, and drawing has no effect on any other random number.

    Args:
        pipeline: Makes the views; its normalisation is undone for the picture.
        images: ``[C, H, W]`` as they are stored, of any sizes: row i sits in slot i of the epoch.
        path: PNG to write; its folder is made.
        seed: Of the run.
        rows: At most so many images.

    Returns:
        ``path``.
    """
    images = list(images[:rows])
    if not images:
        raise ValueError("there is no image to draw")
    views = [_views(pipeline, image, seed, slot) for slot, image in enumerate(images)]
    shown = [
        [picture(unit(image, pipeline.white)), *(picture(denormalize(view, pipeline.normalize)) for view in row)]
        for image, row in zip(images, views, strict=True)
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    titles = ["original", *_titles(pipeline, views[0])]
    grid(shown, titles, len(images[0])).savefig(path, dpi=100)
    return path


def save_data_views(data: Any, path: str | Path, rows: int = 8) -> Path:
    """:func:`save_views` for a data module: the samples that the first batch of epoch 0 begins with."""
    return save_views(data.views, first_images(data, rows), path, data.seed, rows)


def draw_views(data: Any, path: str | Path) -> Path | None:
    """Draw the views of the samples that the first batch of epoch 0 begins with, as their modality draws them.

    Returns:
        ``path``; None if nobody has said how.
    """
    drawn_by = data.augmentation.drawn_by
    return None if drawn_by is None else locate(drawn_by)(data, path)


def first_images(data: Any, rows: int) -> list[Tensor]:
    """The first training samples in the order of epoch 0; damaged files are replaced as they will be in training."""
    found = []
    for index in data.first(rows):
        sample = readable(data.train, index)
        if sample.sample is None:
            Damage(data.train.damage_limit, len(data.train)).add(sample.damaged)  # raises, as training would
        else:
            found.append(sample.sample)
    return found


def preview(cfg: DictConfig, path: str | Path = "preview.png") -> Path:
    """Draw the views of a configuration of ``train``: ``ssl-zoo preview augmentation=byol data=cifar10``.

    No network is built, and nothing is trained.
    """
    from ssl_zoo.build import build_data  # imports every part of the library, which the plots of a run do not need

    data = build_data(cfg, trains=False)
    for line in data.decisions:
        print(line)
    drawn = draw_views(data, path)
    if drawn is None:
        raise ConfigError(f"nobody has said how views of {type(data.augmentation).__name__} are drawn; name a function "
                          "of the data and a path in its drawn_by")
    return drawn


def brightening(pictures: Iterable[np.ndarray]) -> float:
    """How many times brighter dark pictures are drawn: their brightest pixels become white, but for one in a thousand.

    The range of a data set holds all bands and the brightest file; the bands that are shown may use little of it.
    """
    brightest = float(np.percentile(np.concatenate([cell.ravel() for cell in pictures]), 99.9))
    return 1 / brightest if 0 < brightest < DARK else 1.0


def drawn(channels: int, gain: float) -> str | None:
    """What is told of pictures: which bands :func:`picture` takes, and how much brighter they are; None: nothing."""
    some = f"band 0 of {channels}" if channels < 3 else f"bands 0, 1 and 2 of {channels} as red, green and blue"
    told = [some] * (channels not in (1, 3)) + [f"drawn {gain:.1f} times as bright"] * (gain > 1)
    return ", ".join(told) or None


def denormalize(view: Tensor, normalize: Normalize) -> Tensor:
    """A normalised view ``[C, H, W]`` back in [0, 1]; clipped, because interpolation may overshoot."""
    offset, scale = (normalize.get_buffer(name).cpu() for name in ("offset", "scale"))
    return ((view.cpu() - offset) / scale).clamp(0, 1)


def picture(image: Tensor) -> np.ndarray:
    """``[C, H, W]`` in [0, 1] -> ``[H, W]`` grey or ``[H, W, 3]``, the first three bands of more."""
    image = image[:3] if len(image) >= 3 else image[:1]
    return image.permute(1, 2, 0).squeeze(-1).cpu().numpy()


def _views(pipeline: ViewPipeline, image: Tensor, seed: int, slot: int) -> list[Tensor]:
    """All views of one image, made one sample at a time, so that images may have different sizes."""
    draw = Draw(stream_key(seed, "train", epoch=0), torch.tensor([slot]))
    return [mosaic(view.cpu()) for view in pipeline.full(image, draw)]


def mosaic(view: Tensor) -> Tensor:
    """Tiles ``[P, C, s, s]`` of a view as one picture ``[C, h, w]``, row by row; an image ``[C, H, W]`` as it is."""
    if view.ndim == 3:
        return view
    side = math.ceil(math.sqrt(len(view)))
    spare = view.new_zeros(side**2 - len(view), *view.shape[1:])
    return torch.cat([view, spare]).unflatten(0, (side, side)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def _titles(pipeline: ViewPipeline, views: Sequence[Tensor]) -> list[str]:
    n_global, _ = pipeline.counts
    kinds = [f"view {i}" if i < n_global else f"local {i - n_global}" for i in range(len(views))]
    return [f"{kind}, {view.shape[-1]} px" for kind, view in zip(kinds, views, strict=True)]


def grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], channels: int) -> Figure:
    """Pictures ``[h, w]`` or ``[h, w, 3]`` in [0, 1] side by side, one title for each column.

    A line below them says which of ``channels`` bands they show, and how much brighter the images of the first column,
    and all others with them, are drawn.
    """
    # No pyplot: nothing global is touched, so that a notebook or a server can draw.
    height, width, gain = len(rows), len(titles), brightening(row[0] for row in rows)
    figure = Figure(figsize=(width * CELL + 0.1, height * CELL + 0.35), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(height, width, squeeze=False)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            # Nearest: a 32-pixel image shows its pixels instead of a smoothing that no method sees.
            axes[i, j].imshow(np.minimum(image * gain, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[i, j].set_axis_off()
            axes[i, j].set_anchor("N")  # below its title, whatever its shape
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8, fontweight="bold" if title == "original" else "normal")
    if told := drawn(channels, gain):
        figure.supxlabel(told, fontsize=8)
    return figure
