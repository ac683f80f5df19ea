"""``python evaluate.py checkpoint=PATH protocol=NAME [data=NAME ...]``: judge the encoder of a checkpoint."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from ssl_zoo import __version__, build, distributed, files, runs
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.evaluation.baselines import loaders
from ssl_zoo.evaluation.cache import cached, fingerprint, sha256
from ssl_zoo.evaluation.layers import LastLayers
from ssl_zoo.features import Features, extract
from ssl_zoo.layers import read_at
from ssl_zoo.ranges import Size
from ssl_zoo.signatures import describe, fits, locate, problems
from ssl_zoo.trainer import NO_MPS
from ssl_zoo.words import setting

# How a run chose its training samples; an evaluation has all of them.
UNTRAINED = {"drop_unlabelled": False, "pseudo_labels": None}
USUAL = {"layers": 1, "dtype": "float32", "layer": None}  # of features
OUTPUT = "output"  # of `layer`: the method's own features, whatever layer its run judges
# Settings of a source by which samples became what the encoder was trained on: the scale of pixels, of columns.
KEPT = ("range", "encoding")
DTYPES = {"float32": torch.float32, "float16": torch.float16}
# What a protocol's file says beside the arguments of its function: drawn_by names one that draws the result file's
# numbers beside it, called with the picture's path and what the file holds.
ABOUT = ("name", "reads", "validation", "drawn_by")
# Beginnings of the names of measures: those in percent, and others.
PERCENT = ("top", "train_top", "acc", "nmi", "ari", "map", "cmc", "f1", "precision", "recall", "eer", "auc", "tpr")
PLAIN = ("mse", "mae")


@dataclass(frozen=True)
class Judged:
    """What a protocol gets that reads the network itself instead of its features (``reads: network``)."""

    source: runs.Checkpoint
    name: str  # of the result file and of what is written beside it
    method: Any  # with the checkpoint's weights, in eval mode, on `device`
    target: DictConfig  # the run's configuration with the data to evaluate on
    datamodule: Any
    sha256: str  # of the checkpoint
    device: torch.device


def data_config(
    trained: DictConfig, wanted: Any, image_size: int | None = None, resolved: Mapping[str, Any] | None = None
) -> DictConfig:
    """The configuration of a run with the data to evaluate on.

    A ``data`` group chosen on the command line takes the place of the checkpoint's; its interpolations (augmentation,
    scale, seed) read the checkpoint's configuration, so that images are prepared as the encoder knows them. Single
    keys (``data.root=...``, ``data.source.label=...``) change the checkpoint's data. ``batch_size`` only sizes the
    batches of the evaluation.

    Args:
        trained: Configuration in the checkpoint.
        wanted: The ``data`` node of ``conf/evaluate.yaml``, not resolved; keys that are null were not given.
        image_size: Side of the evaluation view; by default the checkpoint's, for other data too.
        resolved: What ``auto`` became for the checkpoint's data; for other data it is decided anew.

    Raises:
        ConfigError: If the checkpoint's data are at an address, which only the user may have opened.
    """
    base = OmegaConf.to_container(trained, resolve=True)
    assert isinstance(base, dict)
    given = OmegaConf.to_container(wanted, resolve=False) if OmegaConf.is_config(wanted) else (wanted or {})
    assert isinstance(given, dict)
    old = base["data"]
    if "_target_" in given:
        new = {**given, **{key: old[key] for key in locate(old["_target_"]).of_the_network}}
        source = given.get("source") or {}
        kept = {key: old["source"][key] for key in KEPT if source.get(key) == "auto" and key in old["source"]}
        if kept:
            new["source"] = {**source, **kept}
    else:
        new = {**old, **{key: value for key, value in given.items() if value is not None}}
        if given.get("root") is None and "://" in str(old.get("root")):
            raise ConfigError(
                f"the checkpoint was trained on data at {old['root']}, and nothing is fetched because a file says so: "
                f"read it with {setting('data.root', old['root'])}"
            )
        moved = {} if given.get("root") is None else _typed(resolved or {})
        new["source"] = {**old["source"], **moved, **(given.get("source") or {})}
    if image_size is not None:
        if "image_size" not in new:
            raise ConfigError(f"image_size={image_size}: the samples of this data are no images; leave it out")
        new["image_size"] = image_size
    whole = {key: value for key, value in UNTRAINED.items() if key in new}
    cfg = OmegaConf.create({**base, "data": {**new, **whole, "accumulate": 1}})
    cfg.data = OmegaConf.create(OmegaConf.to_container(cfg.data, resolve=True))
    return cfg


def _typed(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The words that stood in the source's settings before they were resolved."""
    prefix = "data.source."
    typed = {path.removeprefix(prefix): item["typed"] for path, item in resolved.items() if path.startswith(prefix)}
    return {key: value for key, value in typed.items() if key not in KEPT}


