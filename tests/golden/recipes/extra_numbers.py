"""Extras whose numbers stand in no attribute: counted, computed or seen in a pass of the method."""

from __future__ import annotations

import math
import re
import sys
from typing import Any
from unittest import mock

import torch

from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.modules.masking.block import ASPECTS
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.extra_places import MISSING, found
from tests.golden.recipes.ops.table import canonical
from tests.golden.recipes.real import real_method
from tests.golden.recipes.trial import trial

CONSTANT = "ASSIGNED"  # of a module whose method assigns that many views, the first ones


def pairs(composed: Composed) -> list[str]:
    """Levels that are compared, by the sides of their maps: the whole has side 1."""
    method: Any = composed.method
    sides = [1, *method.grids]
    return [f"r{sides[source]}-r{sides[target]}" for source, target in method.comparisons]


def attack_steps(composed: Composed) -> int:
    return trial(composed).gradients


def overlap(composed: Composed) -> int:
    """Pixels that neighbouring patches share, from the number of patches that the network sees."""
    run, side = trial(composed), found(composed.method, "side")
    rows = math.isqrt(run.called("backbone")[0].shapes[0][0] // run.batch)
    whole = run.views[0][-1] if len(run.views[0]) == 4 else _cut(composed)
    return side - (whole - side) // (rows - 1)


def _cut(composed: Composed) -> int:
    """Pixels of the whole from which an operation cuts tiles."""
    sizes = [op.options["size"] for view in composed.views for op in view.ops if "size" in op.options]
    return max(sizes)


def assigned(composed: Composed) -> list[int]:
    """The views whose assignments are predicted."""
    banks = found(composed.method, "banks")
    kinds = [vars(sys.modules[kind.__module__]) for kind in type(composed.method).__mro__]
    count = banks if isinstance(banks, int) else next((k[CONSTANT] for k in kinds if CONSTANT in k), 0)
    return list(range(count))


def clip_grad(composed: Composed) -> float:
    """0: none."""
    clip = composed.plain["trainer"]["clip"]
    return 0 if not clip else clip["value"]


def frozen_epochs(composed: Composed) -> float:
    """Of the group that is frozen longest."""
    progress = composed.progress(0)
    steps = [group.frozen_steps(progress) or 0 for group in composed.bound.groups]
    return max(steps) / progress.steps_per_epoch


def view_count(composed: Composed) -> int:
    return sum(view.count for view in composed.views)


def jigsaw(composed: Composed) -> dict[str, Any]:
    for view in composed.views:
        if view.ops and canonical(view.ops[-1].name) == "jigsaw":
            options = view.ops[-1].options
            size = next(op.options["size"] for op in view.ops if "size" in op.options)
            return {"grid": options["grid"], "size": size, "tile": options["size"]}
    return {}


def knots(composed: Composed) -> int:
    return len(real_method(composed).t)


def last_knot(composed: Composed) -> float:
    return round(float(real_method(composed).t.max()), 6)


def pixel_eps(composed: Composed) -> float:
    """Added to the variance of a patch: of two values of +-d, d / deviation shows it."""
    from ssl_zoo.losses.reconstruction import standardize

    d = torch.tensor(1e-3, dtype=torch.float64)
    patch = torch.stack([d, -d]).view(1, 1, 2)
    deviation = standardize(patch).deviation
    return float(deviation.square() - patch.var(-1))


def variance_eps(composed: Composed) -> float:
    """Added to a variance of 0, under the root from which a hinge takes 1."""
    from ssl_zoo.losses.redundancy import variance_hinge

    return float((1 - variance_hinge(torch.zeros(4, 2, dtype=torch.float64))) ** 2)


def clusters(composed: Composed) -> int:
    return len(found(composed.method, "projector.heads"))


def block_aspects(composed: Composed) -> list[float]:
    """Of blocks of hidden patches."""
    own = found(composed.method, "masks.aspects")
    return list(ASPECTS if own is MISSING else own)


def square(composed: Composed) -> int:
    """Pixels of a hidden square."""
    block = found(composed.method, "mask_block")
    return (1 if block is MISSING else block) * composed.method.backbone.size_step


def labelled_ratio(composed: Composed) -> float:
    """Unlabelled images for each labelled one in a batch."""
    data = composed.plain["data"]
    return data.get("unlabelled_per_labelled", (data.get("layout") or {}).get("unlabelled_per_labelled"))


def anchors(composed: Composed) -> Any:
    """Which views are anchors: all of them also where both directions of a pair are added."""
    both = found(composed.method, "sum_directions") is not MISSING
    return "all" if both else found(composed.method, "mode")


def all_positives(composed: Composed) -> Any:
    """The authors' names of what happens to keys of the class that were not drawn."""
    unused = found(composed.method, "unused")
    return {"negatives": "v1", "zero": "v2"}.get(str(unused), unused)


# Places of transformers, of those that are kept and of those that are hidden.


def patches(composed: Composed) -> int:
    side = composed.plain["data"]["image_size"] // composed.method.backbone.size_step
    return side * side


def kept(composed: Composed) -> int:
    """Patches that enter the blocks when some are dropped."""
    calls = trial(composed).called("backbone.net.blocks.0")
    return min(call.shapes[0][1] for call in calls) - composed.method.backbone.net.num_prefix_tokens


def kept_of_whole(composed: Composed) -> int:
    """Of views of the first one's size only: others are smaller, and keep all."""
    run = trial(composed)
    images = [c for c in run.called("backbone.net.patch_embed") if c.shapes[0][-1] == run.views[0][-1]]
    sizes = {call.shapes[0][1] for call in run.called("backbone.net.blocks.0")}
    prefix = composed.method.backbone.net.num_prefix_tokens
    small = {(view[-1] // composed.method.backbone.size_step) ** 2 + prefix for view in run.views[1:]}
    others = sizes - (small - {patches(composed) + prefix})
    return max(others) - prefix if images and others else -1


def hidden_squares(composed: Composed) -> tuple[int, int]:
    """Squares of an image that are hidden, and all of them."""
    method: Any = real_method(composed)
    size = composed.plain["data"]["image_size"]
    mask = method.draw(torch.zeros(1, 3, size, size), BatchRNG(0, 0, 0, torch.zeros(1, dtype=torch.int64)))
    block = found(method, "mask_block") ** 2
    return int(mask.sum()) // block, mask.shape[1] // block


def mask_shares(composed: Composed) -> torch.Tensor:
    """``[2048]`` shares of hidden patches of many crops."""
    method: Any = composed.method
    side = composed.plain["data"]["image_size"] // method.backbone.size_step
    masks = method.masks(BatchRNG(0, 0, 0, torch.arange(1024)), 2, 1024, (side, side))
    return masks.float().mean(1)


def cluster_start(composed: Composed) -> str:
    """What k-means of the method starts from: its own call is looked at, on a memory of random rows."""
    method: Any = real_method(composed)
    module = sys.modules[type(method).__module__]
    method.memory.fill(torch.randn(len(method.memory.seen), method.prototypes[0].in_features))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def noticed(z: torch.Tensor, start: torch.Tensor, iterations: int) -> Any:
        seen.append((z, start))
        return start, torch.zeros(len(z), dtype=torch.int64)

    with mock.patch.object(module, "spherical_kmeans", noticed):
        method.cluster(Draw(stream_key(0, "clusters", 0), None))
    z, start = seen[0]
    nearest = (start[:16] @ z.mT).max(1).values
    return "random rows of the memory" if bool((nearest > 1 - 1e-5).all()) else "something else"


def spherical(composed: Composed) -> bool:
    """Whether the method clusters by angle, with the function of that name."""
    return "spherical_kmeans" in vars(sys.modules[type(composed.method).__module__])


def formula(text: str, names: dict[str, float]) -> float:
    """``int(L * 0.25)``, ``floor(N * 0.85)``, ``ceil(49 * 0.6)``."""
    match = re.fullmatch(r"(int|floor|ceil)\((\w+) \* (\d*\.?\d+)\)", text)
    if match is None:
        raise ValueError(f"{text!r} is no formula that is known")
    first = names[match.group(2)] if match.group(2) in names else float(match.group(2))
    product = round(first * float(match.group(3)), 9)
    return math.ceil(product) if match.group(1) == "ceil" else math.floor(product)
