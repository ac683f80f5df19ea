"""Everything wrong with a configuration, before torch is imported and before a folder is made; its hash."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ssl_zoo import renamed
from ssl_zoo.composing import load as load
from ssl_zoo.durations import seconds
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.sides import WORDS, is_side
from ssl_zoo.signatures import fits

# What decides the numbers of a run: two configurations that agree here continue one another. Length, devices, loggers,
# callbacks and paths are not among it.
IN_HASH = ("seed", "method", "backbone", "data", "augmentation", "optimizer", "batch_norm", "pretrained")
IN_TRAINER_HASH = ("accumulate", "clip", "precision")
NOT_IN_DATA_HASH = ("root", "table", "workers", "download", "layout", "cache", "max_cache_size", "changed")
# Settings of data.source that came later, at the values that say what runs did before: nothing that tells runs apart.
AS_BEFORE = {"exif": False, "range": "auto"}
# What is read by name before anything is built: must be settings, settings or null, a list.
SETTINGS = (
    "backbone", "batch_norm", "trainer", "optimizer", "method", "recipe", "data", "augmentation", "augmentation.eval",
)  # fmt: skip
OPTIONAL = ("callbacks", "logger", "data.layout", "trainer.clip")
FREE = {"augmentation.normalize": "measured"}  # words that stand for settings
SHARDED = ("auto", "32-true", "32", "bf16-mixed", "bf16", "64-true", "64")  # precisions of trainer.strategy=fsdp
LISTS = ("augmentation.views", "augmentation.eval.ops")


def quick_check(cfg: DictConfig, resolved: dict[str, Any] | None = None) -> None:
    """Everything that needs neither torch nor a look into files: folders, divisibility, ranges.

    Args:
        resolved: The same in plain containers, where it is known already that every reference resolves.

    Raises:
        ConfigError: With one line per problem, each naming the key, what it got, what it wants and a fix.
    """
    problems = [] if resolved is not None else [*_resolve_problems(cfg)]
    problems = problems or [*_structure_problems(plain(cfg) if resolved is None else resolved)]
    if not problems:
        checks = (
            _batch_problems, _length_problems, _compile_problems, _memory_problems, _data_problems, _resume_problems,
            _callback_problems, _objective_problems, _few_labels_problems,
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
            found[at] = f"{at} is not set; give {at}=VALUE" if missing else f"{at}: {_unresolved(str(error))}"
    yield from found.values()


def _unresolved(error: str) -> str:
    """The first line of OmegaConf's error; where it is a fact that these data do not have, what to choose instead."""
    line = error.splitlines()[0]
    asked = re.fullmatch(r"Interpolation key 'data\.(\w+)' not found", line)
    if asked is None:
        return line
    return (
        f"it asks for data.{asked[1]}, and samples of this data have none; choose an augmentation and a backbone that "
        "are made for them: augmentation=NAME backbone=NAME"
    )


def _structure_problems(values: dict[str, Any]) -> Iterator[str]:
    several = "_target_" not in _keys(values.get("logger"))  # logger._target_=...: the group is one logger
    groups = ("callbacks", "logger") if several else ("callbacks",)
    entries = [f"{group}.{key}" for group in groups for key in _keys(values.get(group))]
    wanted: dict[str, tuple[tuple[type, ...], str]] = {path: ((dict,), "settings (key: value)") for path in SETTINGS}
    wanted |= {path: ((dict, type(None)), "settings (key: value), or null") for path in (*OPTIONAL, *entries)}
    wanted |= {path: ((dict, type(None)), f"settings (key: value), {word} or null") for path, word in FREE.items()}
    wanted |= {path: ((list,), "a list") for path in LISTS}
    for path, (kinds, words) in wanted.items():
        *above, last = path.split(".")
        parent: Any = values
        for part in above:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            value = parent.get(last)
            if not isinstance(value, kinds) and not (path in FREE and value == FREE[path]):
                yield f"{path}={value!r}: wanted {words}, got {type(value).__name__}"


