"""Rows as tables for the eye."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 120  # of a file or a pipe, for which rich would take 80 columns
VERDICT = {True: "[green]ok[/]", False: "[red]fails[/]", None: ""}


def show(rows: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """The comparisons as one table, then every row of growth under the quantity that grows."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    compared = [row for row in rows if "grows" not in row]
    if compared:
        console.print(_comparisons(compared))
    for grows in dict.fromkeys(row["grows"] for row in rows if "grows" in row):
        console.print(_growth(grows, [row for row in rows if row.get("grows") == grows]))
    if any(row["quick"] for row in rows):
        console.print("quick=true: sizes without meaning, so that bars are not judged")
    for row in rows:
        if row["note"]:
            console.print(f"{row['name']}: {row['note']}", markup=False, highlight=False)


def _comparisons(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for heading in ("row", "ssl_zoo", "unit", "peer", "ratio", "bar", ""):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("ssl_zoo", "peer", "ratio") else "left")
    table.add_column("the peer")
    for row in rows:
        numbers = (_number(row["value"]), row["unit"], _number(row["peer_value"]), _number(row["ratio"]))
        table.add_row(row["name"], *numbers, row["bar"] or "", VERDICT[row["ok"]], row["peer"] or "")
    return table


def _growth(grows: str, rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(grows, "value", "unit", "peak MiB", title=f"growth with {grows}", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(f"{row['size']:,}", _number(row["value"]), row["unit"], _number(row.get("memory_mib")))
    return table


def _number(value: float | None) -> str:
    """Three digits, without an exponent."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
