"""What is called otherwise since a file was written: configurations of earlier versions keep working."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Modules: what begins with the one name begins with the other now.
MODULES = {
    f"ssl_zoo.{package}.{name}.": f"ssl_zoo.{package}.image.{name}."
    for package, names in {
        "backbones": ("amdim_encoder", "batch_free", "cpc_resnet", "same_padding", "selective", "tiny", "widths"),
        "data": ("arrays", "folder", "packed", "stream", "svhn", "synthetic"),
    }.items()
    for name in names
}
# Classes that were divided: with this key beside its name a node means the other now.
DIVIDED = {("ssl_zoo.data.datamodule.DataModule", "image_size"): "ssl_zoo.data.image.datamodule.ImageData"}

# What was said of the data of every run before there were facts; all were images.
FACTS_OF_BEFORE = ("image_size", "channels")


def moved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """One node of a configuration with the ``_target_`` of today."""
    old = node.get("_target_")
    if not isinstance(old, str):
        return node
    new = next((to for (name, beside), to in DIVIDED.items() if old == name and beside in node), None)
    new = new or next((to + old.removeprefix(name) for name, to in MODULES.items() if old.startswith(name)), None)
    return node if new is None else {**node, "_target_": new}


def current_info(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a checkpoint says of its data, with its facts as this version writes them."""
    if "facts" in info or not {*FACTS_OF_BEFORE} <= {*info}:
        return info
    rest = {key: value for key, value in info.items() if key not in FACTS_OF_BEFORE}
    return {**rest, "facts": {key: info[key] for key in FACTS_OF_BEFORE}}


def current_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint whose data's state is kept by the name of today's class, as Lightning asks for it; in place."""
    data = checkpoint.get("ssl_zoo", {}).get("config", {}).get("data", {})
    old, new = (str(node.get("_target_", "")).rpartition(".")[2] for node in (data, moved(data)))
    if old != new and old in checkpoint:
        checkpoint[new] = checkpoint.pop(old)
    return checkpoint


def current(node: Any) -> Any:
    """A configuration as this version would have written it."""
    if isinstance(node, Mapping):
        return {key: current(value) for key, value in moved(node).items()}
    return [current(value) for value in node] if isinstance(node, list) else node


def put_together(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a run ``old``, as ``new`` says it: YADIM was AMDIM with other settings before the framework."""
    was, now = old.get("method") or {}, new.get("method") or {}
    classes = str(was.get("_target_")), str(now.get("_target_"))
    if classes != ("ssl_zoo.methods.amdim.AMDIM", "ssl_zoo.methods.contrastive.Contrastive"):
        return old
    if was.get("comparisons") != [[1, 1]] or len(was["layers"]) != 1 or was.get("classifiers"):
        return old
    of_maps = {"_target_": "ssl_zoo.modules.framework.extraction.Maps", "_partial_": True}
    products = {"_target_": "ssl_zoo.modules.similarity.Similarity", "_partial_": True, "unit": False, "trained": False}
    contrast = {"_target_": "ssl_zoo.modules.framework.loss.Contrast", "both": True, "own_view": False,
                "stop_gradient": False, "add": False}  # fmt: skip
    method = {
        **{key: was[key] for key in ("backbone", "optimizer") if key in was},
        "_target_": now["_target_"],
        "extraction": {**of_maps, **{key: was[key] for key in ("block", "layers", "grids")}},
        "similarity": {**products, **{key: was[key] for key in ("clip", "penalty") if key in was}},
        "loss": {**contrast, "of": {"_target_": "ssl_zoo.losses.scores.nce", "_partial_": True}},
    }
    return {**old, "method": method}


def blocks_of_before(module: Any, state: dict[str, Any], *_: Any) -> None:
    """In place: where YADIM's blocks are in the state of the framework (a hook before that is loaded)."""
    for name in [name for name in state if name.startswith("blocks.")]:
        state[f"extraction.{name}"] = state.pop(name)
