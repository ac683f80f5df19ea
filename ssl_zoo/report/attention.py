"""Where a trained transformer looks: the class token's attention over the patches, head by head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from ssl_zoo.backbones.base import Attention, backbone_of
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.views import denormalize, grid, picture

DIM = 0.25  # brightness of what a head hardly looks at


def class_attention(attention: Attention) -> Tensor:
    """Attention of the class token (the first) to each patch: ``[B, heads, h, w]``, the sum over the patches below 1.

    Raises:
        ConfigError: If the network has no class token.
    """
    if attention.prefix < 1:
        raise ConfigError("attention maps show where the class token looks, and this network has none")
    return attention.weights[:, :, 0, attention.prefix :].unflatten(-1, attention.grid)


def upsampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``[..., h, w]`` as large as the view, every patch of one value (visualize_attention.py of DINO)."""
    rows, columns = size[0] // maps.shape[-2], size[1] // maps.shape[-1]
    return maps.repeat_interleave(rows, -2).repeat_interleave(columns, -1)


def mass_mask(maps: Tensor, keep: float) -> Tensor:
    """The patches that hold the largest part of each map's attention, as ``--threshold`` of visualize_attention.py.

    Args:
        maps: ``[..., h, w]``, not negative.
        keep: Share of the sum that the patches kept must reach, in (0, 1].

    Returns:
        ``[..., h, w]`` bool: the patches in ascending order, without those whose sum stays at ``1 - keep`` or below.
    """
    flat = maps.flatten(-2)
    values, order = flat.sort(-1)
    kept = (values / values.sum(-1, keepdim=True)).cumsum(-1) > 1 - keep
    return kept.gather(-1, order.argsort(-1)).unflatten(-1, maps.shape[-2:])


def attention(
    run: str,
    images: int = 6,
    keep: float = 0.6,
    data_root: str | None = None,
    out: str | None = None,
    trust: Sequence[str] | str = (),
) -> Path:
    """Draw the last block's attention for the first evaluation images: ``ssl-zoo report attention RUN``.

    One row for each image: the image, what the mean over the heads looks at (the patches that hold ``keep`` of its
    attention; the rest is dimmed), and the map of each head, bright where it is highest.

    Args:
        run: Run folder or checkpoint.
        images: Rows.
        keep: Share of the attention inside of what is lit, in (0, 1].
        data_root: Folder of the data, where it has moved since the run.
        out: PNG to write; by default ``attention.png`` in the run folder.
        trust: Packages whose classes the run's configuration may name, besides the project's own.

    Raises:
        ConfigError: If the encoder has no attention, with the networks that have, or a number is out of range.
    """
    from ssl_zoo import build, runs  # imports every part of the library
    from ssl_zoo.evaluation.run import data_config

    if images < 1 or not 0 < keep <= 1:
        raise ConfigError(f"report attention wants images >= 1 and 0 < keep <= 1, got images={images}, keep={keep}")
    source = runs.find(run)
    method, trained, _ = build.load_method(source.file, trust)
    backbone = backbone_of(method.encoder)
    backbone.require_tokens("report attention")  # before any data is read
    data: Any = build.build_data_from_file(data_config(trained, {"root": data_root}))
    views = _first_views(data.val_loader() or data.train_eval_loader(), images)
    with torch.no_grad():
        maps = class_attention(backbone.forward_attention(views)).float()  # [B, heads, h, w]
    shown = [denormalize(view, data.views.normalize) for view in views]
    rows = [_row(view, heads, keep) for view, heads in zip(shown, maps, strict=True)]
    path = Path(out).expanduser() if out else source.folder / "attention.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    titles = ["image", f"{keep:.0%} of the mean", *(f"head {i}" for i in range(maps.shape[1]))]
    grid(rows, titles, data.channels).savefig(path, dpi=100)
    return path


def _first_views(loader: Iterable[Any], count: int) -> Tensor:
    """``[count, C, H, W]`` evaluation views; fewer if the data has fewer."""
    found: list[Tensor] = []
    for view, *_ in loader:
        found += view
        if len(found) >= count:
            break
    return torch.stack(found[:count])


def _row(view: Tensor, heads: Tensor, keep: float) -> list[np.ndarray]:
    """An image ``[C, H, W]`` in [0, 1] and the attention of its heads ``[heads, h, w]``."""
    lit = upsampled(mass_mask(heads.mean(0), keep), view.shape[-2:])
    low, high = heads.amin((-2, -1), keepdim=True), heads.amax((-2, -1), keepdim=True)
    heat = upsampled((heads - low) / (high - low).clamp(min=1e-12), view.shape[-2:])
    colours = [colormaps["viridis"](each.numpy())[..., :3] for each in heat]
    return [picture(view), picture(torch.where(lit, view, DIM * view)), *colours]
