"""What a method paints: the image, what the network saw of it, and what it makes of that."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ssl_zoo.augmentations.image.views import unit
from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.views import denormalize, grid, picture

PICTURES = ("masked", "reconstructed")  # of a method that does not say otherwise


def reconstruction(
    run: str,
    images: int = 8,
    seed: int = 0,
    data_root: str | None = None,
    out: str | None = None,
    trust: Sequence[str] | str = (),
) -> Path:
    """Draw the first evaluation images, masked and painted again: ``ssl-zoo report reconstruction RUN``.

    One row for each image. Patches that the network saw are drawn as they are, hidden ones as it predicts them; a
    method whose target is standardised gets the mean and deviation of the true patch back. A method that names its
    ``pictures`` (brightness, and the colours that it gives it) has the stored image beside them.

    Args:
        run: Run folder or checkpoint of a method with ``reconstruct(view, rng)``.
        images: Rows.
        seed: Of the masks.
        data_root: Folder of the data, where it has moved since the run.
        out: PNG to write; by default ``reconstruction.png`` in the run folder.
        trust: Packages whose classes the run's configuration may name, besides the project's own.

    Raises:
        ConfigError: If the method paints no pixels, with the methods that do, or ``images`` is below 1.
    """
    from ssl_zoo import build, runs  # imports every part of the library
    from ssl_zoo.evaluation.run import data_config

    if images < 1:
        raise ConfigError(f"report reconstruction wants images >= 1, got {images}")
    source = runs.find(run)
    method, trained, _ = build.load_method(source.file, trust)
    paint = getattr(method, "reconstruct", None)
    if paint is None:
        raise ConfigError(f"{type(method).__name__} paints no pixels; these do: {', '.join(painters())}")
    data: Any = build.build_data_from_file(data_config(trained, {"root": data_root}))
    loader = data.val_loader() or data.train_eval_loader()
    views = torch.cat([batch[0] for batch, _ in zip(loader, range(images), strict=False)])[:images]
    rng = BatchRNG(seed, epoch=0, micro=0, slot=torch.arange(len(views)), stream="picture")
    own = getattr(method, "pictures", None)
    columns = [[picture(denormalize(view, data.views.normalize)) for view in x] for x in (views, *paint(views, rng))]
    if own is not None:  # its views are no pictures
        rows, train = loader.rows[: len(views)].tolist(), data.val is None
        columns[0] = [picture(unit(data.sample(row, train), data.white)) for row in rows]
    path = Path(out) if out else source.folder / "reconstruction.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(list(zip(*columns, strict=True)), ("original", *(own or PICTURES)), data.channels).savefig(path, dpi=100)
    return path


def painters() -> list[str]:
    """Names of the methods that can reconstruct an image."""
    from ssl_zoo.signatures import locate

    found = []
    for file in files("ssl_zoo.conf").joinpath("method").iterdir():
        if file.name.endswith(".yaml"):
            target = OmegaConf.select(OmegaConf.create(file.read_text()), "method._target_")
            if target is not None and hasattr(locate(target), "reconstruct"):
                found.append(file.name.removesuffix(".yaml"))
    return sorted(found)
