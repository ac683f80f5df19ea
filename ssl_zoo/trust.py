"""A configuration that comes out of a file is data: which names it may use, and what of it is left out.

The command line is the user's own and may name anything. A checkpoint may come from anywhere, so that its configuration
is read here before anything in it is imported, resolved or built.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ssl_zoo import renamed
from ssl_zoo.bounds import number_problem
from ssl_zoo.errors import ConfigError
from ssl_zoo.signatures import locate

# Of a whole configuration: nesting, values (a method's has up to 460), characters of a word.
DEPTH, VALUES, LETTERS = 32, 4_000, 1 << 22
NORMALIZE = "augmentation.normalize"  # what becomes of `measured` there is no word or number, but lists of them
STUDENTS = 4  # teachers of teachers that a configuration may hold
NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
# What the code itself writes into a configuration, besides what conf/ names.
OWN = ("ssl_zoo.methods.finetune.FineTune",)
# Classes of libraries that a file may name, wherever they are defined below these packages.
LIBRARIES: dict[str, tuple[type, ...]] = {
    "torch.nn": (nn.Module,),
    "torch.optim": (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
}
# Parts of the project that read or write files when they are built: named where they belong, and nowhere else.
PLACES = {
    "ssl_zoo.data.": "data",
    "ssl_zoo.callbacks.": "callbacks",
    "ssl_zoo.loggers.": "logger",
    "pytorch_lightning.loggers.": "logger",
    "ssl_zoo.evaluation.": None,  # protocols are chosen on the command line
}
# Settings that make a library fetch or read further files while it builds a network, besides ``weights`` and
# ``pretrained``; the weights are in the checkpoint.
FETCHING = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def packages(given: Any) -> tuple[str, ...]:
    """``trust`` of the command line as names of packages.

    Raises:
        ConfigError: If one of them is no name.
    """
    found = tuple(str(name).strip() for name in ([given] if isinstance(given, str) else given or ()))
    wrong = [name for name in found if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name)]
    if wrong:
        raise ConfigError(f"trust={wrong[0]!r}: wanted names of packages, trust=[my_package,other.part]")
    return found


def names_in(config: Any) -> frozenset[str]:
    """Every ``_target_`` of a configuration that the user has composed, with which he trusts it."""
    return frozenset(str(value) for key, value in _leaves(config) if key == "_target_")


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, str(name))
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node


def read(
    config: Any, where: str, trusted: Iterable[str] = (), known: Iterable[str] = (), students: int = STUDENTS
) -> dict[str, Any]:
    """A configuration from a file as plain containers, if it names only what a file may name.

    Args:
        config: What the file holds.
        where: What to call the file in messages: ``checkpoint=FILE``.
        trusted: Packages that the user trusts; a name covers its sub-modules.
        known: Names (``_target_``) that the user's own configuration has.
        students: How often a teacher in it may have a teacher of its own.

    Raises:
        ConfigError: With the file, the place in its configuration, and the name or value that is refused. Nothing but
            packages that the user trusts has been imported then, and nothing has been built.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where}: its configuration is {type(config).__name__}, wanted settings (key: value)")
    reader = _Reader(where, tuple(trusted), frozenset(known), students)
    found: dict[str, Any] = reader.copy(config, "", 0)
    return found


