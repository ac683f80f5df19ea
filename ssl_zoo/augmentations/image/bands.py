"""Views that were written for colour, on images of another number of bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ssl_zoo.augmentations import registry

if TYPE_CHECKING:
    from ssl_zoo.augmentations.image.views import ViewSpec

RGB = 3


def adapted(specs: Sequence[ViewSpec], channels: int) -> tuple[list[ViewSpec], list[str]]:
    """The same views without what only colour has, and what has changed in them, in words.

    Geometry, blur, noise and tone work on any bands. Operations say of themselves what they need: ``needs_rgb`` is
    true of those that fall away, ``colour`` names options that do, ``per_channel`` options with a number for each band,
    in whose place comes the mean of three, ``nested`` options that are lists of operations.
    """
    if channels == RGB:
        return list(specs), []
    found, told = [], dict[str, None]()
    for spec in specs:
        ops, changes = _without_colour(spec.ops)
        told |= dict.fromkeys(changes)
        left = {registry.parse(entry)[0] for entry in ops}
        gone = {registry.parse(entry)[0] for entry in spec.ops} - left
        ties = {name: view for name, view in spec.tie.items() if name not in gone}
        found.append(replace(spec, ops=ops, tie=ties))
    return found, list(told)


def _without_colour(ops: Iterable[Any]) -> tuple[list[Any], list[str]]:
    kept: list[Any] = []
    changes = []
    for entry in ops:
        name, options = registry.parse(entry)
        operation = registry.get(name)
        if getattr(operation, "needs_rgb", False) is True:
            changes.append(f"{name} falls away")
            continue
        gone = [key for key in getattr(operation, "colour", ()) if options.pop(key, None)]
        if gone:
            changes.append(f"{name} goes without {' and '.join(gone)}")
        for key in getattr(operation, "per_channel", ()):
            if isinstance(options.get(key), list) and len(options[key]) == RGB:
                options[key] = sum(map(float, options[key])) / RGB
                changes.append(f"{key} of {name} is the mean of three")
        for key in getattr(operation, "nested", ()):
            if options.get(key):
                options[key], inside = _without_colour(options[key])
                changes += inside
        if getattr(operation, "colour_step", False):
            changes.append(f"{name} goes without its colour step")
        kept.append({name: options})
    return kept, changes


def told(changes: Sequence[str], channels: int) -> list[str]:
    """What :func:`adapted` changed, as a line; none if nothing was."""
    bands = "one band" if channels == 1 else f"{channels} bands"
    return [f"views for {bands} instead of colour: {', '.join(changes)}"] if changes else []
