"""Rows of ``gpu.json``: one number each, judged by its bar, printed and kept as it comes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where a section runs; ``tiny``: every section at sizes of no meaning, so that a test can run it."""

    device: torch.device
    tiny: bool = False


def row(name: str, value: float | None, unit: str, bar: str | None = None, **more: Any) -> Row:
    """One number. ``more``: ``peer`` and ``peer_value`` of a comparison, and whatever explains the number (note)."""
    if value is not None and not math.isfinite(value):
        value, more["note"] = None, f"not finite; {more.get('note', '')}"  # JSON knows no infinity
    peer_value = more.get("peer_value")
    ratio = value / peer_value if value is not None and peer_value else None
    ok = judge(value, bar) if bar else None
    return {"name": name, "value": value, "unit": unit, "peer": None, "peer_value": None, "ratio": ratio, "bar": bar,
            "ok": ok, **more}  # fmt: skip


def judge(value: float | None, bar: str) -> bool:
    """Whether a value meets a bar like ``"<= 0.08"``; what was not measured meets none."""
    sign, limit = bar.split()
    if sign not in ("<=", ">="):
        raise ValueError(f"bar={bar!r}: wanted '<= NUMBER' or '>= NUMBER'")
    if value is None:
        return False
    return value <= float(limit) if sign == "<=" else value >= float(limit)


def unjudged(entry: Row) -> Row:
    """A row of a tiny run: its number says nothing."""
    return {**entry, "peer": None, "peer_value": None, "ratio": None, "bar": None, "ok": None}


def show(entry: Row) -> str:
    value = "-" if entry["value"] is None else f"{entry['value']:.4g}"
    verdict = {True: "met", False: "MISSED", None: ""}[entry["ok"]]
    text = f"{entry['name']:44} {value:>10} {entry['unit']:12} {entry['bar'] or '':10} {verdict:6}"
    if entry["ratio"] is not None:
        text += f" {entry['ratio']:.2f} x {entry['peer']} ({entry['peer_value']:g})"
    return f"{text} {entry.get('note', '')}".rstrip()


def keep(out: Path, rows: Iterable[Row]) -> None:
    """Print each row and add it to the file at once: what ends this process loses nothing that stands there, nor does
    another process that adds its own."""
    for entry in rows:
        print(show(entry), flush=True)
        with filelock.FileLock(out.with_name(f".{out.name}.lock")):
            held = [*json.loads(out.read_text()), entry]
            aside = out.with_name(f".{out.name}.part")
            aside.write_text(json.dumps(held, indent=1) + "\n")
            aside.replace(out)
