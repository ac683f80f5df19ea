"""What tells one method from another: their cards, and their recipes as they are composed for the same data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from ssl_zoo import config

ALIKE = ("name", "paper", "healthy")  # words of a card that name a method and do not tell it from another
SETTINGS = ("backbone", "data.batch_size", "trainer.max_epochs", "trainer.clip", "batch_norm", "optimizer", "method")
SECTIONS = ("normalize", *dict.fromkeys(path.partition(".")[0] for path in SETTINGS))  # of a recipe, behind the views
NONE = "-"  # stands where a method has nothing of the kind
FEW = 2  # views that are told one by one


def show_difference(cards: Mapping[str, Mapping[str, Any]], one: str, other: str, words: Sequence[str]) -> None:
    """Print what differs between two methods.

    Args:
        cards: Of all methods.
        one, other: Names of two of them.
        words: Overrides for the recipes of both, ``data=imagenet``; without any it is the recipe of the default data.
    """
    console = Console()
    told = [{key: value for key, value in cards[name].items() if key not in ALIKE} for name in (one, other)]
    recipes = [recipe([f"method={name}", *words]) for name in (one, other)]
    for title, sides in (("card", told), (f"recipe ({' '.join(words) or 'default data'})", recipes)):
        table = Table(Column(title, overflow="fold"), one, other)
        for key, *values in differing(*sides):
            table.add_row(_broken(key, console.width // 3 - 3), *values)
        console.print(table if table.rows else f"{title}: no difference")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key and both values of what is not the same; the views of both come first, then section by section."""
    for key in sorted(dict.fromkeys([*one, *other]), key=_place):
        values = [str(side.get(key, NONE)) for side in (one, other)]
        if values[0] != values[1]:
            yield key, values[0], values[1]


def _broken(key: str, width: int) -> str:
    """A key in lines of at most ``width`` that end with a dot, where there is one."""
    lines = [""]
    for part in re.findall(r"[^.]+\.?", key):
        fits = not lines[-1] or len(lines[-1]) + len(part) <= width
        lines[-1:] = [lines[-1] + part] if fits else [lines[-1], part]
    return "\n".join(lines)


def _place(key: str) -> tuple[int, int]:
    view, section = re.match(r"view (\d+)", key), key.partition(".")[0]
    if view:
        return 0, int(view[1])
    return 1 + (SECTIONS.index(section) if section in SECTIONS else 0), 0


def recipe(words: Sequence[str]) -> dict[str, str]:
    """The settings of a run that make its recipe, by their keys, and its views, an operation a line."""
    plain = config.plain(config.load(words))
    found = {f"view {key}": value for key, value in _views(plain["augmentation"]["views"])}
    found["normalize"] = _short(plain["augmentation"]["normalize"])
    for path in SETTINGS:
        node: Any = plain
        for key in path.split("."):
            node = node.get(key)
        found |= dict(_leaves(node, path))
    return found


def _views(views: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    number = 0
    for view in views:
        first, count = number + 1, view.get("count", 1)
        number += count
        names = [str(first + i) for i in range(count)] if count <= FEW else [f"{first}-{number}"]
        yield from ((f"{name}{key}", value) for name in names for key, value in _view(view))


def _view(view: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "", _short({key: value for key, value in view.items() if key not in ("ops", "count")})
    seen: list[str] = []
    for op in view["ops"]:
        ((key, arguments),) = op.items()
        seen.append(key.rpartition("/")[2])
        again = seen.count(seen[-1])
        yield f" {seen[-1]}{again if again > 1 else ''}", _short(arguments) or "yes"


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, Mapping):
        yield path, _short(node)
        return
    own = {key: value for key, value in node.items() if key != "_partial_"}
    for key, value in own.items():
        if path == "method" and key in ("backbone", "optimizer"):
            continue  # references to what is told itself
        if key == "_target_":
            yield path, str(value).rpartition(".")[2]
        else:
            yield from _leaves(value, f"{path}.{key}")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_short, value))}]"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
