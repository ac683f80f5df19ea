"""``ssl-zoo bench``: choose rows, measure them one after another, write them down."""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_zoo.benchmarks.rows import Case, measure
from ssl_zoo.benchmarks.table import show
from ssl_zoo.benchmarks.timing import environment
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.machine import keep_memory

FILES = ("augmentation", "loader", "losses", "step", "epochs", "evaluation", "extraction", "growth")
OPTIONS = {"quick": "false", "out": "bench.json", "root": ""}
BUSY = 0.5  # load average above which somebody else is computing


def cases() -> dict[str, list[Case]]:
    """All rows by file, in the order of the table."""
    return {name: importlib.import_module(f"ssl_zoo.benchmarks.{name}").CASES for name in FILES}


def choose(names: Sequence[str]) -> list[Case]:
    """The rows that are named: by their name, by the file that holds them, or by a pattern such as ``growth_*``.

    Raises:
        ConfigError: For a name that means no row, with the nearest one.
    """
    by_file = cases()
    every = {case.name: case for group in by_file.values() for case in group}
    chosen: set[str] = set()
    for name in names:
        found = [case.name for case in by_file.get(name, [])] or fnmatch.filter(every, name)
        if not found:
            raise ConfigError(f"ssl-zoo bench {name}: no such row or file; {nearest(name, [*every, *by_file])}")
        chosen.update(found)
    return [case for name, case in every.items() if name in chosen or not names]


def main(argv: Sequence[str]) -> int:
    """Measure, print and write; 1 if a bar is not passed."""
    given = dict(OPTIONS)
    for word in argv:
        key, equals, value = word.partition("=")
        if equals and key not in OPTIONS:
            raise ConfigError(f"ssl-zoo bench {word}: there is no option {key!r}; {nearest(key, OPTIONS)}")
        if equals:
            given[key] = value
    if given["quick"].lower() not in ("true", "false"):
        raise ConfigError(f"quick={given['quick']}: wanted true or false")
    if given["root"] and not Path(given["root"]).is_dir():
        raise ConfigError(f"root={given['root']}: there is no such folder; wanted one with JPEG files")
    out = Path(given["out"])
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no folder {out.parent}; make it, or write elsewhere")
    chosen = choose([word for word in argv if "=" not in word])
    rows = _measure_all(chosen, given["quick"].lower() == "true", given["root"] or None, out)
    show(rows)
    print(f"written: {out}, {_meta(out)}")
    return int(any(row["ok"] is False for row in rows))


def _measure_all(chosen: Sequence[Case], quick: bool, root: str | None, out: Path) -> list[dict[str, Any]]:
    """Rows, written after each one: what was measured stays if a later row fails."""
    os.environ.setdefault("LIGHTLY_DID_VERSION_CHECK", "True")  # else importing lightly asks its server
    keep_memory()  # as every run of ours does; the peers, in the same process, have it too
    here = environment()
    if here["load_before"] > BUSY:
        print(f"load average is {here['load_before']}: other programs will disturb the timings", file=sys.stderr)
    _meta(out).write_text(json.dumps(here, indent=2) + "\n")
    rows = []
    for number, case in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {case.name}", file=sys.stderr, flush=True)
        rows.append(measure(case, quick, root))
        out.write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def _meta(out: Path) -> Path:
    """The file beside ``out`` that says on what machine and with which versions it was measured."""
    return out.with_name(f"{out.stem}_meta.json")


def alone(file: str) -> int:
    """``python benchmarks/FILE.py [NAME ...]``: the rows of one file, or those that are named."""
    from ssl_zoo.cli import entry

    named = [word for word in sys.argv[1:] if "=" not in word]
    return entry(["bench", *([] if named else [Path(file).stem]), *sys.argv[1:]])
