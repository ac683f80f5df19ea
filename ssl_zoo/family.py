"""Jobs that choose the same files and set the same keys: one configuration, of which only what differs is set anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import Container, DictConfig, OmegaConf

SCALARS = (bool, int, float, str, type(None))


class Family:
    """Gives the configurations of jobs that differ from a first one in single values.

    Only values that stand for themselves are set this way, at keys that hold such a value already. What refers to them
    is found by name: a reference is taken to depend on a key when it mentions any part of its path, or names what it
    refers to by another reference or a function. So some are resolved anew in vain, and none is missed.

    Args:
        cfg: The configuration of the first job; set by :meth:`member` from now on.
        values: Its overrides that set values.

    Raises:
        OmegaConfBaseException: If a reference leads nowhere, or a value that must be given is not.
    """

    def __init__(self, cfg: DictConfig, values: list[Override]) -> None:
        self.cfg = cfg
        self.first = values
        self.plain: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
            cfg, resolve=True, throw_on_missing=True
        )
        self.varying: set[str] = set()
        self.references = list(_references(cfg, ()))
        self.depending: dict[str, list[tuple[Container, tuple[Any, ...]]]] = {}
        keys = [override.key_or_group for override in values]
        within = [key for key in keys if any(key.startswith(f"{other}.") for other in keys)]
        self.usable = len(set(keys)) == len(keys) and not within

    def member(self, values: list[Override]) -> tuple[DictConfig, dict[str, Any]] | None:
        """The configuration of another job and the same resolved, both good until the next call; None: not this way.

        Raises:
            OmegaConfBaseException: If a reference leads nowhere with these values.
        """
        if not self.usable or not all(map(self._is_settable, values, self.first)):
            return None
        pairs = zip(values, self.first, strict=True)
        # For good: a key that an earlier job changed may have its first value again.
        self.varying |= {override.key_or_group for override, first in pairs if override.input_line != first.input_line}
        for override in values:
            if override.key_or_group in self.varying:
                OmegaConf.update(self.cfg, override.key_or_group, override.value())
        for key in self.varying:
            self._put(tuple(key.split(".")), OmegaConf.select(self.cfg, key))
            for parent, place in self._depending(key):
                value = parent[place[-1]]
                self._put(place, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
        return self.cfg, self.plain

    def _is_settable(self, override: Override, first: Override) -> bool:
        if override.input_line == first.input_line:
            return True
        plain = all(_stands_for_itself(one) for one in (override, first))
        return plain and _is_leaf(self.cfg, override.key_or_group)

    def _depending(self, key: str) -> list[tuple[Container, tuple[Any, ...]]]:
        """The references that depend on ``key``, or on another of them."""
        if key not in self.depending:
            parts, found, rest = set(key.split(".")), [], self.references
            while True:
                now = [reference for reference in rest if _mentions(reference[2], parts)]
                if not now:
                    break
                found += now
                rest = [reference for reference in rest if reference not in now]
                parts |= {str(part) for _, place, _ in now for part in place}
            self.depending[key] = [(parent, place) for parent, place, _ in found]
        return self.depending[key]

    def _put(self, path: tuple[Any, ...], value: Any) -> None:
        node: Any = self.plain
        *parents, last = path
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[int(last) if isinstance(node, list) else last] = value


def _references(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Container, tuple[Any, ...], str]]:
    """Every reference below ``node``: the container that holds it, its path, its text."""
    keys = list(node.keys()) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if child._is_interpolation():
            yield node, (*path, key), str(child._value())
        elif isinstance(child, Container) and not child._is_none() and not child._is_missing():
            yield from _references(child, (*path, key))


def _mentions(text: str, parts: set[str]) -> bool:
    dynamic = text.count("${") > 1 or ":" in text
    return dynamic or not parts.isdisjoint(re.findall(r"\w+", text))


def _stands_for_itself(override: Override) -> bool:
    value = override.value()
    plain = override.type is OverrideType.CHANGE and override.package is None and isinstance(value, SCALARS)
    return plain and not (isinstance(value, str) and ("${" in value or value == "???"))


def _is_leaf(cfg: DictConfig, key: str) -> bool:
    parent: Any = cfg
    *parents, last = key.split(".")
    for part in parents:
        parent = parent._get_node(part) if isinstance(parent, DictConfig) else None
        if parent is None or parent._is_interpolation():
            return False
    node = parent._get_node(last) if isinstance(parent, DictConfig) else None
    return node is not None and not isinstance(node, Container) and not node._is_interpolation()

