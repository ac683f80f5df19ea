"""Compose a configuration from the words of a command line, and name every word that is wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_zoo import words
from ssl_zoo.errors import ConfigError, nearest

SHARED = {"any", "base"}  # files of a group that its others build on (data/base.yaml): no choices of their own
OF_THE_SCALE = "/${scale}"
# Beginnings of settings by the file to compose: what lies below is a checkpoint's, and its names are checked with that.
OPEN = {"evaluate": ("data.source.",)}


def typed(word: str) -> str:
    """A word for Hydra (:meth:`Composer.at_scale`) as it was typed."""
    return re.sub(r"/\$\\?\{scale\\?\}", "", word)  # a sweeper escapes the braces


@contextmanager
def _hydra() -> Iterator[Any]:
    held = GlobalHydra.instance().is_initialized()
    if not held:
        initialize_config_module("ssl_zoo.conf", version_base="1.3")
    try:
        yield GlobalHydra.instance().config_loader()
    finally:
        if not held:
            GlobalHydra.instance().clear()


def load(argv: Sequence[str], name: str = "train") -> DictConfig:
    """Compose the configuration ``name`` with overrides; a :class:`ConfigError` lists every wrong name at once."""
    with composer(name) as composing:
        return composing.load(argv)


@contextmanager
def composer(name: str = "train") -> Iterator[Composer]:
    """A :class:`Composer`, while Hydra is there to be asked."""
    with _hydra() as loader:
        yield Composer(loader, name)


class Composer:
    """Composes configurations called ``name``; those that choose the same files share the reading of them.

    Values never change which files are chosen, so that they are applied to a copy of what the choices make.
    """

    def __init__(self, loader: Any, name: str) -> None:
        self.loader = loader
        self.name = name
        self._listed: dict[tuple[str, ObjectType], list[str]] = {}
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self.groups = [*(top := self._list("", ObjectType.GROUP)), *(own for group in top for own in self._own(group))]

    def _list(self, group: str, kind: ObjectType) -> list[str]:
        """The files or the folders of a group. The loader's own list copies all it knows each time, for 20 ms."""
        if (group, kind) not in self._listed:
            holding = [source for source in self.loader.get_sources() if source.is_group(group)]
            self._listed[group, kind] = sorted({name for source in holding for name in source.list(group, kind)})
        return self._listed[group, kind]

    def _own(self, group: str) -> list[str]:
        """The groups of single choices, in the folder beside such a file: ``method/contrastive/loss``."""
        both = [name for name in self._list(group, ObjectType.GROUP) if name in self._files(group)]
        return [f"{group}/{name}/{own}" for name in both for own in self._list(f"{group}/{name}", ObjectType.GROUP)]

    def is_choice(self, override: Override) -> bool:
        """Whether an override chooses a file, or is Hydra's own, rather than setting a value."""
        key = override.key_or_group
        return key.startswith("hydra") or (key in self.groups and not isinstance(override.value(), dict))

    def at_scale(self, argv: Sequence[str]) -> list[str]:
        """The same words for Hydra: a choice that has a file for each scale (``augmentation=byol``) takes the run's."""
        return [self._at_scale(word) for word in self._opened(argv)]

    def _opened(self, argv: Sequence[str]) -> list[str]:
        """Settings of nodes that the file does not spell out, as Hydra takes them."""
        return [f"++{word}" if word.startswith(OPEN.get(self.name, ())) else word for word in argv]

    def _at_scale(self, word: str) -> str:
        group, equals, value = word.partition("=")
        if not equals or group not in self.groups:
            return word
        pattern = words.parse([word])[0].value() if value.startswith("glob(") else None
        if isinstance(pattern, Glob):  # of which Hydra would see the files alone
            value = ",".join(pattern.filter(self.names(group)))
        folders = self.folders(group)
        return group + equals + re.sub(r"[\w/]+", lambda m: m[0] + OF_THE_SCALE * (m[0] in folders), value)

    def folders(self, group: str) -> list[str]:
        """The choices of a group that have a file for each scale."""
        files = self._files(group)
        return [name for name in self._list(group, ObjectType.GROUP) if name not in files]

    def load(self, argv: Sequence[str]) -> DictConfig:
        """The configuration of one job; a :class:`ConfigError` lists every wrong name at once."""
        argv = self._opened(argv)
        parsed = list(zip(words.parse(argv), argv, strict=True))
        several = [words.sweep_problem(override, raw) for override, raw in parsed if override.is_sweep_override()]
        if several:
            raise ConfigError("\n".join(several))
        # The loader does not know the names in folders of a search path: composing judges them.
        search = any(override.key_or_group == "hydra.searchpath" for override, _ in parsed)
        problems, choices, values = [], [], []
        for override, raw in parsed:
            if not self.is_choice(override):
                values.append((override, raw))
                continue
            problem = self._choice_problem(override, search)
            problems += [problem] if problem else []
            choices += [] if problem else [self._at_scale(raw)]
        base = self._base(choices)
        problems += [p for o, _ in values if (p := _key_problem(self.groups, base, o))]
        if problems:
            raise ConfigError("\n".join(problems))
        applied = _applied(base, [override for override, _ in values])
        return _compose(self.name, choices + [raw for _, raw in values]) if applied is None else applied

    def _files(self, group: str) -> list[str]:
        return self._list(group, ObjectType.CONFIG)

    def names(self, group: str) -> list[str]:
        """What ``group=`` may be: its files, and its folders that have a file for each scale."""
        return sorted({*self._files(group), *self.folders(group)} - SHARED)

    def is_good_choice(self, override: Override) -> bool:
        """Whether an override chooses a file that there is."""
        return self.is_choice(override) and not self._choice_problem(override, search=False)

    def settings(self, argv: Sequence[str]) -> DictConfig:
        """Hydra's own settings (``hydra.sweeper``, ``hydra.launcher``, ...), with overrides of one value each."""
        return _compose(self.name, self.at_scale(argv), hydra=True).hydra

    def _choice_problem(self, override: Override, search: bool) -> str | None:
        if override.key_or_group.startswith("hydra"):
            return words.plugin_problem(override)
        return None if search else self._group_problem(override.key_or_group, override)

    def _group_problem(self, group: str, override: Override) -> str | None:
        value = override.value()
        if override.is_delete():
            return None
        if value is None:
            options = ", ".join(self.names(group))
            return f"{group}=null: a group wants one of its files, {options}; leave {group} out for its default"
        for choice in map(str, value if isinstance(value, list) else [value]):  # callbacks=[nan_guard,progress]
            inner, _, name = choice.rpartition("/")  # optimizer=simclr/large
            if name not in self.names(f"{group}/{inner}".rstrip("/")):
                return f"{group}={choice}: there is no such {group}; {nearest(choice, self.names(group))}"
        return None

    def _base(self, choices: list[str]) -> DictConfig:
        key = tuple(choices)
        if key not in self._bases:
            self._bases[key] = _compose(self.name, choices)
        return self._bases[key]


