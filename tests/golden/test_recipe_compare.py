"""The comparison of recipes itself: whatever changes in a recorded field that agrees is noticed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import models

from tests.golden.recipes.composed import Composed, ViewOf, op_of
from tests.golden.recipes.keys import NOTES
from tests.golden.recipes.networks import RESNETS, resnet_shape
from tests.golden.recipes.ops import blurs, crops, jitters
from tests.golden.recipes.ops.asked import Asked
from tests.golden.recipes.recorded import Recorded, recorded_in
from tests.golden.recipes.registry import comparators
from tests.golden.recipes.starts import normal, uniform
from tests.golden.recipes.words import Grammar

RUNS = Path(__file__).parent / "data" / "recipes"
FEW = ("swav_cifar10_solo_1000ep", "mae_cifar10_solo_1000ep")  # small ones, the others are slow
ODD = "askew"  # stands in no recipe

# Fields and keys of which a change may go unnoticed.
LOOSE = {
    ("views", "name"): "a label",
    ("steps_per_epoch", ""): "one more or less: last batches that are not full",
    ("total_steps", ""): "one more or less for each epoch",
    ("lr_schedule", "warmup_steps"): "one more or less: counters from 0 and from 1",
    ("lr_schedule", "formula"): "the text of what the points and the other keys say",
    ("lr_schedule", "end_is"): "a remark behind a colon",
    ("exclusions", "decay"): "a remark behind a colon",
    ("prototypes", "frozen_steps"): "more steps than the run has",
    ("temperatures", "start"): "of a warm-up of no epochs",
    ("temperatures", "warmup_epochs"): "from a number to the same",
}

Place = tuple[Any, ...]


def leaves(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """All numbers, words and truths of a value, but for notes beside it."""
    if isinstance(value, dict):
        for key, held in value.items():
            if key not in NOTES:
                yield from leaves(held, (*path, key))
    elif isinstance(value, list):
        idle = len(value) == 2 and isinstance(value[1], dict) and value[1].get("p") == 0.0  # an operation never done
        for i, held in enumerate(value):
            yield from leaves({"p": 0.0} if idle and i == 1 else held, (*path, i))
    else:
        yield path, value


def changed(value: Any) -> list[Any]:
    """Other values than a leaf's."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 3 * value + 2]
    if isinstance(value, float):
        return [1.1 * value + 0.01]
    return [ODD] if value is None else [f"{value} {ODD}", ODD]


def put(value: Any, path: Place, new: Any) -> Any:
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = new
    return value


def found(name: str, value: Any, recorded: Recorded, composed: Composed) -> list[str]:
    return list(comparators()[name](value, recorded, composed))


def unnoticed(recorded: Recorded, composed: Composed, name: str) -> list[str]:
    """Changes of a field that agrees which its comparator does not notice, but for those that are ``LOOSE``."""
    value, missed = recorded.value(name), []
    for path, leaf in leaves(value):
        for new in changed(leaf):
            try:
                noticed = bool(found(name, put(value, path, new), recorded, composed))
            except Exception:  # a test of the field fails too
                noticed = True
            if not noticed and (name, path[-1] if path else "") not in LOOSE:
                missed.append(f"{recorded} {name}.{'.'.join(map(str, path))}: {leaf!r} as {new!r}")
    return missed


def agreeing(recorded: Recorded, composed: Composed) -> list[str]:
    values = {name: recorded.value(name) for name in recorded.fields}
    known = [name for name, value in values.items() if value is not None and not recorded.soft(name)]
    return [name for name in known if not found(name, values[name], recorded, composed)]


STRUCTURE = ("heads", "backbone", "batch_norm", "extras", "views", "normalize", "eval_view", "evaluated_network")


def run_of(name: str) -> Recorded:
    return next(run for run in recorded_in(RUNS) if run.name == name)


@pytest.mark.parametrize("run", FEW)
def test_every_change_of_a_structure_is_noticed(run: str) -> None:
    recorded = run_of(run)
    composed = Composed(recorded)
    fields = [field for field in agreeing(recorded, composed) if field in STRUCTURE]
    assert len(fields) >= len(STRUCTURE) - 1, f"only {fields} of {recorded} agree"
    assert not [line for field in fields for line in unnoticed(recorded, composed, field)]


