"""The update rule: its options, and what it does to a few tensors against the rule that the recipe describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import NOTES, same
from tests.golden.recipes.probe import RATES, Law, adapts, by_law, cases, stepped
from tests.golden.recipes.rates import Groups
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.words import Grammar

# The first that a name holds.
FAMILIES = (
    ("LARS", "LARS"),
    ("LARC", "LARS"),
    ("RMSProp", "RMSProp"),
    ("AdamW", "AdamW"),
    ("Adam", "Adam"),
    ("SGD", "SGD"),
)
NAMES = Grammar(
    (r"LARS|LARC|RMSProp|AdamW|Adam|SGD|apex|wrapper|momentum", None), (r"\([^)]*\)", None)
)  # and whose it is
# Recorded options -> what ours are called. An option that ours has not is judged by what is done to tensors.
OPTIONS = {
    "momentum": "momentum", "nesterov": "nesterov", "dampening": "dampening", "betas": "betas", "eps": "eps",
    "trust_coefficient": "trust", "clip": "clip",
}  # fmt: skip
SUM = "||g|| + wd ||w|| + eps"
# Words of a rule, whole, -> what they make of it.
WORDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "ratio_norm": [(r"\|\|g \+ wd w\|\|", {"sum_of_norms": False}), (re.escape(SUM), {"sum_of_norms": True})],
    "ratio": [(r"min\(eta \|\|w\|\| / \(\.\.\.\) / lr, 1\)", {"clip": True})],
    "when_a_norm_is_0": [(r"no decay and no scaling", {"zero": "raw"})],
    "momentum_buffer": [
        (r"without the learning rate( \(optax chain\))?(; starts at the first gradient)?", {"rate_in_buffer": False}),
        (r"classic: the learning rate is multiplied into the buffer", {"rate_in_buffer": True}),
    ],
    # Which parameters: under exclusions.
    "decay_of_weights": [(r"L2 in the loss(, all but (batch_normalization|bias|norm) variables)?", {})],
}


@field("optimizer")
def optimizer(value: dict[str, Any], recorded: Recorded, composed: Composed) -> Iterator[str]:
    groups = Groups(composed)
    kind, every = type(groups.bound.optimizer), groups.at(composed.progress(0))
    law, unread = _law(value)
    yield from unread
    found = [line for group in every for line in _options(value, group)]
    yield from dict.fromkeys(found)
    if law is None or found or unread:
        return
    adapting = [group for group in every if adapts(kind, group)]
    if value.keys() <= {"name", *NOTES}:
        if (law.family == "LARS") != bool(adapting):
            yield unequal("optimizer.name", kind.__name__, value["name"])
        return
    chosen = [*adapting, *every][0]
    for name, (weight, gradients) in cases().items():
        if name == "zero" and law.family == "LARS" and law.zero is None:
            continue  # nobody says what theirs does
        ours, theirs = stepped(kind, chosen, weight, gradients) - weight, by_law(law, weight, gradients) - weight
        if not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-9 * float(theirs.abs().max())):
            moved = f"moves a {name} tensor by {ours.norm():.6g} in {len(RATES)} steps"
            yield f"optimizer: {kind.__name__} {moved}, by the recorded rule {theirs.norm():.6g}"


def _law(value: dict[str, Any]) -> tuple[Law | None, list[str]]:
    """The rule that a recorded optimizer describes, and what of it cannot be read."""
    name = str(value.get("name"))
    family = next((family for word, family in FAMILIES if word in name), None)
    if family is None or NAMES.read(name)[1]:
        return None, [unmapped("optimizer.name", value.get("name"))]
    options: dict[str, Any] = {"family": family}
    unread = []
    for key, x in value.items():
        if x is None or key == "name" or key in NOTES:
            continue
        read = _read(family, key, x)
        options |= read or {}
        unread += [unmapped(f"optimizer.{key}", x)] if read is None else []
    return Law(**options), unread


def _read(family: str, key: str, x: Any) -> dict[str, Any] | None:
    if key == "ratio_when_a_norm_is_0":
        return {"zero": "one"} if x == 1 else None
    if key == "decay":
        if family == "RMSProp":
            return {"smoothing": x}
        return {} if (family, x) == ("Adam", "L2 in the gradient") else None
    if key in OPTIONS:
        return {OPTIONS[key]: tuple(x) if key == "betas" else x}
    return next((made for words, made in WORDS.get(key, []) if re.fullmatch(words, str(x))), None)


def _options(value: dict[str, Any], group: dict[str, Any]) -> Iterator[str]:
    for key, own in OPTIONS.items():
        if value.get(key) is not None and own in group and not same(_plain(group[own]), value[key]):
            yield unequal(f"optimizer.{key}", group[own], value[key])


def _plain(x: Any) -> Any:
    return list(x) if isinstance(x, tuple) else x
