"""What a method has besides: weights of losses, masks, clusterings, mixtures; each key is mapped to a place of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.golden.recipes import extra_numbers as numbers
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.extra_places import MISSING, found, names
from tests.golden.recipes.extra_words import WORDS
from tests.golden.recipes.keys import NONE, NOTES, same
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped

COMPUTED: dict[str, Callable[[Composed], Any]] = {
    "pairs": numbers.pairs,
    "steps": numbers.attack_steps,
    "overlap": numbers.overlap,
    "crops_for_assign": numbers.assigned,
    "clip_grad": numbers.clip_grad,
    "freeze_last_layer_epochs": numbers.frozen_epochs,
    "views": numbers.view_count,
    "contrast_mode": numbers.anchors,
    "patches": numbers.view_count,
    "jigsaw": numbers.jigsaw,
    "knots": numbers.knots,
    "t_max": numbers.last_knot,
    "norm_pix_eps": numbers.pixel_eps,
    "variance_eps": numbers.variance_eps,
    "clusters": numbers.clusters,
    "losstype": numbers.all_positives,
    "masks.aspect": numbers.block_aspects,
    "masks.patch": numbers.square,
    "kmeans.spherical": numbers.spherical,
    "soft_targets": lambda composed: not found(composed.method, "hard"),
    "normalise": lambda composed: not found(composed.method, "euclidean"),
    "unlabelled_per_labelled": numbers.labelled_ratio,
}


@field("extras")
def extras(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _all(value, "", composed)
    elif value != NONE:
        yield unmapped("extras", value)


def _all(value: Mapping[str, Any], above: str, composed: Composed) -> Iterator[str]:
    for key, wanted in value.items():
        path = f"{above}{key}"
        if key in NOTES or wanted is None:
            continue
        if isinstance(wanted, Mapping) and path not in COMPUTED:
            yield from _all(wanted, f"{path}.", composed)
        else:
            yield from _one(path, wanted, composed)


def _one(path: str, wanted: Any, composed: Composed) -> Iterator[str]:
    subject = f"extras.{path}"
    if isinstance(wanted, str) and path in WORDS:
        yield from WORDS[path].differences(subject, wanted, composed)
        return
    ours = COMPUTED[path](composed) if path in COMPUTED else found(composed.method, *names(path))
    if ours is MISSING:
        yield unmapped(subject, wanted)
    elif not same(ours, wanted, 1e-6):
        yield unequal(subject, ours, wanted)
