"""Pictures of what a masked-image method paints, from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import open_dict
from PIL import Image

from ssl_zoo import build, cli, config, runs
from ssl_zoo.errors import ConfigError
from ssl_zoo.report import reconstruction
from tests.helpers import tiny_config


def run_folder(name: str, folder: Path) -> Path:
    """As an untrained run of ``name`` on small synthetic images leaves it."""
    cfg = tiny_config(name)
    with open_dict(cfg):
        cfg.data.subset = 16
    info = build.build_data(cfg).info
    method = build.build_method(cfg, info)
    record = build.run_record(cfg, runs.Record.begin(config.plain(cfg)), info)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"ssl_zoo": record, "state_dict": method.state_dict()}, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.mark.parametrize("name", ["mae", "simmim"])
def test_a_row_for_each_image_beside_the_checkpoint(tmp_path, name, monkeypatch, capsys):
    drawn = []
    inner = reconstruction.grid
    monkeypatch.setattr(reconstruction, "grid", lambda *given: drawn.append(given) or inner(*given))
    run = run_folder(name, tmp_path / "run")
    assert cli.entry(["report", "reconstruction", str(run), "images=3"]) == 0
    assert Path(capsys.readouterr().out.strip()) == run / "reconstruction.png"
    with Image.open(run / "reconstruction.png") as picture:
        assert min(picture.size) > 100
    ((rows, titles, channels),) = drawn
    assert channels == 3
    assert titles == ("original", "masked", "reconstructed") and len(rows) == 3
    for original, masked, painted in rows:
        # Cells of 2 x 2 pixels that are the same in the original and in the masked picture are what the network saw.
        seen = (original == masked).reshape(8, 2, 8, 2, 3).all((1, 3, 4))
        assert seen.sum() == {"mae": 16, "simmim": 24}[name]
        same = (original == painted).reshape(8, 2, 8, 2, 3).all((1, 3, 4))
        assert (same == seen).all()


def test_another_seed_hides_other_patches(tmp_path: Path) -> None:
    run = run_folder("simmim", tmp_path / "run")
    first, again, other = (
        np.asarray(Image.open(reconstruction.reconstruction(str(run), 2, seed, out=str(tmp_path / f"{i}.png"))))
        for i, seed in enumerate((0, 0, 1))
    )
    assert (first == again).all() and (first != other).any()


def test_methods_without_pixels_and_no_image_are_refused(tmp_path: Path) -> None:
    run = run_folder("byol", tmp_path / "run")
    with pytest.raises(ConfigError, match="BYOL paints no pixels; these do: .*mae, .*simmim"):
        reconstruction.reconstruction(str(run))
    with pytest.raises(ConfigError, match="report reconstruction wants images >= 1, got 0"):
        reconstruction.reconstruction(str(run), 0)


def test_painters_are_found_by_what_they_can_do() -> None:
    assert set(reconstruction.painters()) >= {"mae", "simmim"}
    assert "byol" not in reconstruction.painters()