@pytest.mark.slow
@pytest.mark.parametrize("run", sorted(path.stem.replace("__", "_") for path in RUNS.glob("*__*.json")))
def test_every_change_of_every_field_is_noticed(run: str) -> None:
    recorded = run_of(run)
    if recorded.compose is None:
        return
    composed = Composed(recorded)
    assert not [line for name in agreeing(recorded, composed) for line in unnoticed(recorded, composed, name)]


def test_words_that_no_phrase_knows_cannot_be_mapped() -> None:
    grammar = Grammar((r"one view", None), (r"one view of the batch", lambda match, asked: asked))
    assert list(grammar.differences("norm", "one view of the batch", None)) == []
    assert list(grammar.differences("norm", "one view of the batch", "two")) == [
        "norm: two, recorded 'one view of the batch'"
    ]
    assert list(grammar.differences("norm", "one view of the blue batch", None)) == [
        "norm: cannot map 'one view of the blue batch' (unknown: blue batch)"
    ]


def operation(name: str, size: int = 224, theirs: dict[str, Any] | None = None, **options: Any) -> Asked:
    op = op_of({name: options}, size)
    return Asked(op, ViewOf(1, size, "global", {}, [op]), None, theirs or {})  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "lines"), [(224, 0), (96, 1), (32, 1)])
def test_a_blur_of_few_taps_is_not_pillows(size: int, lines: int) -> None:
    asked = operation("image/gaussian_blur", size, {"truncated": False})
    assert len(list(blurs.kernel("kernel", blurs.PIL, asked))) == lines


def test_pillows_kernel_is_nearly_a_gaussian() -> None:
    image = Image.new("L", (blurs.SIDE, blurs.SIDE))
    image.putpixel((blurs.SIDE // 2, blurs.SIDE // 2), 255)
    row = np.asarray(image.filter(ImageFilter.GaussianBlur(blurs.SIGMA)), dtype=float).sum(0)
    assert np.abs(row / row.sum() - blurs.boxes().numpy()).max() < 0.02
    assert 0.01 < blurs.apart(blurs.boxes(), blurs.gaussian(blurs.SIDE)) < 0.03


@pytest.mark.parametrize(
    ("rule", "agrees"),
    [(crops.TORCHVISION, True), ("no retries", False), ("uniform offset", True)],
)
def test_how_boxes_are_drawn_is_told_by_their_sizes(rule: str, agrees: bool) -> None:
    asked = operation("image/random_resized_crop")
    assert (list(crops.rule("views.random_resized_crop.rule", rule, asked)) == []) is agrees


def test_a_jitter_is_asked_for_its_rule_and_its_range() -> None:
    asked = operation("image/color_jitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    for key, rule in jitters.TORCHVISION.items():
        assert list(jitters.rule(f"jitter.{key}", rule, asked)) == []
    assert list(jitters.rule("jitter.hue_rule", "in HSV, + U(-.1, .1)", asked)) == []
    assert len(list(jitters.rule("jitter.hue_rule", "in HSV, + U(-.2, .2)", asked))) == 1
    assert len(list(jitters.rule("jitter.brightness_rule", "additive: x + U(-.4, .4)", asked))) == 1


def test_networks_are_told_by_their_blocks() -> None:
    with torch.device("meta"):
        shapes = {name: resnet_shape(models.get_model(name)) for name in ("resnet18", "resnet34", "resnet50", "vgg11")}
    assert shapes.pop("vgg11") == ((), 0, 0)
    assert shapes == {name: RESNETS[name] for name in shapes}


def test_first_values_are_told_apart() -> None:
    weight = torch.empty(200, 300)
    assert normal(torch.nn.init.normal_(weight, std=0.02), 0.02) and not normal(weight, 0.021)
    bound = (6 / 500) ** 0.5
    assert uniform(torch.nn.init.xavier_uniform_(weight), bound) and not normal(weight, bound / 3**0.5)
