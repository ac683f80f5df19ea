"""Start from existing weights: ``backbone.weights=timm:NAME|torchvision:NAME|RUN|FILE|FILE#PREFIX``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo import archives
from ssl_zoo.backbones import foreign
from ssl_zoo.backbones.base import Backbone, backbone_of
from ssl_zoo.errors import ConfigError, nearest

_openers: list[Callable[[str], Any]] = []  # of runs, :func:`open_runs_with`

log = logging.getLogger(__name__)

NEEDED = 0.99  # share of matching tensors: one stem may differ, an architecture may not
COUNTER = "num_batches_tracked"  # old files have none, and it says nothing about the architecture


def start_from(backbone: Backbone, weights: str) -> None:
    """Load ``timm:NAME``, ``torchvision:NAME`` (``NAME`` or ``NAME.TAG``), a run or a file into ``backbone.net``.

    A file may hold more than the network (MoCo's, DINO's, BYOL's checkpoints): the part whose names are the network's
    is taken, ``FILE#PREFIX`` takes another. Of a run of ours it is the encoder that is judged. What was taken and what
    was left is a line in ``backbone.told``.

    Raises:
        ConfigError: If the source is unknown, cannot be read, or belongs to another network.
    """
    kind, _, name = weights.partition(":")
    readers = {"timm": _timm, "torchvision": _torchvision}
    if kind in readers:
        state, said = backbone.own_names(readers[kind](name)), ""
    else:
        state, said = _file(weights, backbone)
    text = load_weights(backbone.net, backbone.fit_weights(state), weights, backbone.classifier)
    matching, *differing = (line.strip() for line in text.splitlines())
    backbone.told = ("; ".join([matching + said, *differing, *adapted(state, backbone)]),)


def adapted(state: Mapping[str, Tensor], backbone: Backbone) -> list[str]:
    """What is told of a first layer that was trained on another number of channels."""
    channels = backbone.origin.in_channels
    for name, own in backbone.net.state_dict().items():
        given = state.get(name)
        if own.ndim == 4 and given is not None and given.ndim == 4 and own.shape[1] == channels != given.shape[1]:
            how = "their sum" if channels == 1 else f"repeated in turn, times {given.shape[1]}/{channels}"
            return [f"{name}: its {given.shape[1]} input channels are made {channels} ({how})"]
    return []


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str, ignore: Sequence[str] = ()) -> str:
    """Copy tensors that match by name and shape; what does not match keeps its initial value and is logged.

    Args:
        module: The network, under its library's names.
        state: Tensors to load.
        source: What to call them in messages.
        ignore: Prefixes of ``state`` that do not count (a classifier), besides parts that the network does not have.

    Returns:
        How many tensors match, and what differs.

    Raises:
        ConfigError: If fewer than 99 % of the tensors of both sides together match; the message names what differs.
    """
    own = {name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)}
    beside = heads(state, own, ignore)
    given = {name: value for name, value in state.items() if not name.endswith(COUNTER) and name not in beside}
    same = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    total = len(own.keys() | given.keys())
    difference = _difference(own, given)
    text = f"weights={source}: {len(same)} of {total} tensors match{difference}"
    if len(same) < NEEDED * total:
        raise ConfigError(f"{text}\nat least {NEEDED:.0%} must: choose the backbone (and stem) of these weights")
    module.load_state_dict(same, strict=False)
    log.log(logging.WARNING if difference else logging.INFO, text)
    return text


def heads(state: Mapping[str, Tensor], own: Mapping[str, Tensor], ignore: Sequence[str] = ()) -> set[str]:
    """Names of classifiers and projectors beside the network: of parts that it does not have, and of its classifier."""
    parts = {name.partition(".")[0] for name in own}
    prefixes = tuple(f"{prefix}." for prefix in ignore)
    return {n for n in state if n.startswith(prefixes) or "." in n and n.partition(".")[0] not in parts}


def _difference(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    def shown(names: list[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    shapes = [
        f"{name} {list(given[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    parts = {
        "missing": [name for name in own if name not in given],
        "unknown": [name for name in given if name not in own],
        "other shape": shapes,
    }
    return "".join(f"\n  {what}: {shown(names)}" for what, names in parts.items() if names)


def _timm(name: str) -> dict[str, Tensor]:
    import timm

    known = set(timm.list_pretrained()) | set(timm.list_models(pretrained=True))
    if name not in known:
        raise ConfigError(f"weights=timm:{name}: timm has no such weights; {nearest(name, known)}")
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise _unreachable(f"timm:{name}", error) from error


def _torchvision(name: str) -> dict[str, Tensor]:
    from torchvision import models

    model, _, tag = name.partition(".")
    known = models.list_models(module=models)
    if model not in known:
        raise ConfigError(f"weights=torchvision:{name}: torchvision has no such network; {nearest(model, known)}")
    tags = {member.name: member for member in models.get_model_weights(model)}
    if tag and tag not in tags:
        raise ConfigError(f"weights=torchvision:{name}: no such weights of {model}; {nearest(tag, tags)}")
    chosen = tags[tag] if tag else models.get_model_weights(model)["DEFAULT"]
    try:
        return dict(chosen.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise _unreachable(f"torchvision:{name}", error) from error


def _unreachable(source: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"weights={source} could not be loaded ({type(error).__name__}: {error}); "
        "without network, copy the weights here as a file and set backbone.weights=FILE"
    )


def _file(weights: str, backbone: Backbone) -> tuple[dict[str, Tensor], str]:
    """Weights by the network's names out of a file or run, and where they lay there, in words."""
    path, _, asked = (weights, "", "") if Path(weights).expanduser().exists() else weights.rpartition("#")
    path = path or weights
    file = Path(path).expanduser()
    if not file.exists():
        raise ConfigError(
            f"weights={weights}: there is no such file; wanted null, timm:NAME, torchvision:NAME, a run, or a "
            ".safetensors or .pt file of weights"
        )
    content: Any = None if file.is_dir() else _content(file, path)
    if content is None or isinstance(content, Mapping) and "ssl_zoo" in content and not asked:
        return _run(path)
    tensors, own = backbone.own_names(dict(foreign.flat(content))), backbone.net.state_dict()
    if not tensors:
        raise ConfigError(f"weights={path} holds no tensors by name; wanted a state dict")
    part = foreign.find(tensors, own, path, asked or None)
    unused = sorted(heads(part.state, own, backbone.classifier))
    told = f", under {part.prefix.strip('.')}" if part.prefix else ""
    others = [each.strip(".") for each in part.others]
    told += f" (also there: {', '.join(others[:3])}; take it with {path}#{others[0]})" if others and not asked else ""
    rest = foreign.left(tensors, part.prefix, unused)
    return part.state, told + (f"; left: {rest}" if rest else "")


def _content(file: Path, path: str) -> Any:
    try:
        if file.suffix == ".safetensors":
            return archives.read_tensors(file)
        return archives.read(file, mmap=False, allowed=(argparse.Namespace,))  # options, which authors save beside them
    except archives.Unreadable as error:
        raise ConfigError(
            f"weights={path} could not be read ({error}); if it holds more than weights, write these into a file of "
            "their own with torch.save"
        ) from None


def open_runs_with(opener: Callable[[str], Any]) -> None:
    """Say what makes the trained method of a run's path: ssl_zoo.build does, which this package cannot import."""
    _openers.append(opener)


def _run(path: str) -> tuple[dict[str, Tensor], str]:
    """The encoder that is judged and exported of a run of ours."""
    if not _openers:
        raise ConfigError(
            f"weights={path} is a run, which only ssl_zoo.build can open; import that, or give the file that ssl-zoo "
            "export writes of it"
        )
    with torch.random.fork_rng(devices=[]):  # what is built next must not depend on how much the run's networks draw
        method = _openers[-1](path)
    return dict(backbone_of(method.encoder).net.state_dict()), f", of the encoder of {type(method).__name__}'s run"
