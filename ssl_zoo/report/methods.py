"""The methods of the zoo, printed from their cards."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from ssl_zoo.errors import ConfigError, nearest

# The five choices that define a contrastive method, and what else tells one from another.
SHOWN = ("year", "stage", "loss", "negatives", "ema")


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


def show(name: str | None = None) -> None:
    """Print all methods, or one card."""
    known = cards()
    if name is None:
        table = Table("method", *SHOWN, title="ssl_zoo: method=NAME", title_justify="left")
        for method, card in known.items():
            table.add_row(method, *(str(card.get(key, "")) for key in SHOWN))
    elif name in known:
        table = Table.grid(padding=(0, 2))
        for key, value in known[name].items():
            table.add_row(key, str(value))
    else:
        raise ConfigError(f"ssl-zoo methods {name}: there is no such method; {nearest(name, known)}")
    Console().print(table)


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


TABLES = {"methods": markdown, "stages": by_stage}
