"""Check every ``_target_`` of a configuration against the signature that it will be called with."""

from __future__ import annotations

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssl_zoo.errors import nearest
from ssl_zoo.ranges import Range

C = typing.TypeVar("C", bound=type)
SPECIAL = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
# What the builder hands over itself, so that no configuration lists it.
INJECTED = ("data_info",)


def problems(node: Any, path: str = "") -> Iterator[str]:
    """One sentence for every unknown name, missing argument and value of a wrong type below ``node``."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield from _call_problems(node, path)
        for key, value in node.items():
            yield from problems(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from problems(value, f"{path}.{i}")


def locate(target: str) -> Any:
    """Import ``package.module.Name``; ``LookupError`` says which part is missing and what is near."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and not name.startswith(error.name):
                raise LookupError(f"{name} needs the package {error.name!r}, which is not installed") from None
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise LookupError(f"{name} has no {part!r}; {nearest(part, [n for n in vars(found) if n[0] != '_'])}")
            found = getattr(found, part)
        return found
    raise LookupError(f"there is no module {parts[0]!r}")


def _call_problems(node: dict[str, Any], path: str) -> Iterator[str]:
    try:
        call = locate(str(node["_target_"]))
    except LookupError as error:
        yield f"{path}._target_={node['_target_']}: {error}"
        return
    given = {str(key): value for key, value in node.items() if key not in SPECIAL}
    yield from argument_problems(call, given, path, partial=bool(node.get("_partial_")))


def argument_problems(
    call: Callable[..., Any], given: dict[str, Any], path: str, partial: bool = False
) -> Iterator[str]:
    """Sentences about keyword arguments that ``call`` does not take, lacks, or takes as another type."""
    parameters = parameters_of(call)
    if parameters is None:
        return  # a builtin without a signature: it judges its own arguments
    parameters = {key: p for key, p in parameters.items() if p.kind is not p.POSITIONAL_ONLY}  # the caller's own
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = hints_of(call)
    name = getattr(call, "__name__", str(call))
    for key, value in given.items():
        if key not in parameters:
            if not open_ended:
                known = [p for p in parameters if p != "self"]
                yield f"{path}.{key}: {name} has no argument {key!r}; {nearest(key, known)}"
        elif key in hints and not fits(value, hints[key]):
            got = "" if _is_number(value) else f", got {type(value).__name__}"
            yield f"{path}.{key}={value!r}: {name} wants {describe(hints[key])}{got}"
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and not partial and key not in given and key not in (*INJECTED, "self"):
            yield f"{path}: {name} needs {key!r}, which is not set"


@functools.lru_cache(maxsize=1024)  # the jobs of a sweep ask again and again
def parameters_of(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """What a class or a function takes; None: nobody knows."""
    try:
        return inspect.signature(call).parameters
    except ValueError:
        return None


def passing_on(cls: C) -> C:
    """Class decorator: what ``**more`` of ``__init__`` takes are the arguments of the base class, and nothing else."""
    own = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = {p.name for p in own}
    base = [p for p in inspect.signature(cls.__base__).parameters.values() if p.name not in names]  # type: ignore[arg-type]
    both = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *base)]
    cls.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    return cls


def hints_of(call: Callable[..., Any]) -> dict[str, Any]:
    """What the arguments of a class or a function are annotated with, ranges included."""
    return _hints_of(call)


@functools.lru_cache(maxsize=1024)
def _hints_of(call: Callable[..., Any]) -> dict[str, Any]:
    target = call.__init__ if inspect.isclass(call) else call  # type: ignore[misc]
    inherited = hints_of(call.__mro__[1]) if inspect.isclass(call) and "__signature__" in vars(call) else {}
    try:
        return {**inherited, **typing.get_type_hints(target, include_extras=True)}
    except (NameError, TypeError, AttributeError):
        return {}  # annotations of another library that cannot be evaluated here


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value can stand for ``hint``; what is built from a ``_target_`` is not judged."""
    if isinstance(value, dict) and "_target_" in value or hint is Any:
        return True
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        ranges = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
        return fits(value, hint.__origin__) and all(extra.holds(value) for extra in ranges)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return _is_number(value)
    if hint is str:
        return isinstance(value, str)
    kind, arguments = origin or hint, typing.get_args(hint)
    if _is_a(kind, Mapping):
        return isinstance(value, dict) and (not arguments or all(fits(v, arguments[1]) for v in value.values()))
    if _is_a(kind, Sequence):
        return isinstance(value, (list, tuple)) and _elements_fit(value, arguments, kind)
    return not _is_built(kind) or type(value) is kind


def _is_a(kind: Any, family: type) -> bool:
    return inspect.isclass(kind) and issubclass(kind, family) and kind is not str


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _elements_fit(values: Sequence[Any], hints: tuple[Any, ...], kind: Any) -> bool:
    if not hints:
        return True
    if kind is tuple and hints[-1] is not Ellipsis:
        return len(values) == len(hints) and all(map(fits, values, hints))
    return all(fits(value, hints[0]) for value in values)


def _is_built(hint: Any) -> bool:
    """Whether a hint names something that only a ``_target_`` can make: a network, a head, a schedule, a recipe."""
    return hint is Callable or (inspect.isclass(hint) and hint.__module__.startswith(("torch", "ssl_zoo")))


def describe(hint: Any) -> str:
    """A hint in words: ``float or a schedule``."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        words = (extra.words for extra in hint.__metadata__ if isinstance(extra, Range))
        return " ".join([describe(hint.__origin__), *words])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if _is_a(origin or hint, Mapping):
        return "settings (key: value)"
    if _is_a(origin or hint, Sequence):
        elements = [part for part in typing.get_args(hint) if part is not Ellipsis]
        length = f" of {len(elements)}" if origin is tuple and len(elements) == len(typing.get_args(hint)) else ""
        return f"a list{length}" + (f", each {describe(elements[0])}" if elements else "")
    known = {float: "a number", int: "a whole number", bool: "true or false", str: "a word", type(None): "null"}
    return known.get(hint, f"a {getattr(hint, '__name__', str(hint)).lower()} (a node with _target_)")


VIEW_KINDS = ("global", "local")


def view_counts(views: list[dict[str, Any]]) -> tuple[int, ...]:
    """How many views a list of them gives, kind by kind."""
    return tuple(sum(v.get("count", 1) for v in views if v.get("kind", "global") == kind) for kind in VIEW_KINDS)


def views_problem(method: Any, views: list[dict[str, Any]]) -> str | None:
    """The sentence that says which views the class ``method`` needs, or None when the list of ``views`` suits it."""
    for kind, got, least, most in zip(
        VIEW_KINDS, view_counts(views), method.views_required, method.views_allowed, strict=True
    ):
        if got < least:
            return (
                f"augmentation.views gives {got} {kind} view(s) and {method.__name__} needs at least {least}; "
                f"add views with kind: {kind}, or raise their count"
            )
        if most is not None and got > max(most, least):
            return (
                f"augmentation.views gives {got} {kind} view(s) and {method.__name__} takes at most "
                f"{max(most, least)}; remove views or lower their count"
            )
    return None
