"""One crop as two views: its brightness and its colours."""

from __future__ import annotations

from typing import Any

KEPT = [[0], [1, 2]]


def views_problem(views: list[dict[str, Any]]) -> str | None:
    """What is wrong with ``augmentation.views`` for a method that tells colours from brightness, in a sentence."""
    ends = [view["ops"][-1].get("image/lab", {}).get("keep") if view["ops"] else None for view in views]
    tie = views[-1].get("tie") or {}
    loose = [name for op in views[-1]["ops"][:-1] for name in op if tie.get(name) != 0]
    if ends == KEPT and not loose:
        return None
    tied = f"of the second these are not tied to the first: {', '.join(loose)}"
    found = tied if ends == KEPT else f"these keep {ends}"
    return ("augmentation.views: wanted two views of one crop, which end in image/lab with keep: [0] and keep: [1, 2]; "
            f"{found}; augmentation=colorization/small has such views")