def data_name(data: DictConfig) -> str:
    """What to call a data set in tables and file names: its source, its name there, and its folder."""
    source = str(OmegaConf.select(data, "source._target_", default="data")).rpartition(".")[2]
    name = str(OmegaConf.select(data, "source.name", default=""))
    roots = data.root if OmegaConf.is_list(data.get("root")) else [data.get("root") or ""]
    folders = [Path(str(root)).name.lower() for root in roots]
    return "-".join(dict.fromkeys(part for part in (source.lower(), name.lower(), *folders) if part))


def source_words(wanted: Any) -> str:
    """Settings of the checkpoint's source that were typed, as a part of a file name."""
    data = OmegaConf.to_container(wanted, resolve=False) if OmegaConf.is_config(wanted) else (wanted or {})
    typed = {} if not isinstance(data, dict) or "_target_" in data else data.get("source") or {}
    return "".join("-" + re.sub(r"[^\w.]+", "_", str(value)) for value in typed.values())


def pick_device(device: str) -> torch.device:
    """``auto`` is the CUDA device if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        reason = NO_MPS if found.type == "mps" else "of another kind"
        if found.type in ("cpu", "cuda"):
            return torch.empty(0, device=found).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
    raise ConfigError(f"device={device} cannot be used ({reason}); wanted auto, cpu, cuda or cuda:N")


def run(cfg: DictConfig) -> dict[str, Any] | None:
    """Extract features with the checkpoint's encoder, apply the protocol, print a table, write JSON.

    Of several ranks each makes its share of the features; rank 0 does the rest alone, when it has left the others.

    Args:
        cfg: ``conf/evaluate.yaml``.

    Returns:
        What the JSON file holds, None on the other ranks; the file is ``evaluation/<protocol>.json`` in the run
        folder, with the data's name behind the protocol's for other data than the run's, and settings of
        its source that were typed.

    Raises:
        ConfigError: Checkpoint missing, not ours or of another architecture; data without labels or validation set.
    """
    began = time.perf_counter()
    source, device = check(cfg), pick_device(cfg.device)
    with distributed.main_first():
        method, trained, checkpoint = build.load_method(source.file, cfg.get("trust"))
        target = data_config(trained, cfg.get("data"), cfg.image_size, checkpoint["ssl_zoo"].get("resolved"))
        datamodule = build.build_data_from_file(target)
    digest = sha256(source.file)
    method.to(device)
    other = "" if data_name(trained.data) == data_name(target.data) else f"-{data_name(target.data)}"
    name = f"{cfg.protocol.name}{other}{source_words(cfg.get('data'))}"
    if cfg.protocol.get("reads") == "network":
        for key, usual in USUAL.items():
            if cfg[key] != usual:
                raise ConfigError(f"{key}={cfg[key]} is for protocols on features, and {cfg.protocol.name} is none")
        numbers = _protocol(cfg.protocol)(Judged(source, name, method, target, datamodule, digest, device))
        main = distributed.leave()
    else:
        train, test = _features(cfg, method, target, datamodule, digest, source, device)
        main = distributed.leave()
        numbers = {**_judged(cfg, train, test, datamodule), "layer": layer_of(cfg, target)} if main else {}
    if not main:
        return None
    result = {
        "protocol": cfg.protocol.name,
        **numbers,
        "method": _short(trained.method),
        "backbone": _short(trained.backbone),
        "data": data_name(target.data),
        "checkpoint": str(source.file),
        "sha256": digest,
        "epoch": checkpoint.get("epoch"),
        "step": checkpoint.get("global_step"),
        "config_hash": checkpoint["ssl_zoo"]["hash"],
        "settings": _plain(cfg.protocol),
        "seconds": round(time.perf_counter() - began, 2),
        "versions": {"ssl_zoo": __version__, "torch": torch.__version__},
    }
    file = source.folder / "evaluation" / f"{numbers.get('name', name)}.json"
    file = file if cfg.output is None else Path(os.path.expanduser(str(cfg.output)))
    _write(file, result)
    if cfg.protocol.get("drawn_by"):
        locate(cfg.protocol.drawn_by)(file.with_suffix(".png"), result)
    _show(result, file)
    return result


def check(cfg: DictConfig) -> runs.Checkpoint:
    """The checkpoint of an evaluation.

    Raises:
        ConfigError: For wrong settings, all at once; if there is no such checkpoint.
    """
    found = list(problems(_settings(cfg.protocol), "protocol"))
    for path in ("layers", "image_size", "data.batch_size"):
        value = OmegaConf.select(cfg, path)
        if value is not None and not fits(value, Size):
            found.append(f"{path}={value!r}: wanted {describe(Size)}")
    if cfg.layer is not None and cfg.layer != OUTPUT and not fits(cfg.layer, int):
        found.append(f"layer={cfg.layer!r}: wanted a whole number (1 the first, -1 the last), {OUTPUT}, or null")
    if cfg.layer is not None and cfg.layers != 1:
        found.append(f"layer={cfg.layer} and layers={cfg.layers}: both say what is judged; leave one of them out")
    if found:
        raise ConfigError("\n".join(found))
    require("dtype", cfg.dtype, DTYPES, ConfigError)
    return runs.find(cfg.checkpoint)


def _features(
    cfg: DictConfig,
    method: Any,
    target: DictConfig,
    datamodule: Any,
    digest: str,
    source: runs.Checkpoint,
    device: torch.device,
) -> list[Features]:
    """Of the training and of the validation set; no rows of a validation set that there is not."""
    folder = source.folder / "evaluation" / "features" if cfg.cache else None
    layer = layer_of(cfg, target)
    read = read_at(method, layer) if cfg.layers == 1 else LastLayers(method.encoder, cfg.layers)
    more = {key: str(cfg[key]) for key, usual in USUAL.items() if cfg[key] != usual} | {"layer": str(layer)}
    found: list[Features] = []
    validated = cfg.protocol.get("validation") != "optional"
    for split, loader in zip(("train", "val"), loaders(datamodule, validated=validated), strict=True):
        if loader is None:
            found.append(Features(*(rows[:0] for rows in found[0])))
            continue
        facts = _facts(digest, split, target, device) | more
        key = fingerprint(loader, **facts) if folder and distributed.is_main() else ""
        key = distributed.broadcast_object(key)  # of its first samples
        found.append(cached(folder, key, partial(extract, read, loader, device, dtype=DTYPES[cfg.dtype])))
    return found


def layer_of(cfg: DictConfig, trained: DictConfig) -> int | None:
    """The layer of the encoder that is judged; None: the method's features, or ``layers`` of them."""
    if cfg.layers != 1 or cfg.layer == OUTPUT:
        return None
    return trained.get("layer") if cfg.layer is None else cfg.layer


