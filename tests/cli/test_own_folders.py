"""The folders that people have, each with a contrastive method, one with a queue, one of teachers and one of masks.

Trained to the end, told, drawn, judged and exported with the same range and statistics, all through the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from ssl_zoo import runs
from tests.cli.commands import run
from tests.data import deep

RESNET = ["backbone=resnet8", "backbone.width=8"]
METHODS = {
    "simclr": RESNET,
    "moco_v2": [*RESNET, "method.queue_size=64", "batch_norm.group=8"],
    "dino": RESNET,
    "mae": ["backbone.embed_dim=16", "backbone.depth=2", "backbone.num_heads=2"],
}
COMMON = ["data=folder", "data.image_size=32", "data.batch_size=8", "data.workers=0", "data.source.cache=false",
          "trainer.max_epochs=2", "trainer=cpu", "logger=csv", "few_labels=null", "hydra.run.dir=run"]  # fmt: skip


def photograph(i: int) -> Image.Image:
    """A bright disc in colour."""
    return Image.fromarray((np.moveaxis(deep.bands(i, 3), 0, -1) * 255).astype(np.uint8))


def mixed_tree(root: Path) -> str:
    """Training/ and Validation/, two classes, formats that not every list of suffixes knows."""
    kinds = ("jfif", "jp2", "tga", "pnm", "png", "webp")
    for i in range(36):
        folder = root / "tree" / ("Validation" if i >= 24 else "Training") / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(i).save(folder / f"{i:03}.{kinds[i // 2 % len(kinds)]}")
        (folder / "notes.xyz").write_text("x")
    (root / "tree/Training/@eaDir").mkdir()
    return "tree"


def twenty_threes(root: Path) -> str:
    for i in range(60):
        folder = root / "tree" / f"kind{i // 3:02}"
        folder.mkdir(parents=True, exist_ok=True)
        photograph(i).save(folder / f"{i % 3}.jpg")
    return "tree"


def table(root: Path) -> str:
    (root / "images").mkdir()
    lines = ["path,label,split"]
    for i in range(36):
        photograph(i).save(root / f"images/{i:03}.jpg")
        lines.append(f"images/{i:03}.jpg,{('odd', 'even')[i % 2]},{'val' if i >= 24 else 'train'}")
    (root / "list.csv").write_text("\n".join(lines))
    return "list.csv"


def deep_tree(kind: str, root: Path) -> str:
    deep.images(root / "tree", kind, 32, classes=2)
    return "tree"


class Folder(NamedTuple):
    """What lies on the disk, and what is decided about it."""

    make: Callable[[Path], str]
    line: str
    channels: int = 3
    words: tuple[str, ...] = ()
    range: Any = (0, 255)


HELD = ("data.val_fraction=0.25", "augmentation.normalize=measured")
BITS = "pixel values 0 to {} are black to white ({} bits: the largest value found is"
CUT = "(percentiles 0.1 and 99.9; 32 files); what lies outside is cut"
FOLDERS = {
    "12-bit PNG": Folder(partial(deep_tree, "12-bit PNG"), BITS.format(4095, 12), 1, HELD, (0, 4095)),
    "float with nodata": Folder(partial(deep_tree, "float with nodata"), CUT, 1, HELD, None),
    "13 bands": Folder(partial(deep_tree, "13 bands"), BITS.format(16383, 14), 13, HELD, (0, 16383)),
    "mixed tree": Folder(
        mixed_tree,
        "training set: Training/ (24 images in 2 classes); validation set: Validation/ (12 images)",
    ),
    "20 folders of 3": Folder(
        twenty_threes,
        "training set: all of tree/ (60 images in 20 classes); no validation set",
        words=("data.batch_size=32",),
    ),
    "a table": Folder(table, "training set: 24 rows of list.csv in 2 classes; validation set: 12 rows (val)"),
    "signed 16 bits": Folder(partial(deep_tree, "Hounsfield"), CUT, 1, HELD, None),
    "9 bands of npy": Folder(partial(deep_tree, "9 bands of npy"), CUT, 9, HELD, None),
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_trained_on_drawn_judged_and_exported(name: str, method: str, tmp_path: Path) -> None:
    folder = FOLDERS[name]
    words = [*COMMON, *METHODS[method], f"data.channels={folder.channels}", *folder.words]
    done = run("train", f"method={method}", f"data.root={folder.make(tmp_path)}", *words, cwd=tmp_path)
    assert done.code == 0, (done.out, done.err)
    record = runs.read_record(tmp_path / "run")
    assert record is not None and record.state == "finished"
    said = " ".join(done.out.replace("│", " ").split())
    (decided,) = [line for line in record.decisions if folder.line in line]
    assert decided in said, (decided, said)
    assert_recognisable(tmp_path / "run/views.png")
    numbers = json.loads((tmp_path / "run/summary.json").read_text())
    assert numbers["report"] == "made"
    if "no validation set" in folder.line:  # without one the labels of the training images judge the network
        assert "judged on 60 training samples" in said
    else:
        assert 0 <= numbers["knn/top1"] <= 100
        judged = run("evaluate", "checkpoint=run", "protocol=knn", cwd=tmp_path)
        assert judged.code == 0, judged.err
    assert run("export", "run=run", cwd=tmp_path).code == 0
    (card,) = (tmp_path / "run/export").glob("*.json")
    kept, resolved = json.loads(card.read_text())["preprocessing"], record.resolved
    assert kept["range"] == resolved["data.source.range"]["value"]
    assert folder.range is None or tuple(kept["range"]) == folder.range
    if "augmentation.normalize=measured" in folder.words:
        assert kept["normalize"] == resolved["augmentation.normalize"]["value"]
        assert len(kept["normalize"]["mean"]) == folder.channels


def assert_recognisable(picture: Path) -> None:
    """The middle of the picture has the grey levels of a scene, not those of a black square."""
    pixels = np.asarray(Image.open(picture).convert("L"))
    inside = pixels[pixels.shape[0] // 4 : -pixels.shape[0] // 4]
    inside = inside[inside < 250]  # the paper
    assert len(np.unique(inside)) > 100 and inside.std() > 20
