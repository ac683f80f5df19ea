"""Operations by name (``modality/op``), and the checks that a list of them in a YAML file must pass."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from torch import nn

import ssl_zoo.augmentations
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.sides import Side
from ssl_zoo.signatures import describe, fits, hints_of

_OPERATIONS: dict[str, type[nn.Module]] = {}
Operation = TypeVar("Operation", bound=type[nn.Module])


def register(name: str) -> Callable[[Operation], Operation]:
    """Class decorator: make an operation known as ``name``; a second operation of that name is an error."""

    def add(operation: Operation) -> Operation:
        taken = _OPERATIONS.get(name, operation)
        if _origin(taken) != _origin(operation):   # the same origin: its module was imported again
            raise ValueError(f"augmentation {name!r} exists already: {_origin(taken)}")
        _OPERATIONS[name] = operation
        return operation

    return add


def _origin(operation: type) -> str:
    return f"{operation.__module__}.{operation.__qualname__}"


@cache
def _import_operations() -> None:
    """Import every module of this package once, so that a new file of operations needs no list to stand in."""
    package = ssl_zoo.augmentations
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def names() -> list[str]:
    """All operations, sorted."""
    _import_operations()
    return sorted(_OPERATIONS)


def get(name: str) -> type[nn.Module]:
    """The class of an operation, or a ConfigError that names the nearest one."""
    _import_operations()
    if name not in _OPERATIONS:
        raise ConfigError(f"no augmentation is called {name!r}: {nearest(name, _OPERATIONS)}")
    return _OPERATIONS[name]


def parse(entry: Any) -> tuple[str, dict[str, Any]]:
    """``{name: {option: value}}``, ``{name: null}`` or ``name`` of a YAML list as (name, options)."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, options = next(iter(entry.items()))
        if options is None or isinstance(options, Mapping):
            return str(name), {str(key): _plain(value) for key, value in (options or {}).items()}
    raise ConfigError(f"an augmentation is written {{modality/op: {{option: value}}}}, got {entry!r}")


def build(entry: Any, size: Side | None = None, facts: Mapping[str, Any] | None = None) -> nn.Module:
    """Build one operation of a view.

    Args:
        size: Of the view, where views have one; taken by an operation with that argument, unless the entry has it.
        facts: Of the source, taken likewise.
    """
    problems = _problems(entry) or ([] if size is None else _shape_problems(entry, size))
    if problems:
        raise ConfigError("; ".join(problems))
    return _build(entry, {**(facts or {}), **({} if size is None else {"size": size})})


def check(ops: Iterable[Any]) -> list[str]:
    """What is wrong with a list of operations, one message for each problem; empty if nothing is."""
    messages = []
    for entry in ops:
        problems = _problems(entry)
        if not problems:
            try:
                _build(entry, {"size": 224})
                problems = _type_problems(entry)
            except ValueError as error:  # the operation's own words say more
                problems = [f"{parse(entry)[0]}: {error}"]
            except TypeError as error:
                problems = _type_problems(entry) or [f"{parse(entry)[0]}: {error}"]
        messages += problems
    return messages


def _build(entry: Any, given: Mapping[str, Any]) -> nn.Module:
    name, options = parse(entry)
    operation = get(name)
    wanted = [key for key in inspect.signature(operation).parameters if key in given and options.get(key) is None]
    return operation(**{**options, **{key: given[key] for key in wanted}})


def _problems(entry: Any) -> list[str]:
    try:
        name, options = parse(entry)
        operation = get(name)
    except ConfigError as error:
        return [str(error)]
    parameters = inspect.signature(operation).parameters
    unknown = [f"{name} has no option {key!r}: {nearest(key, parameters)}" for key in options if key not in parameters]
    missing = [f"{name} needs the option {key!r}" for key, parameter in parameters.items()
               if parameter.default is parameter.empty and key not in options and key != "size"
               and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
    return unknown + missing


def _shape_problems(entry: Any, size: Side) -> list[str]:
    """Most operations make squares."""
    name, options = parse(entry)
    hint = hints_of(get(name)).get("size")
    if isinstance(size, int) or "size" in options or hint is None or fits(size, hint):
        return []
    takes = [known for known in names() if fits((2, 1), hints_of(get(known)).get("size", int))]
    return [f"{name} makes squares and the view is to be {list(size)}; these make other shapes: {', '.join(takes)}"]


def _type_problems(entry: Any) -> list[str]:
    name, options = parse(entry)
    hints = hints_of(get(name))
    return [f"{name}: {key} is {value!r}, wanted {describe(hints[key])}" for key, value in options.items()
            if key in hints and not fits(value, hints[key])]


def _plain(value: Any) -> Any:
    """Containers of a configuration library as lists and dicts."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]