def _judged(cfg: DictConfig, train: Features, test: Features, datamodule: Any) -> dict[str, Any]:
    """The numbers of a protocol on frozen features, how many samples they are of, and how wide these are."""
    if cfg.protocol.get("validation") != "optional" and not bool((test.labels >= 0).any()):
        raise ConfigError(
            "evaluation needs labels and no validation sample has one; data.val_fraction=0.1 holds labelled training "
            "samples out instead"
        )
    try:
        numbers = _protocol(cfg.protocol)(train, test, datamodule.info.classes)
    except ValueError as error:  # what cannot be measured on these samples
        raise ConfigError(f"protocol={cfg.protocol.name}: {error}") from error
    samples = {"train": int((train.labels >= 0).sum()), "test": int((test.labels >= 0).sum())}
    return {**numbers, "samples": samples, "features": train.features.shape[1], "layers": cfg.layers}


def _facts(digest: str, split: str, target: DictConfig, device: torch.device) -> dict[str, str]:
    # Where the data lies and how fast it is read is no part of what it is; the first batch stands for the rest.
    ignored = ("workers", "download", "layout", "batch_size", "cache")
    data = {str(key): value for key, value in target.data.items() if key not in ignored}
    return {"checkpoint": digest, "split": split, "data": str(data), "device": device.type, "version": __version__}


def _protocol(node: DictConfig) -> Any:
    return instantiate(_settings(node))


def _settings(node: DictConfig) -> dict[str, Any]:
    return {key: value for key, value in _plain(node).items() if key not in ABOUT}


def _plain(node: DictConfig) -> dict[str, Any]:
    out = OmegaConf.to_container(node, resolve=True)
    assert isinstance(out, dict)
    return {str(key): value for key, value in out.items()}


def _short(node: DictConfig) -> str:
    name = str(node.get("_target_", "")).rpartition(".")[2]
    return str(node.name) if node.get("name") else name


def _write(file: Path, result: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            f"cannot write the result to {file} ({error.strerror}); choose another: output=FILE"
        ) from None


def _show(result: dict[str, Any], file: Path) -> None:
    table = Table(title=f"{result['method']}, {result['backbone']}: {result['protocol']} on {result['data']}")
    for column in ("measure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, value in result.items():
        if isinstance(value, dict) and name in ("top1_by_k", "held_out"):
            table.add_row(name, "  ".join(f"{key}: {number:.2f}" for key, number in value.items()))
        elif isinstance(value, float) and name.startswith(PERCENT):
            table.add_row(f"{name} (%)", f"{value:.2f}")
        elif isinstance(value, float) and name.startswith(PLAIN):
            table.add_row(name, f"{value:.4f}")
        elif name == "l2_chosen":
            table.add_row("l2 chosen", value)
        elif name == "balancedness":
            table.add_row("balancedness (1: all classes alike)", f"{value:.3f}")
        elif name in ("l2", "k", "clusters", "queries"):
            table.add_row(name, f"{value:g}")
    table.add_row("samples", ", ".join(f"{count} {split}" for split, count in result["samples"].items()))
    table.add_row("checkpoint", f"{result['checkpoint']} (epoch {result['epoch']}, step {result['step']})")
    table.add_row("written to", str(file))
    Console().print(table)