def _applied(base: DictConfig, values: list[Override]) -> DictConfig | None:
    """A copy of ``base`` with values set, exactly as Hydra sets them; None where Hydra has to do it, or to complain."""
    if any(o.package is not None or o.is_delete() or o.is_add() or o.is_force_add() for o in values):
        return None
    cfg = copy.deepcopy(base)
    try:
        for override in values:
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        return None
    return cfg


def _compose(name: str, overrides: list[str], hydra: bool = False) -> DictConfig:
    try:
        return compose(name, overrides, return_hydra_config=hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(told(error)) from None


def told(error: Exception) -> str:
    """What Hydra says, in one line and without its advice about stack traces; of other errors the first line."""
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        group, _, choice = str(missing).rpartition("/")
        if "/" in group:
            top, _, name = group.partition("/")
            return f"{top}={name}: it has no file for the scale {choice}; leave {top} out for the method's own"
        known = [name for name in getattr(error, "options", None) or [] if name not in SHARED]
        return f"{group}={choice}: there is no such {group}; {nearest(choice, known)}"
    own = re.match(r"Could not override '(\w+)/(\w+)/\w+'", str(error))
    if own:
        key, group, of = own[0].split("'")[1], own[1], own[2]
        return f"{key} is a choice of {group}={of}, and another {group} is chosen; add {group}={of}, or leave {key} out"
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"{lines[0] if lines else type(error).__name__} (HYDRA_FULL_ERROR=1 shows where)"
    return " ".join(lines) or type(error).__name__


def _key_problem(groups: list[str], base: DictConfig, override: Override) -> str | None:
    if override.is_add() or override.is_force_add():
        return None
    node: Any = base
    parts = override.key_or_group.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, ListConfig):
            return None  # Hydra itself names a wrong list index
        if not isinstance(node, DictConfig) or part not in node.keys():  # noqa: SIM118  (`in` denies "???")
            names = list(map(str, node.keys())) if isinstance(node, DictConfig) else []
            names += groups if depth == 0 else []
            where = ".".join(parts[:depth]) or "the configuration"
            return f"{override.key_or_group}: {where} has no {part!r}; {nearest(part, names)}"
        node = node._get_node(part)
        if depth + 1 < len(parts) and node._is_interpolation():
            node = node._dereference_node()
    return None