def _keys(node: Any) -> list[str]:
    return list(map(str, node)) if isinstance(node, dict) else []


def _positive(cfg: DictConfig, path: str) -> Iterator[str]:
    value = OmegaConf.select(cfg, path)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        yield f"{path}={value!r}: wanted a whole number of at least 1"


def _devices_problems(cfg: DictConfig) -> Iterator[str]:
    if cfg.trainer.devices != -1:
        yield from (f"{problem}, or -1 for all of them" for problem in _positive(cfg, "trainer.devices"))


def _batch_problems(cfg: DictConfig) -> Iterator[str]:
    numbers = ["data.batch_size", "trainer.accumulate", "trainer.num_nodes"]
    numbers += ["data.channels"] if "channels" in cfg.data else []
    wrong = [*_devices_problems(cfg), *(problem for path in numbers for problem in _positive(cfg, path))]
    if "image_size" in cfg.data and not is_side(cfg.data.image_size):
        wrong.append(f"data.image_size={cfg.data.image_size!r}: wanted {WORDS}")
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
    else:
        yield from _crossing_groups(cfg, batch // parts)
        yield from _dealt_problems(cfg, devices * cfg.trainer.num_nodes)


def _crossing_groups(cfg: DictConfig, share: int) -> Iterator[str]:
    """The sentence about a group that holds a process's ``share`` in part and another process's too."""
    group, samples = cfg.batch_norm.group, cfg.data.batch_size // cfg.trainer.accumulate
    if any(_group_problems(cfg)) or group is None or not share % group or not group % share:
        return
    crossing = f"batch_norm.group={group} (samples that share statistics) crosses processes of {share} samples each"
    if cfg.resume is not None:  # the group is the run's; how many processes go on with it is not
        counts = [n for n in range(1, samples // share) if not samples % n and not (samples // n) % group]
        yield f"{crossing}, and a run keeps its groups; go on with {' or '.join(map(str, counts))} processes"
        return
    fits = [n for n in range(2, samples + 1) if not samples % n and (not share % n or not n % share)]
    yield (
        f"{crossing}: wanted a number that divides {share}, or a multiple of it that divides {samples}; try "
        f"batch_norm.group={min(fits, key=lambda n: abs(n - group))}, or null for all of them"
    )


def _dealt_problems(cfg: DictConfig, processes: int) -> Iterator[str]:
    """The sentence about samples that are dealt to groups in turn, and cannot be."""
    dealt = cfg.batch_norm.get("interleaved")
    if dealt not in (None, True, False):
        yield f"batch_norm.interleaved={dealt!r}: wanted true, false or null"
    elif dealt and cfg.batch_norm.group is None:
        yield "batch_norm.interleaved=true deals samples to groups, and batch_norm.group is null; set that too"
    elif dealt and processes > 1:
        yield (
            f"batch_norm.interleaved=true deals the samples of one process to groups, and there are {processes}; set "
            "trainer.devices=1, or batch_norm.interleaved=null for consecutive samples"
        )


def _group_problems(cfg: DictConfig) -> Iterator[str]:
    group, samples = cfg.batch_norm.group, cfg.data.batch_size // cfg.trainer.accumulate
    if group is None:
        return
    if not isinstance(group, int) or isinstance(group, bool):
        yield f"batch_norm.group={group!r}: wanted a whole number of samples, or null for all of them"
    elif samples == 1:
        yield (
            f"batch_norm.group={group} (samples that share statistics) wants a multiple of {group} samples in a "
            "micro-batch over all devices, and there is 1; "
            f"try data.batch_size={max(group, 2) * cfg.trainer.accumulate}"
        )
    elif group < 2 or samples % group:
        yield (
            f"batch_norm.group={group} (samples that share statistics) does not divide the {samples} samples of a "
            f"micro-batch over all devices; try batch_norm.group={_divisor(samples, group)}, or null for all of them"
        )


def _length_problems(cfg: DictConfig) -> Iterator[str]:
    if cfg.trainer.max_epochs == cfg.trainer.max_steps == -1:
        yield "trainer.max_epochs=-1 and trainer.max_steps=-1: the run has no end; set one of them"
    limit = cfg.trainer.get("max_time")
    if limit is not None and not seconds(str(limit)):
        yield f"trainer.max_time={limit}: wanted a time above 0 as HH:MM:SS, DD:HH:MM:SS or D-HH:MM:SS, or null"


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


def _memory_problems(cfg: DictConfig) -> Iterator[str]:
    if cfg.trainer.get("activation_checkpointing") and cfg.trainer.compile:
        yield (
            "trainer.activation_checkpointing=true with trainer.compile: the compiler itself decides what it keeps for "
            "the gradient; set one of the two to false"
        )
    yield from sharding_problems(cfg, str(cfg.trainer.precision))


def sharding_problems(cfg: DictConfig, precision: str) -> Iterator[str]:
    """What parameters that are split over processes do not go with.

    Args:
        precision: ``trainer.precision``, or what ``auto`` has become.
    """
    if cfg.trainer.get("strategy") != "fsdp":
        return
    if precision not in SHARDED:
        reason = (
            "a gradient scaler looks at whole gradients" if precision in ("16-mixed", "16")
            else "the numbers of a block travel together, and batch norms keep float32 where the others do not"
        )  # fmt: skip
        yield (
            f"trainer.strategy=fsdp with trainer.precision={precision}: {reason}; set trainer.precision=bf16-mixed "
            "(float32 weights, half the memory for activations), or trainer=ddp"
        )
    if cfg.trainer.compile:
        yield (
            f"trainer.strategy=fsdp with trainer.compile={cfg.trainer.compile}: a network is compiled as a whole, and "
            "its blocks are put together one by one; set trainer.compile=false, or trainer=ddp"
        )
    if (chunks := cfg.method.get("grad_cache") or 1) != 1:
        yield (
            f"trainer.strategy=fsdp with method.grad_cache={chunks}: a chunk is embedded again while blocks are taken "
            "apart; set method.grad_cache=1 and trainer.activation_checkpointing=true, or trainer=ddp"
        )


def _divisor(rows: int, near: int) -> int:
    """The divisor of ``rows``, at least 2, that lies nearest to ``near``."""
    return min((n for n in range(2, rows + 1) if rows % n == 0), key=lambda n: abs(n - near), default=rows)


def _data_problems(cfg: DictConfig) -> Iterator[str]:
    layout, root = cfg.data.get("layout"), cfg.data.get("root")
    if not layout or root is None:
        if layout and layout.get("paths") is not None:
            yield f"data.root is not set; {layout.hint}"
        return
    if cfg.data.get("download"):
        return
    for one in root if OmegaConf.is_list(root) else [root]:
        yield from _root_problems(one, layout)


def _root_problems(root: Any, layout: DictConfig) -> Iterator[str]:
    path = Path(os.path.expanduser(str(root)))
    kind = "file" if layout.get("file") else "folder"
    if path.is_file() and path.suffix.lower() in (layout.get("tables") or ()):
        return
    if not (path.is_file() if layout.get("file") else path.is_dir()):
        yield f"data.root={root}: there is no such {kind} (looked at {path.absolute()}); {layout.hint}"
    elif layout.get("paths") and not any((path / wanted).exists() for wanted in layout.paths):
        wanted = " or ".join(f"{name}" for name in layout.paths)
        yield f"data.root={root}: found no {wanted} in {path.absolute()}; {layout.hint}"


def _objective_problems(cfg: DictConfig) -> Iterator[str]:
    if not isinstance(cfg.objective, (str, type(None))):
        yield f"objective={cfg.objective}: wanted null, or the name of a number of summary.json, such as knn/top1"


def _few_labels_problems(cfg: DictConfig) -> Iterator[str]:
    wanted = OmegaConf.to_container(cfg.few_labels) if OmegaConf.is_list(cfg.few_labels) else cfg.few_labels
    if wanted not in (None, "auto") and not (wanted and fits(wanted, list[Size])):
        yield f"few_labels={wanted}: wanted numbers of labels a class, such as [1,5,10], or auto, or null for none"


def _callback_problems(cfg: DictConfig) -> Iterator[str]:
    for name, node in (cfg.callbacks or {}).items():
        if node and "_target_" not in node:
            yield (
                f"callbacks.{name} has settings and no _target_: nothing chose that callback; choose it too "
                f"(callbacks=[…,{name}]), or leave its settings out"
            )


def _resume_problems(cfg: DictConfig) -> Iterator[str]:
    resume = cfg.get("resume")
    if cfg.resume_schedule not in ("same", "new"):
        yield f"resume_schedule={cfg.resume_schedule}: wanted same or new"
    elif cfg.resume_schedule == "new" and resume in (None, "auto"):
        yield f"resume_schedule=new goes with resume=PATH, a checkpoint to go on from, and resume is {resume or 'null'}"
    for name in ("overwrite", "requeue"):
        if not isinstance(cfg.get(name, False), bool):
            yield f"{name}={cfg[name]!r}: wanted true or false"
    if resume not in (None, "auto") and not Path(str(resume)).exists():
        yield f"resume={resume}: there is no such file; wanted null, auto, or the path of a checkpoint (…/last.ckpt)"


def config_hash(cfg: dict[str, Any]) -> str:
    """Twelve hex digits of what determines the numbers of a run, as it was typed: ``auto`` stays a word."""
    return hashlib.sha256(json.dumps(identity(cfg), sort_keys=True, default=str).encode()).hexdigest()[:12]


def identity(cfg: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that determines the numbers of a run, without settings that are null.

    A setting that did not exist when a run was started, and is null now, says nothing: the run is still the same.
    """
    kept = {key: cfg[key] for key in IN_HASH if key in cfg}
    kept["trainer"] = {key: cfg["trainer"].get(key) for key in IN_TRAINER_HASH}
    kept["augmentation"] = _without(cfg["augmentation"], ("where",))
    kept["data"] = _without(cfg["data"], (*NOT_IN_DATA_HASH, "augmentation"))
    if isinstance(kept["data"].get("source"), dict):
        source = _without(kept["data"]["source"], NOT_IN_DATA_HASH)
        kept["data"]["source"] = {k: v for k, v in source.items() if k not in AS_BEFORE or v != AS_BEFORE[k]}
    if isinstance(cfg["method"].get("teacher"), dict):  # its network is filled in while the run is built
        kept["method"] = {**cfg["method"], "teacher": _without(cfg["method"]["teacher"], ("network",))}
    if isinstance(kept.get("pretrained"), dict):  # the checkpoint's digest says which it was, wherever it lies
        kept["pretrained"] = _without(kept["pretrained"], ("checkpoint",))
    return _set_values(kept)


def _without(node: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in names}


def _set_values(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _set_values(value) for key, value in node.items() if value is not None}
    return [_set_values(value) for value in node] if isinstance(node, list) else node


def differences(old: dict[str, Any], new: dict[str, Any], common: bool = False) -> list[str]:
    """``path: old value, now new value`` for every setting in which two identities differ.

    Args:
        common: Leave out settings that only one of them has, unless it is known what runs without them did.
    """
    one, other = dict(_leaves(renamed.put_together(old, new))), dict(_leaves(new))
    known = {f"data.source.{name}" for name in AS_BEFORE}
    paths = [path for path in {**one, **other} if not common or path in known or (path in one and path in other)]
    unset = "not set"
    changed = [(path, one.get(path, unset), other.get(path, unset)) for path in paths]
    return [f"{path}: {before!r}, now {now!r}" for path, before, now in changed if before != now]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        yield path, node
        return
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolved plain containers: what goes into run folders and checkpoints."""
    out = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(out, dict)
    out.pop("hydra", None)
    return {str(key): value for key, value in out.items()}
