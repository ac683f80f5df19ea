"""Compositions that nobody has thought of: each trains two steps, or is refused with a sentence."""

from __future__ import annotations

import math
import random
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import open_dict
from PIL import Image

from ssl_zoo import build, config, worker
from ssl_zoo.data.image.pack import Options, pack
from ssl_zoo.data.image.stream import write_splits
from ssl_zoo.errors import ConfigError
from tests import helpers

NAMED = {
    "timm": (
        "resnet18", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "test_vit",
        "eva02_tiny_patch14_224",
    ),
    "torchvision": ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "alexnet"),
}  # fmt: skip
# What else a person changes, each now and then.
EXTRAS = (
    "trainer.accumulate=2", "batch_norm.group=4", "trainer.precision=bf16-mixed", "data.val_fraction=0.25",
    "data.labels=0.5", "data.subset=40", "data.imbalance=4", "optimizer=adamw", "optimizer=sgd", "optimizer=lars",
    "augmentation.where=worker", "data.workers=1", "global_views=4", "+method.grad_cache=2", "data.channels=1",
    "data.drop_unlabelled=true", "trainer.deterministic=true", "callbacks=none", "augmentation.normalize=null",
    "data.source.labels=none", "+trainer.clip={mode: global, value: 1.0}", "seed=123456789",
)  # fmt: skip
SLOW = ("trainer.precision=bf16-mixed",)  # without the instructions for it a CPU takes a hundred times as long
SCALES = ("small", "large")
NARROW = {
    "embed_dim": 16, "depth": 2, "num_heads": 2, "width": 8, "depths": [1, 1, 1, 1], "ndf": 8, "n_rkhs": 32,
    "n_depth": 1,
}  # fmt: skip
# Which no setting makes narrower.
HEAVY = (
    "resnet50", "resnet50x2", "resnet50_gn_ws", "resnet50_half", "resnet50_same", "resnet_sk", "convnext_tiny",
    "cpc_resnet101",
)  # fmt: skip


def names(group: str) -> list[str]:
    return helpers.of_images(group)


def places(folder: Path) -> dict[str, list[str]]:
    """Data that needs no download, of each kind that there is: overrides by name."""
    rng = np.random.default_rng(0)
    for i in range(60):
        part = folder / "tree" / ("val" if i >= 48 else "train") / f"class{i % 4}"
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40 + i % 9, 3), dtype=np.uint8)).save(part / f"{i}.jpg", quality=90)
    cfg = config.load(["data=folder", f"data.root={folder / 'tree'}", "data.source.cache=false", "data.batch_size=8"])
    splits = build.build_data(cfg)._splits
    pack(splits, Options(folder / "x.pack"), "tests")
    write_splits(splits, folder / "store", "20KB")
    return {
        "synthetic": ["data=synthetic", "data.source.samples=48", "data.source.val_samples=16"],
        "digits": ["data=digits", "data.channels=3"],
        "folder": ["data=folder", f"data.root={folder / 'tree'}", "data.source.cache=false"],
        "packed": ["data=packed", f"data.root={folder / 'x.pack'}"],
        "stream": ["data=stream", f"data.root={folder / 'store'}", "data.source.lanes=2"],
        "cifar10": ["data=cifar10", f"data.root={folder / 'nothing'}"],  # there is none: must be said
    }


def composition(seed: int, data: dict[str, list[str]], heavy: bool) -> list[str]:
    """The same overrides for the same seed; ``heavy``: of all networks and precisions."""
    rng = random.Random(seed)
    method = rng.choice(helpers.METHODS)
    words = [f"method={method}", *data[rng.choice(list(data))], f"scale={rng.choice(SCALES)}"]
    backbone = rng.choice([None, None, *(name for name in names("backbone") if heavy or name not in HEAVY)])
    words += [] if backbone is None else [f"backbone={backbone}"]
    words += [f"backbone.name={rng.choice(NAMED[backbone])}"] if backbone in NAMED else []
    augmentation = rng.choice(names("augmentation")) if rng.random() < 0.15 else None
    words += [] if augmentation is None else [f"augmentation={augmentation}"]
    size = rng.choice((16, 32, 32, 48))
    size = 16 if backbone in HEAVY else size
    words += [f"data.image_size={size}", f"data.batch_size={rng.choice((8, 8, 12))}"]
    words += rng.sample([extra for extra in EXTRAS if heavy or extra not in SLOW], rng.choice((0, 0, 1, 1, 2)))
    return [*words, "trainer=cpu", "trainer.max_steps=2", "trainer.log_every=1", "report=false", "logger=none"]


def narrow(cfg: Any) -> None:
    """Make a network fit this machine where its configuration lets one; nothing is left out for its size."""
    helpers._narrow(cfg.method)
    cfg.batch_norm.group = cfg.batch_norm.group and 4
    for node in (cfg.backbone, cfg.method.get("backbone")):
        for key, value in NARROW.items():
            if node is not None and key in node:
                node[key] = value
        if node is not None and node._target_.endswith(("vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge")):
            with open_dict(node):
                node.depth = 2  # an option of timm's


def tried_out(words: Iterable[str], folder: Path) -> str:
    """``trained``, ``refused: WHY``, or the traceback of a fault."""
    try:
        cfg = config.load(list(words))
        narrow(cfg)
        config.quick_check(cfg)
        build.check_signatures(cfg)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trained = worker.run(cfg, folder, worker.build_run(cfg))
        assert trained.method.progress.step == 1  # the second one
        assert all(math.isfinite(value) for value in trained.method.metrics.values())
        assert all(torch.isfinite(p).all() for p in trained.method.parameters())
    except ConfigError as error:
        return f"refused: {error}" if str(error).strip() else "a refusal without a word"
    except BaseException:
        return traceback.format_exc()
    return "trained"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return places(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("first", "count", "heavy"),
    [
        (0, 2, False),
        *(pytest.param(first, 48, True, marks=pytest.mark.slow) for first in range(20, 500, 48)),
        pytest.param(2, 18, False, marks=pytest.mark.slow),
    ],
)
def test_random_compositions_train_or_are_refused(
    first: int, count: int, heavy: bool, data: dict[str, list[str]], tmp_path: Path, tried: Callable[[str], None]
) -> None:
    outcomes = {}
    for seed in range(first, first + count):
        words = composition(seed, data, heavy)
        outcomes[f"seed {seed}: {' '.join(words)}"] = tried_out(words, tmp_path / str(seed))
    faults = {words: told for words, told in outcomes.items() if told != "trained" and not told.startswith("refused: ")}
    trained = sum(told == "trained" for told in outcomes.values())
    tried(f"{count} random compositions: {trained} trained two steps, {count - trained - len(faults)} refused, "
          f"{len(faults)} faults")
    assert not faults, "\n\n".join(f"{words}\n{told}" for words, told in faults.items())
    assert trained >= 0.2 * count
