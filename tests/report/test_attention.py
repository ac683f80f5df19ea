"""Attention maps: which patches are kept, and the picture of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from ssl_zoo import cli, worker
from ssl_zoo.backbones.base import Attention
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.attention import class_attention, mass_mask, upsampled
from tests.helpers import TINY_VIT, tiny_config

RUN = ["data.source.samples=16", "data.source.val_samples=8", "trainer=cpu", "trainer.max_epochs=1", "logger=none"]


def test_the_class_token_looks_at_patches_and_not_at_registers() -> None:
    weights = torch.arange(36.0).view(1, 1, 6, 6)
    assert class_attention(Attention(weights, 2, (2, 2))).tolist() == [[[[2.0, 3.0], [4.0, 5.0]]]]
    with pytest.raises(ConfigError, match="where the class token looks, and this network has none"):
        class_attention(Attention(weights, 0, (2, 3)))


def test_the_patches_kept_hold_the_wanted_share() -> None:
    maps = torch.tensor([[[1.0, 4.0], [2.0, 3.0]]])
    # Ascending sums: .1, .3, .6, 1; a patch is left out while the sum stays at 1 - keep or below.
    for keep, wanted in ((1.0, [1, 1, 1, 1]), (0.8, [0, 1, 1, 1]), (0.5, [0, 1, 0, 1]), (0.3, [0, 1, 0, 0])):
        assert mass_mask(maps, keep).int().flatten().tolist() == wanted


def test_a_patch_is_a_square_of_one_value() -> None:
    assert upsampled(torch.tensor([[1.0, 2.0]]), (2, 4)).tolist() == [[1.0, 1.0, 2.0, 2.0]] * 2


def trained(folder: Path, *extra: str) -> Path:
    cfg = tiny_config("dino", [*RUN, "callbacks=none", *extra], tiny=False)
    cfg.run_dir = str(folder)
    worker.run(cfg, folder)
    return folder


def test_the_picture_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "a=b", "backbone=vit_mini", *TINY_VIT)
    capsys.readouterr()
    assert cli.entry(["report", "attention", str(run), "images=3"]) == 0
    assert capsys.readouterr().out == f"{run / 'attention.png'}\n"
    # An image, what the heads look at together, two heads; three images and a line of titles.
    assert Image.open(run / "attention.png").size == (510, 410)
    file, elsewhere = run / "checkpoints" / "last.ckpt", tmp_path / "x" / "y.png"
    assert cli.entry(["report", "attention", str(file), f"out={elsewhere}"]) == 0
    assert elsewhere.is_file()
    for words, told in (
        ([], "RUN is missing, a run folder or a checkpoint"),
        ([str(run), "image=3"], "report attention.image: attention has no argument 'image'; did you mean 'images'?"),
        ([str(run), "keep=2"], "wants images >= 1 and 0 < keep <= 1, got images=6, keep=2"),
        ([str(tmp_path / "no.ckpt")], "there is no such file"),
    ):
        assert cli.entry(["report", "attention", *words]) == 1
        assert told in capsys.readouterr().err
    assert cli.entry(["report", "atention", str(run)]) == 1
    assert "which picture? did you mean 'attention'?" in capsys.readouterr().err


def test_a_network_without_attention_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "run", "backbone.width=4")
    assert cli.entry(["report", "attention", str(run)]) == 1
    assert "report attention needs a vision transformer: backbone 'resnet8' has no tokens" in capsys.readouterr().err