class _Reader:
    """Copies a configuration piece by piece, and refuses the first piece that is none."""

    def __init__(self, where: str, trusted: tuple[str, ...], known: frozenset[str], students: int) -> None:
        self.where, self.trusted, self.known, self.students = where, trusted, known, students
        self.values = 0

    def copy(self, node: Any, path: str, depth: int) -> Any:
        self.values += 1
        if depth > DEPTH or self.values > VALUES:
            raise self.refused(path, f"is nested deeper than {DEPTH} or larger than {VALUES:,} values")
        if isinstance(node, Mapping):
            return self._settings(node, path, depth)
        if isinstance(node, (list, tuple)):
            return [self.copy(value, f"{path}.{i}", depth + 1) for i, value in enumerate(node)]
        if path.endswith("teacher.network") and isinstance(node, str):
            return self._teacher(node, path)
        problem = _scalar_problem(node, path)
        if problem:
            raise self.refused(path, problem)
        return node

    def _settings(self, node: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        strange = [key for key in node if not isinstance(key, str) or len(key) > 1000 or "${" in key]
        if strange:
            raise self.refused(path, f"has the key {str(strange[0])[:80]!r}, which is no name of a setting")
        if "_target_" in node:
            node = renamed.moved(node)
            self._call(node, path)
        return {key: self.copy(value, f"{path}.{key}".lstrip("."), depth + 1) for key, value in node.items()}

    def _call(self, node: Mapping[str, Any], path: str) -> None:
        """A node that will be built: its name, and arguments that are all given by keyword."""
        name = node["_target_"]
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise self.refused(f"{path}._target_", f"is {str(name)[:80]!r}, wanted the name of a class")
        wrong = [key for key in node if not key.isidentifier() or key == "_args_"]
        if wrong:
            raise self.refused(f"{path}.{wrong[0]}", "is no argument by keyword, as a file must give them")
        if name not in self.known and not self._may(name, path):
            package = name.partition(".")[0]
            raise ConfigError(
                f"{self.where}: its configuration names {name} in {path}._target_, and a file may name only what this "
                "project's own configuration names there, and classes of torch.nn and torch.optim; if you wrote that "
                f"class yourself, say so with trust=[{package}]"
            )

    def _may(self, name: str, path: str) -> bool:
        if name in project_names():
            place = next((place for prefix, place in PLACES.items() if name.startswith(prefix)), "")
            if place == "" or path.partition(".")[0] == place:
                return True
        return library_class(name) or any(trusted_name(name, package) for package in self.trusted)

    def _teacher(self, text: str, path: str) -> str:
        """How to build a student's teacher, a record in JSON: as harmless as the configuration around it."""
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or record.keys() != {"config", "data_info"} or not self.students:
            raise self.refused(path, "does not say how to build a teacher")
        where = f"{self.where}, {path}"
        config = read(record["config"], where, self.trusted, self.known, self.students - 1)
        info = self.copy(record["data_info"], "data_info", 0)
        return json.dumps({"config": inert(config), "data_info": info})

    def refused(self, path: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.where}: its configuration cannot be used: {path or 'all of it'} {problem}")


def _scalar_problem(value: Any, path: str) -> str | None:
    if value is None or isinstance(value, (bool, float)):
        return None
    if isinstance(value, int):
        return number_problem(path, value)
    if not isinstance(value, str):
        return f"is a {type(value).__name__}, wanted settings, lists, words and numbers"
    if "${" in value or value == "???" or len(value) > LETTERS:
        return "is to be filled in from elsewhere (${...} or ???), which a file may not ask for"
    if "://" in value and path.startswith("data.") and path != "data.root":
        return f"is the address {value[:80]!r}, and nothing is fetched because a file says so"
    return None


@cache
def project_names() -> frozenset[str]:
    """What the files of ``conf/`` name as ``_target_``, and what the code itself writes."""
    found, folders = set(OWN), [files("ssl_zoo.conf")]
    while folders:
        for entry in folders.pop().iterdir():
            if entry.is_dir():
                folders.append(entry)  # type: ignore[arg-type]
            elif entry.name.endswith(".yaml"):
                found |= set(re.findall(r"_target_: *([\w.]+)", entry.read_text(encoding="utf-8")))
    return frozenset(found)


def library_class(name: str) -> bool:
    """Whether a name is that of a class of ``torch.nn`` or ``torch.optim``; looks only at what is imported already."""
    for package, kinds in LIBRARIES.items():
        if not name.startswith(f"{package}."):
            continue
        found: Any = getattr(torch, package.partition(".")[2])
        for part in name.removeprefix(f"{package}.").split("."):
            inside = isinstance(found, ModuleType) and _within(found.__name__, package)
            found = vars(found).get(part, sys.modules.get(f"{found.__name__}.{part}")) if inside else None
        return inspect.isclass(found) and issubclass(found, kinds) and _within(found.__module__, package)
    return False


def trusted_name(name: str, package: str) -> bool:
    """Whether a name is that of a class or a function that a package of the user's defines itself."""
    if not _within(name, package) or any(part.startswith("__") for part in name.split(".")):
        return False
    try:
        found = locate(name)
    except LookupError:
        return False
    owner = found.__self__ if inspect.ismethod(found) else found  # a class method: its class counts
    return (inspect.isclass(owner) or inspect.isfunction(owner)) and _within(str(owner.__module__), package)


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def inert(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration from :func:`read` without what would fetch, read or write files while it is built.

    Weights are in the checkpoint; the data are looked for where they were, never downloaded; nothing is continued,
    logged or called back. What the user types for an evaluation is put into the result and stays.
    """
    found: dict[str, Any] = _quiet(config)
    left_out: dict[str, Any] = {"resume": None, "trust": [], "callbacks": {}, "logger": {}}
    found |= {key: value for key, value in left_out.items() if key in found}
    method = found.get("method")
    if isinstance(method, dict) and "start" in method:  # of fine-tuning: where its run began
        method["start"] = None
    return found


def _quiet(node: Any, key: str = "") -> Any:
    if key in FETCHING or key in ("weights", "cache") and isinstance(node, str):
        return None
    if isinstance(node, Mapping):
        found = {name: _quiet(value, name) for name, value in node.items()}
        if key == "teacher" and found.get("network") is not None:
            found["kept"] = True
        return found
    if isinstance(node, list):
        return [_quiet(value, key) for value in node]
    return False if key in ("download", "pretrained") else node


def record_problem(checkpoint: Any) -> str | None:
    """What is wrong with the parts of a checkpoint of ours that are read before anything is built; None: nothing.

    What ``auto`` was resolved to is put into the configuration of a run that goes on, which may name anything: it must
    be a word or a number there too.
    """
    said, state = checkpoint["ssl_zoo"], checkpoint.get("state_dict")
    if not isinstance(said, Mapping):
        return "'ssl_zoo' is no record"
    for key in ("config", "data_info"):
        if not isinstance(said.get(key), Mapping):
            return f"its record has no {key!r}"
    for key in ("identity", "resolved", "length"):
        if not isinstance(said.get(key, {}), Mapping):
            return f"{key!r} in its record is no settings"
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        return "it holds no tensors by name"
    for key in ("global_step", "epoch"):
        if type(checkpoint.get(key, 0)) is not int:
            return f"{key!r} is no whole number"
    wrong = [key for key, value in said.get("length", {}).items() if type(value) is not int]
    wrong += [path for path, item in said.get("resolved", {}).items() if not is_resolved(path, item)]
    return f"{wrong[0]!r} in its record is no word or number" if wrong else None


def _is_statistics(value: Any) -> bool:
    """Whether it is ``{mean: [...], std: [...]}``."""
    if not isinstance(value, Mapping) or set(value) != {"mean", "std"}:
        return False
    lists = [value["mean"], value["std"]]
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for part in lists for x in part)
    return numbers and all(isinstance(part, list) for part in lists)


def is_resolved(path: Any, item: Any) -> bool:
    """Whether a file says in plain words or numbers what ``auto`` became at a path: ``{typed: auto, value: ...}``."""
    if not isinstance(path, str) or not isinstance(item, Mapping):
        return False
    typed, value = item.get("typed"), item.get("value")
    if path == NORMALIZE:
        return (typed == "measured" or _is_statistics(typed)) and _is_statistics(value)
    if typed != "auto":
        return False
    parts = value if isinstance(value, list) else [value]
    return "_target_" not in path and all(_scalar_problem(part, "") is None for part in parts)
