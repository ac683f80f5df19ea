"""Compose a configuration and find everything wrong with it, before torch is imported and before a folder is made."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ssl_zoo.errors import ConfigError, nearest

# What does not change the numbers of a run: two configurations that differ only here continue one another.
NOT_IN_HASH = ("run_dir", "resume", "report", "evaluate_every", "callbacks", "logger", "card", "recipe", "expected")
NOT_IN_DATA_HASH = ("root", "workers", "download", "layout", "cache", "max_cache_size")
# What is read by name before anything is built: must be settings, settings or null, a list.
SETTINGS = (
    "backbone", "batch_norm", "trainer", "optimizer", "method", "recipe", "data", "augmentation", "augmentation.eval",
)  # fmt: skip
OPTIONAL = ("callbacks", "logger", "data.layout", "trainer.clip", "augmentation.normalize")
LISTS = ("augmentation.views", "augmentation.eval.ops")
IN_TRAINER_HASH = ("max_epochs", "max_steps", "accumulate", "clip", "precision")


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


def expand(argv: Sequence[str]) -> list[list[str]]:
    """All jobs of a sweep: the overrides of each, in the order in which Hydra runs them."""
    parsed = _parse(argv)
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] if o.is_sweep_override() else [raw]
        for o, raw in zip(parsed, argv, strict=True)
    ]
    return [list(job) for job in itertools.product(*choices)]


def _parse(argv: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(argv))
    except OverrideParseException as error:
        first = str(error).splitlines()[0]
        advice = "write key=value, with quotes around spaces"
        raise ConfigError(f"cannot read {error.override!r}: {first}; {advice}") from None


def load(argv: Sequence[str], name: str = "train") -> DictConfig:
    """Compose the configuration ``name`` with overrides; a :class:`ConfigError` lists every wrong name at once."""
    parsed = _parse(argv)
    with _hydra() as loader:
        search = [raw for o, raw in zip(parsed, argv, strict=True) if o.key_or_group == "hydra.searchpath"]
        known = loader.list_groups("")
        problems, groups, values = [], [], []
        for override, raw in zip(parsed, argv, strict=True):
            key = override.key_or_group
            if key.startswith("hydra"):
                groups.append(raw)
            elif key in known and not isinstance(override.value(), dict):
                # The loader does not know the names in folders of a search path: composing judges them.
                problem = None if search else _group_problem(loader, key, override)
                problems += [problem] if problem else []
                groups += [] if problem else [raw]
            else:
                values.append((override, raw))
        base = _compose(name, groups)
        problems += [p for o, _ in values if (p := _key_problem(loader, base, o))]
        if problems:
            raise ConfigError("\n".join(problems))
        return _compose(name, groups + [raw for _, raw in values])


def _compose(name: str, overrides: list[str]) -> DictConfig:
    try:
        return compose(name, overrides, return_hydra_config=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_hydra_message(error)) from None


def _hydra_message(error: Exception) -> str:
    """What Hydra says, less its advice about stack traces."""
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        group, _, choice = str(missing).rpartition("/")
        return f"{group}={choice}: there is no such {group}; {nearest(choice, getattr(error, 'options', None) or [])}"
    lines = [line for line in str(error).splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return " ".join(line.strip() for line in lines)


def _group_problem(loader: Any, group: str, override: Override) -> str | None:
    value = override.value()
    if override.is_delete():
        return None
    if value is None:
        options = ", ".join(loader.get_group_options(group))
        return f"{group}=null: a group wants one of its files, {options}; leave {group} out for its default"
    for choice in map(str, value if isinstance(value, list) else [value]):  # callbacks=[nan_guard,progress]
        inner, _, name = choice.rpartition("/")  # optimizer=simclr/large
        if name not in loader.get_group_options(f"{group}/{inner}".rstrip("/")):
            return f"{group}={choice}: there is no such {group}; {nearest(choice, loader.get_group_options(group))}"
    return None


def _key_problem(loader: Any, base: DictConfig, override: Override) -> str | None:
    if override.is_add() or override.is_force_add():
        return None
    node: Any = base
    parts = override.key_or_group.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, ListConfig):
            return None  # Hydra itself names a wrong list index
        if not isinstance(node, DictConfig) or part not in node.keys():  # noqa: SIM118  (`in` denies "???")
            names = list(map(str, node.keys())) if isinstance(node, DictConfig) else []
            names += loader.list_groups("") if depth == 0 else []
            where = ".".join(parts[:depth]) or "the configuration"
            return f"{override.key_or_group}: {where} has no {part!r}; {nearest(part, names)}"
        node = node._get_node(part)
        if depth + 1 < len(parts) and node._is_interpolation():
            node = node._dereference_node()
    return None


def quick_check(cfg: DictConfig) -> None:
    """Everything that needs neither torch nor a look into files: folders, divisibility, ranges.

    Raises:
        ConfigError: With one line per problem, each naming the key, what it got, what it wants and a fix.
    """
    problems = [*_resolve_problems(cfg)] or [*_structure_problems(cfg)]
    if not problems:
        checks = (
            _batch_problems, _length_problems, _compile_problems, _data_problems, _resume_problems, _callback_problems,
        )  # fmt: skip
        problems = [problem for check in checks for problem in check(cfg)]
    if problems:
        raise ConfigError("\n".join(problems))


def _resolve_problems(cfg: DictConfig) -> Iterator[str]:
    found: dict[str, str] = {}  # by the key at fault: other nodes may refer to it
    for key in cfg:
        try:
            if OmegaConf.is_config(cfg[key]):
                OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            at = error.full_key or str(key)
            missing = isinstance(error, MissingMandatoryValue)
            found[at] = f"{at} is not set; give {at}=VALUE" if missing else f"{at}: {str(error).splitlines()[0]}"
    yield from found.values()


def _structure_problems(cfg: DictConfig) -> Iterator[str]:
    entries = [f"{group}.{key}" for group in ("callbacks", "logger") for key in _keys(cfg.get(group))]
    wanted: dict[str, tuple[tuple[type, ...], str]] = {path: ((dict,), "settings (key: value)") for path in SETTINGS}
    wanted |= {path: ((dict, type(None)), "settings (key: value), or null") for path in (*OPTIONAL, *entries)}
    wanted |= {path: ((list,), "a list") for path in LISTS}
    for path, (kinds, words) in wanted.items():
        parent = OmegaConf.select(cfg, path.rpartition(".")[0]) if "." in path else cfg
        if isinstance(parent, DictConfig):
            value = parent.get(path.rpartition(".")[2])
            value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            if not isinstance(value, kinds):
                yield f"{path}={value!r}: wanted {words}, got {type(value).__name__}"


def _keys(node: Any) -> list[str]:
    return list(map(str, node)) if isinstance(node, DictConfig) else []


def _positive(cfg: DictConfig, path: str) -> Iterator[str]:
    value = OmegaConf.select(cfg, path)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        yield f"{path}={value!r}: wanted a whole number of at least 1"


def _devices_problems(cfg: DictConfig) -> Iterator[str]:
    if cfg.trainer.devices != -1:
        yield from (f"{problem}, or -1 for all of them" for problem in _positive(cfg, "trainer.devices"))


def _batch_problems(cfg: DictConfig) -> Iterator[str]:
    numbers = ("data.batch_size", "trainer.accumulate", "trainer.num_nodes", "data.image_size", "data.channels")
    wrong = [*_devices_problems(cfg), *(problem for path in numbers for problem in _positive(cfg, path))]
    yield from wrong
    if not wrong and cfg.trainer.devices != -1:
        yield from divisible(cfg, cfg.trainer.devices)
    if not wrong:
        yield from _group_problems(cfg)


def divisible(cfg: DictConfig, devices: int) -> Iterator[str]:
    """The sentence about a global batch that does not split evenly, with the nearest sizes that do."""
    batch, parts = cfg.data.batch_size, devices * cfg.trainer.num_nodes * cfg.trainer.accumulate
    if batch % parts:
        low = batch // parts * parts
        fixes = " or ".join(str(size) for size in (low, low + parts) if size)
        yield (
            f"data.batch_size={batch} (samples per step over all devices) does not divide by trainer.devices={devices}"
            f" x trainer.num_nodes={cfg.trainer.num_nodes} x trainer.accumulate={cfg.trainer.accumulate} = {parts};"
            f" try data.batch_size={fixes}"
        )


def _group_problems(cfg: DictConfig) -> Iterator[str]:
    group, rows = cfg.batch_norm.group, cfg.data.batch_size // cfg.trainer.accumulate
    if group is None:
        return
    if not isinstance(group, int) or isinstance(group, bool):
        yield f"batch_norm.group={group!r}: wanted a whole number of rows, or null for all of them"
    elif group < 2 or rows % group:
        yield (
            f"batch_norm.group={group} (rows that share statistics) does not divide the {rows} rows of a micro-batch"
            f" over all devices; try batch_norm.group={_divisor(rows, group)}, or null for all of them"
        )


def _length_problems(cfg: DictConfig) -> Iterator[str]:
    if cfg.trainer.max_epochs == cfg.trainer.max_steps == -1:
        yield "trainer.max_epochs=-1 and trainer.max_steps=-1: the run has no end; set one of them"


def _compile_problems(cfg: DictConfig) -> Iterator[str]:
    """A graph holds one backward pass: gradients that add up over several would lie in memory that it overwrites."""
    chosen = cfg.trainer.compile
    if chosen not in (False, True, "graphs"):
        yield f"trainer.compile={chosen}: wanted false, true, or graphs"
    if chosen != "graphs":
        return
    passes = {"trainer.accumulate": cfg.trainer.accumulate, "method.grad_cache": cfg.method.get("grad_cache") or 1}
    parts = {**passes, "trainer.devices": cfg.trainer.devices, "trainer.num_nodes": cfg.trainer.num_nodes}
    for key, number in parts.items():
        if number != 1:
            wanted = "one backward pass a step, on one device"
            yield f"trainer.compile=graphs takes {wanted}, got {key}={number}; set {key}=1, or trainer.compile=true"


def _divisor(rows: int, near: int) -> int:
    """The divisor of ``rows``, at least 2, that lies nearest to ``near``."""
    return min((n for n in range(2, rows + 1) if rows % n == 0), key=lambda n: abs(n - near), default=rows)


def _data_problems(cfg: DictConfig) -> Iterator[str]:
    layout, root = cfg.data.get("layout"), cfg.data.get("root")
    if not layout or root is None:
        if layout and layout.get("paths") is not None:
            yield f"data.root is not set; {layout.hint}"
        return
    path = Path(os.path.expanduser(str(root)))
    if cfg.data.get("download"):
        return
    kind = "file" if layout.get("file") else "folder"
    if not (path.is_file() if layout.get("file") else path.is_dir()):
        yield f"data.root={root}: there is no such {kind} (looked at {path.absolute()}); {layout.hint}"
    elif layout.get("paths") and not any((path / wanted).exists() for wanted in layout.paths):
        wanted = " or ".join(f"{name}" for name in layout.paths)
        yield f"data.root={root}: found no {wanted} in {path.absolute()}; {layout.hint}"


def _callback_problems(cfg: DictConfig) -> Iterator[str]:
    for name, node in (cfg.callbacks or {}).items():
        if node and "_target_" not in node:
            yield (
                f"callbacks.{name} has settings and no _target_: nothing chose that callback; choose it too "
                f"(callbacks=[…,{name}]), or leave its settings out"
            )


def _resume_problems(cfg: DictConfig) -> Iterator[str]:
    resume = cfg.get("resume")
    if resume not in (None, "auto") and not Path(str(resume)).exists():
        yield f"resume={resume}: there is no such file; wanted null, auto, or the path of a checkpoint (…/last.ckpt)"


def config_hash(cfg: dict[str, Any]) -> str:
    """Twelve hex digits of what determines the numbers of a run; devices, loggers and paths do not count."""
    kept = {key: value for key, value in cfg.items() if key not in NOT_IN_HASH}
    kept["data"] = {key: value for key, value in cfg["data"].items() if key not in NOT_IN_DATA_HASH}
    if isinstance(kept["data"].get("source"), dict):
        kept["data"]["source"] = {k: v for k, v in kept["data"]["source"].items() if k not in NOT_IN_DATA_HASH}
    teacher = kept["method"].get("teacher")
    if isinstance(teacher, dict):  # its network is filled in while the run is built
        kept["method"] = {**kept["method"], "teacher": {**teacher, "network": None}}
    kept["trainer"] = {key: cfg["trainer"].get(key) for key in IN_TRAINER_HASH}
    kept["augmentation"] = {key: value for key, value in cfg["augmentation"].items() if key != "where"}
    kept["data"]["augmentation"] = kept["augmentation"]
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolved plain containers: what goes into run folders and checkpoints."""
    out = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(out, dict)
    out.pop("hydra", None)
    return {str(key): value for key, value in out.items()}
