"""Recorded operations: what ours are called, and who compares each of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ssl_zoo.augmentations import registry
from tests.golden.recipes.keys import Reader, equal_to, same
from tests.golden.recipes.ops import blurs, crops, jitters
from tests.golden.recipes.ops.asked import Asked, draws, picture
from tests.golden.recipes.registry import unequal, unmapped

KINDS = {"timm": "noisy_rand_augment", "torchvision": "rand_augment"}  # of RandAugment, and our operations


def option(name: str) -> Reader:
    return equal_to(lambda asked: asked.option(name))


def _shared(subject: str, wanted: bool, asked: Asked) -> Iterator[str]:
    """One draw for all views: every view but the first takes that of another."""
    if asked.tied is not wanted:
        yield unequal(subject, asked.tied, wanted)


def _weights(subject: str, wanted: list[float], asked: Asked) -> Iterator[str]:
    module: Any = asked.variant(p=1.0)
    ours = [float(module(colour.view(1, 3, 1, 1), draws(1))[0, 0, 0, 0]) for colour in torch.eye(3)]
    if not same(ours, wanted, 1e-3):
        yield unequal(subject, ours, wanted)


def _padding(subject: str, wanted: Any, asked: Asked) -> Iterator[str]:
    """What a shift uncovers: the mirrored picture repeats no row and has no zeros."""
    module: Any = asked.variant(p=1.0)
    x = picture(64, 16, 16, 0.1, 1.0)
    mirrored = bool(module(x, draws(64)).min() > 0)
    if wanted != "reflect":
        yield unmapped(subject, wanted)
    elif not mirrored:
        yield unequal(subject, "zeros", wanted)


def _kind(subject: str, wanted: str, asked: Asked) -> Iterator[str]:
    own = asked.op.name.rpartition("/")[2]
    if own != KINDS.get(wanted) and asked.option("kind") != wanted and wanted not in own.split("_"):
        yield unequal(subject, own, wanted)


def _farthest(subject: str, wanted: float, asked: Asked) -> Iterator[str]:
    """Pixels of the strongest translation at the top of the scale."""
    from ssl_zoo.augmentations.image import rand_augment

    most = {"magnitude": 10, "magnitude_std": 0.0, "p": 1.0}
    side = asked.composed.plain["data"]["image_size"]
    module: Any = asked.variant(**{name: value for name, value in most.items() if name in asked.op.options})
    op, magnitude = module.parameters_of(draws(512), side, side)
    moved = magnitude[(op == rand_augment.TRANSLATE_X) | (op == rand_augment.TRANSLATE_Y)].abs().max()
    if not same(float(moved), float(wanted), 1e-6):
        yield unequal(subject, float(moved), wanted)


def _tile(subject: str, wanted: int, asked: Asked) -> Iterator[str]:
    if asked.option("size") != wanted:
        yield unequal(subject, asked.option("size"), wanted)


def _normalised(subject: str, wanted: bool, asked: Asked) -> Iterator[str]:
    """Compared with the value; alone it says nothing."""
    if asked.theirs.get("value") is None or not isinstance(wanted, bool):
        yield unmapped(subject, wanted)


def _erased(subject: str, wanted: list[float], asked: Asked) -> Iterator[str]:
    """The value that a normalised view has where it was erased; ours is erased before."""
    ours, normalize = asked.option("value"), asked.composed.plain["augmentation"]["normalize"]
    values = list(ours) if isinstance(ours, (list, tuple)) else [ours] * len(wanted)
    if asked.theirs.get("after_normalisation") and normalize is not None:
        both = zip(values, normalize["mean"], normalize["std"], strict=True)
        values = [(value - mean) / std for value, mean, std in both]
    if not same(values, wanted, 1e-5):
        yield unequal(subject, values, wanted)


P = {"p": option("p")}
READERS: dict[str, dict[str, Reader]] = {
    "random_resized_crop": {
        "scale": option("scale"),
        "ratio": option("ratio"),
        "interpolation": option("interpolation"),
        "rule": crops.rule,
        "antialias": crops.antialias,
    },
    "flip": {**P, "shared": _shared},
    "color_jitter": {
        **P,
        **dict.fromkeys(jitters.PARTS, jitters.strength),
        **dict.fromkeys(jitters.RULES, jitters.rule),
        "order": equal_to(lambda asked: asked.op.options.get("order", "random")),
        "clip": jitters.clip,
    },
    "grayscale": {**P, "weights": _weights},
    "gaussian_blur": {
        **P,
        "sigma": option("sigma"),
        "kernel": blurs.kernel,
        "truncated": blurs.truncated,
        "padding": blurs.padding,
        "library": blurs.library,
        "sigma_per": blurs.sigma_per,
        "coin_per": blurs.coin_per,
    },
    "solarize": {**P, "threshold": option("threshold")},
    "translate": {**P, "max": option("pixels"), "padding": _padding},
    "random_crop_pad": {"padding": option("padding")},
    "rand_augment": {
        "n": option("num_ops"),
        "m": option("magnitude"),
        "mstd": option("magnitude_std"),
        "p_each": option("p"),
        "translate_const": _farthest,
        "kind": _kind,
    },
    "random_erasing": {**P, "value": _erased, "after_normalisation": _normalised},
    "jigsaw": {"grid": option("grid"), "tile": _tile},
    "patch_grid": {"size": option("size"), "stride": equal_to(lambda asked: asked.op.module.stride)},
    "resize": {"size": equal_to(lambda asked: list(asked.op.module.size)), "interpolation": option("interpolation")},
    "lab": {},
    "ydbdr": {},
    "clip": {},
}
# What is so where nothing is recorded: torchvision's.
IMPLIED: dict[str, dict[str, Any]] = {
    "random_resized_crop": {"rule": crops.TORCHVISION, "antialias": True},
    "flip": {"shared": False},
    "color_jitter": {**jitters.TORCHVISION, "order": "random"},
    "grayscale": {"weights": [0.2989, 0.587, 0.114]},
    "gaussian_blur": {"sigma_per": "image", "coin_per": "image"},
    "random_erasing": {"after_normalisation": False},
}
# Sides of the images themselves, where a data set has one for all.
NATIVE = {"cifar10": 32, "cifar100": 32, "svhn": 32, "stl10": 96}
TILES = ("jigsaw", "patch_grid")  # take a view apart
# A flip may stand anywhere before what takes a view apart: all other operations treat left and right alike, so that the
# distribution of the views is the same.
FREE = ("flip",)


def canonical(name: str) -> str:
    """The recorded name of an operation of ours: the longest that its own holds."""
    own = name.rpartition("/")[2]
    return max((known for known in READERS if known in own), key=len, default=own)


def readers_of(name: str) -> Mapping[str, Reader] | None:
    """Who compares the parameters of a recorded operation; None: we have none of this name.

    An operation of ours that needs no words has options of the recorded names.
    """
    own = f"image/{name}"
    known = READERS.get(name)
    if known is None and own in registry.names():
        known = {key: option(key) for key in inspect.signature(registry.get(own)).parameters}
    return known


def recorded_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    other = {"rule": crops.TENSORFLOW, "antialias": False} if crops.TENSORFLOW in str(options.get("note")) else {}
    return {**IMPLIED.get(name, {}), **other, **options}
