"""Recorded cases: where they are, what they hold, and which of their results a check has looked at."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden.hyperparameters import Hyperparameters
from tests.golden.remembered import Remembered

RESULTS = ("output", "grad", "state", "state_after")  # roles of what the authors' code computed


class Arrays(Remembered[np.ndarray]):
    """The arrays of a case by name; remembers which were read.

    ``beside`` are all arrays of the file by their full names, for a case that says to take some from another one.
    """

    beside: Mapping[str, np.ndarray] = {}

    def sizes(self) -> set[int]:
        """Dimensions of the arrays that were read."""
        return {size for name in self.read for size in self.values_by_name[name].shape}


@dataclass(frozen=True)
class Case:
    file: Path  # the json
    method: str
    name: str
    has_its_own_entry: bool = False  # with its own hyper-parameters; else all cases of the file share them

    def __str__(self) -> str:
        return f"{self.file.stem}/{self.name}"

    def load(self) -> tuple[dict[str, Any], Arrays, set[str]]:
        """What the json says of this case, its arrays, and the names of those that are results."""
        document = json.loads(self.file.read_text(), object_hook=_remembering)
        with np.load(self.file.with_suffix(".npz"), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if isinstance(document.get("cases"), dict):
            prefix, beside = self.name + "/", arrays
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            entry = document["cases"][self.name]
            described = entry["arrays"]
            assert described.keys() == arrays.keys(), f"{self}: the json and the npz name different arrays"
            results = {name for name, array in described.items() if array["role"] in RESULTS}
            found = Arrays(arrays)
            found.beside = beside
            return entry, found, results
        parts = {name: name.split("/") for name in arrays}
        results = {n for n, part in parts.items() if part[0] in ("f64", "f32") and part[1] == self.name}
        if not results:  # no steps: the roles say what is a result
            described = document.get("arrays", {})
            results = {name for name in arrays if described.get(name, {}).get("role") in RESULTS}
        return {**document, "case": self.name}, Arrays(arrays), results


def _remembering(table: dict[str, Any]) -> dict[str, Any]:
    """The json's tables as they are, but for hyper-parameters, which remember what is read of them."""
    if isinstance(table.get("hyperparameters"), dict):
        table["hyperparameters"] = Hyperparameters(table["hyperparameters"])
    return table


def discover(folder: Path) -> list[Case]:
    """Cases of all files below ``folder``. A json with ``cases`` names them; the others are flat (see below)."""
    found = []
    for file in sorted({path.with_suffix(".json") for kind in ("json", "npz") for path in folder.rglob(f"*.{kind}")}):
        # A npz without its json is a case too: one that fails, because nothing says what it means.
        document = json.loads(file.read_text()) if file.exists() else {}
        if "fields" in document:  # a whole recipe (tests/golden/recipes)
            continue
        method = document.get("method", file.stem)
        names = _names(document)
        own = isinstance(document.get("cases"), dict)
        found += [Case(file, method, name, own) for name in names]
    return found


def _names(document: Mapping[str, Any]) -> list[str]:
    return list(document["cases"]) if isinstance(document.get("cases"), dict) else _flat(document)


def _flat(document: Mapping[str, Any]) -> list[str]:
    """Keys like ``f64/<case>/...``: the second part names the case. Any other file is one case."""
    keys = [key.split("/") for key in document.get("arrays", {})]
    return list(dict.fromkeys(key[1] for key in keys if key[0] in ("f64", "f32") and len(key) > 1)) or ["all"]


def first_match(table: Mapping[str, Any], name: str) -> Any:
    """The entry of the first pattern that fits ``name``, or None."""
    return next((entry for pattern, entry in table.items() if fnmatch.fnmatchcase(name, pattern)), None)
