"""Start from existing weights: ``backbone.weights=timm:NAME|torchvision:NAME|FILE``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ssl_zoo import archives
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.errors import ConfigError, nearest

log = logging.getLogger(__name__)

NEEDED = 0.99  # share of matching tensors: one stem may differ, an architecture may not
COUNTER = "num_batches_tracked"  # old files have none, and it says nothing about the architecture


def start_from(backbone: Backbone, weights: str) -> None:
    """Load ``timm:NAME``, ``torchvision:NAME`` (``NAME`` or ``NAME.TAG``) or a file into ``backbone.net``.

    Raises:
        ConfigError: If the source is unknown, cannot be read, or belongs to another network.
    """
    kind, _, name = weights.partition(":")
    readers = {"timm": _timm, "torchvision": _torchvision}
    state = readers[kind](name) if kind in readers else _file(weights)
    load_weights(backbone.net, backbone.fit_weights(state), weights, backbone.classifier)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str, ignore: Sequence[str] = ()) -> None:
    """Copy tensors that match by name and shape; what does not match keeps its initial value and is logged.

    Args:
        module: The network, under its library's names.
        state: Tensors to load.
        source: What to call them in messages.
        ignore: Prefixes of ``state`` that do not count (a classifier).

    Raises:
        ConfigError: If fewer than 99 % of the tensors of both sides together match; the message names what differs.
    """
    own = {name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)}
    prefixes = tuple(f"{prefix}." for prefix in ignore)
    given = {n: v for n, v in state.items() if not n.endswith(COUNTER) and not n.startswith(prefixes)}
    same = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    total = len(own.keys() | given.keys())
    difference = _difference(own, given)
    text = f"weights={source}: {len(same)} of {total} tensors match{difference}"
    if len(same) < NEEDED * total:
        hint = "; a checkpoint of a run is first written out by `ssl-zoo export`" if source.endswith(".ckpt") else ""
        raise ConfigError(f"{text}\nat least {NEEDED:.0%} must: choose the backbone (and stem) of these weights{hint}")
    module.load_state_dict(same, strict=False)
    log.log(logging.WARNING if difference else logging.INFO, text)


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


def _file(path: str) -> dict[str, Tensor]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"weights={path}: there is no such file; wanted null, timm:NAME, torchvision:NAME, "
            "or a .safetensors or .pt file (`ssl-zoo export` writes one)"
        )
    try:
        if file.suffix == ".safetensors":
            return archives.read_tensors(file)
        state = archives.read(file, mmap=False)
    except archives.Unreadable as error:
        raise ConfigError(f"weights={path} could not be read ({error})") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"weights={path} holds no tensors by name; wanted a state dict")
    return state
