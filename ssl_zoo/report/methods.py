"""The methods of the zoo, printed from their cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.report import measured, pages
from ssl_zoo.report.difference import show_difference

CHOICES = ("augmentation", "encoder", "representation", "similarity", "loss")  # that define a contrastive method
WIDE = 110  # columns of a screen from which on the choices stand side by side
FLAGS = {"--no-negatives": "negatives=false", "--needs-labels": "labels=true"}
YES_OR_NO = ("false", "true")
USAGE = "ssl-zoo methods [NAME [diff=OTHER]] [negatives=false] [labels=true] [stage=NAME] [modality=NAME] [out=PAGE.md]"
KEYS = ("negatives", "labels", "stage", "modality", "diff", "out")


class Asked(NamedTuple):
    """What the command was given: names of methods, its own settings, overrides of a recipe."""

    names: list[str]
    settings: dict[str, str]
    overrides: list[str]


def main(argv: Sequence[str]) -> int:
    """``ssl-zoo methods``: all methods or those of a filter, one card, what differs between two, or a page's tables.

    Raises:
        ConfigError: For a method, a stage, a modality or a setting that there is not.
    """
    asked = read(argv)
    settings, known = asked.settings, cards()
    for name in (*asked.names, *([settings["diff"]] if "diff" in settings else [])):
        if name not in known:
            raise ConfigError(f"ssl-zoo methods {name}: there is no such method; {nearest(name, known)}")
    if "out" in settings:
        out = Path(settings["out"])
        pages.write(out, TABLES)
        print(out)
    elif "diff" in settings:
        show_difference(known, asked.names[0], settings["diff"], asked.overrides)
    elif asked.names:
        show_card(known[asked.names[0]])
    else:
        show_all(known, settings)
    return 0


def read(argv: Sequence[str]) -> Asked:
    """Words of the command, ``--stage=X``, ``--stage X`` and ``stage=X`` alike."""
    words, asked = iter(argv), Asked([], {}, [])
    for word in words:
        word = FLAGS.get(word, word)
        if word.startswith("--"):
            word = word[2:] if "=" in word else f"{word[2:]}={next(words, '')}"
        key, equals, value = word.partition("=")
        if not equals:
            asked.names.append(word)
        elif key in KEYS:
            asked.settings[key] = value
        else:
            asked.overrides.append(word)
    _check(argv, asked)
    return asked


def _check(argv: Sequence[str], asked: Asked) -> None:
    alone, diff = len(asked.settings) == 1 and not asked.names, "diff" in asked.settings
    if diff and (len(asked.settings) > 1 or len(asked.names) != 1):
        problem = "diff wants two methods and nothing else, NAME diff=OTHER"
    elif len(asked.names) > 1:
        problem = f"one method at most; what differs between two: {asked.names[0]} diff={asked.names[1]}"
    elif asked.overrides and not diff:
        problem = nearest(asked.overrides[0].partition("=")[0], KEYS)
    elif not diff and asked.names and asked.settings or "out" in asked.settings and not alone:
        problem = "filters are for the list of all methods, and out=PAGE.md for itself"
    else:
        return
    raise ConfigError(f"ssl-zoo methods {' '.join(argv)}: {problem}; wanted {USAGE}")


@cache
def cards() -> dict[str, dict[str, Any]]:
    """The card of every ``conf/method/*.yaml``, by the name that ``method=`` takes, in the order of years."""
    found = {}
    for file in files("ssl_zoo.conf").joinpath("method").iterdir():
        if file.name.endswith(".yaml"):
            node = OmegaConf.create(file.read_text())
            assert isinstance(node, DictConfig)
            card = node.get("card") or {}
            found[file.name.removesuffix(".yaml")] = {str(key): value for key, value in card.items()}
    return dict(sorted(found.items(), key=lambda item: (item[1].get("year", 0), item[0])))


def modalities() -> list[str]:
    """Kinds of samples that there are views for."""
    folders = files("ssl_zoo.augmentations").iterdir()
    return sorted(folder.name for folder in folders if folder.is_dir() and folder.joinpath("__init__.py").is_file())


def chosen(known: Mapping[str, dict[str, Any]], settings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The cards that fit all filters.

    The method measured to be the most accurate comes first, those not measured last, by year; of a modality those that
    are for it alone come before all others.
    """
    stages = dict.fromkeys(card["stage"] for card in known.values())
    allowed = {"negatives": YES_OR_NO, "labels": YES_OR_NO, "stage": [*stages], "modality": modalities()}
    for key, value in settings.items():
        if value not in allowed[key]:
            raise ConfigError(f"ssl-zoo methods {key}={value}: {nearest(value, allowed[key])}")
    order = {name: place for place, name in enumerate(measured.measured())}
    fitting = [name for name, card in known.items() if all(_fits(card, *setting) for setting in settings.items())]
    fitting.sort(key=lambda name: order.get(name, len(order)))
    if "modality" in settings:
        fitting.sort(key=lambda name: "samples" not in known[name])
    return {name: known[name] for name in fitting}


def _fits(card: Mapping[str, Any], key: str, value: str) -> bool:
    if key == "negatives":
        return card["negatives"].startswith("none") == (value == "false")
    if key == "labels":
        return ("labels" in card) == (value == "true")
    if key == "modality":  # a card without samples is of a method for any of them
        return str(card.get("samples", value)).startswith(value)
    return bool(card[key] == value)


def show_all(known: Mapping[str, dict[str, Any]], settings: Mapping[str, str]) -> None:
    """Print the choices of the methods that fit: side by side where the screen is wide enough, else a line each."""
    found, console, numbers = chosen(known, settings), Console(), measured.measured()
    filters = "".join(f", {key}={value}" for key, value in settings.items())
    console.print(Text(f"{len(found)} of {len(known)} methods{filters}. kNN: {measured.HOW}"), end="\n\n")
    rows = [(name, card, numbers[name].told if name in numbers else "") for name, card in found.items()]
    if console.width >= WIDE:
        console.print(_side_by_side(rows))
    else:
        for part in _below_one_another(rows):
            console.print(part)


Row = tuple[str, Mapping[str, Any], str]


def _side_by_side(rows: Sequence[Row]) -> Table:
    table = Table(Column("method", no_wrap=True), Column("kNN", no_wrap=True), *CHOICES, show_lines=True)
    for name, card, number in rows:
        table.add_row(name, number, *(str(card.get(key, "")) for key in CHOICES))
    return table


def _below_one_another(rows: Sequence[Row]) -> Iterator[Any]:
    for name, card, number in rows:
        yield Text(f"{name}  ({card['year']}, {card['stage']}{f', kNN {number}' if number else ''})")
        yield Padding(_grid({key: card.get(key, "") for key in CHOICES}), (0, 0, 1, 2))


def show_card(card: Mapping[str, Any]) -> None:
    Console().print(_grid(card))


def _grid(card: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for key, value in card.items():
        table.add_row(key, str(value))
    return table


def markdown() -> str:
    """The table of ``docs/methods.md``."""
    lines = [
        "| `method=` | paper | samples | stage | loss | negatives | teacher |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, card in cards().items():
        paper = f"[{card['name']}, {card['year']}]({card['paper']})"
        words = [card.get("samples", "images"), *(card[key] for key in ("stage", "loss", "negatives", "ema"))]
        lines.append(f"| `{name}` | {paper} | {' | '.join(words)} |")
    return "\n".join(lines)


def by_stage() -> str:
    """The table of the README: a row for each stage, in the order of its first method."""
    stages: dict[str, list[str]] = {}
    for name, card in cards().items():
        stages.setdefault(card["stage"], []).append(f"[`{name}`]({card['paper']})")
    rows = [f"| {stage} | {', '.join(methods)} |" for stage, methods in stages.items()]
    return "\n".join(["| stage | `method=` |", "| --- | --- |", *rows])


TABLES = {"methods": markdown, "stages": by_stage, "measured": measured.markdown}
