"""Teachers from files: a finished run of ours, or a network of timm; frozen, and part of the student's checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.func import functional_call

from ssl_zoo import build, runs
from ssl_zoo.backbones.base import backbone_of
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.losses.precision import autocast_off, promoted
from ssl_zoo.teacher_record import read_record

KEYS = ("checkpoint", "timm", "pretrained", "network", "kept", "backbone")


class FrozenTeacher(nn.Module):
    """Features and logits of a network that is never trained: no gradient, always in eval mode.

    Args:
        encoder: ``[B, C, H, W]`` to ``[B, F]``.
        classifier: ``[B, F]`` to ``[B, classes]``; None for a teacher that knows no classes.
        out_features: F.
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module | None, out_features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.out_features = out_features
        self.requires_grad_(False)
        self.train(False)

    @property
    def classes(self) -> int | None:
        """Width of the logits; None without a classifier."""
        linear = [] if self.classifier is None else [m for m in self.classifier.modules() if isinstance(m, nn.Linear)]
        return linear[-1].out_features if linear else None

    def train(self, mode: bool = True) -> FrozenTeacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.encoder(view)
        return features, None if self.classifier is None else _logits(self.classifier, features)


def _logits(classifier: nn.Module, features: Tensor) -> Tensor:
    """Never in half precision, in which two classes can have the same score and the first would be chosen."""
    weights = {name: promoted(p) for name, p in classifier.named_parameters()}
    with autocast_off():
        return functional_call(classifier, weights, (promoted(features),))


class _TimmEncoder(nn.Module):
    """A timm network up to its classifier."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, view: Tensor) -> Tensor:
        return self.net.forward_head(self.net.forward_features(view), pre_logits=True)


def load_teacher(teacher: Mapping[str, Any], data_info: DataInfo) -> FrozenTeacher:
    """Build the teacher that ``method.teacher`` names and read its weights.

    Args:
        teacher: ``{checkpoint: FILE}`` for a run of ours, or ``{timm: NAME, pretrained: bool}``. ``network`` is what
            :func:`ssl_zoo.teacher_record.embed` keeps of a checkpoint: with it the file may be gone, because its
            weights are in the student's; with ``kept`` it is not even looked for. ``backbone``: the name of the network
            that a run must have trained, where a recipe is made for it.
        data_info: Of the student's data.

    Raises:
        ConfigError: If none or both are given, the file or the network does not exist, or its classes are others.
    """
    unknown = [key for key in teacher if key not in KEYS]
    if unknown:
        raise ConfigError(f"method.teacher has no {unknown[0]!r}; {nearest(unknown[0], KEYS)}")
    checkpoint, name = teacher.get("checkpoint"), teacher.get("timm")
    if (checkpoint is None) == (name is None):
        got = "neither is given" if checkpoint is None else f"got both, {checkpoint} and {name}"
        raise ConfigError("method.teacher wants one of method.teacher.checkpoint=RUN_FOLDER_OR_FILE and "
                          f"method.teacher.timm=NAME; {got}")
    # The student's weights must not depend on how many numbers its teacher drew.
    with torch.random.fork_rng(devices=[]):
        if name is not None:
            return _of_timm(str(name), bool(teacher.get("pretrained")), data_info)
        found = _of_run(str(checkpoint), teacher.get("network"), bool(teacher.get("kept")), data_info)
    _check_name(found, str(checkpoint), teacher.get("backbone"))
    return found


def _check_name(found: FrozenTeacher, checkpoint: str, wanted: str | None) -> None:
    own = backbone_of(found.encoder).name
    if wanted not in (None, own):
        raise ConfigError(f"method.teacher.checkpoint={checkpoint}: its network is {own}, and the recipe is made for "
                          f"{wanted}; take a teacher with backbone={wanted}, or set method.teacher.backbone=null")


def _of_timm(name: str, pretrained: bool, data_info: DataInfo) -> FrozenTeacher:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"method.teacher.timm={name}: timm has no such network; {nearest(name, timm.list_models())}")
    options: dict[str, Any] = {"in_chans": data_info.channels}
    if data_info.classes is not None:
        options["num_classes"] = data_info.classes
    try:
        net: Any = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"method.teacher.timm={name}: cannot be built ({str(error).splitlines()[0]})") from None
    return FrozenTeacher(_TimmEncoder(net), net.get_classifier(), net.head_hidden_size)


def _of_run(checkpoint: str, network: str | None, kept: bool, data_info: DataInfo) -> FrozenTeacher:
    where = f"method.teacher.checkpoint={checkpoint}"
    state = None
    if network is None or not kept and Path(checkpoint).exists():
        found = runs.read_checkpoint(checkpoint, "method.teacher.checkpoint")
        network, state = network or read_record(found, where), found["state_dict"]
    record = json.loads(network)
    method = build.build_from_file(OmegaConf.create(record["config"]), record["data_info"], state, where)
    if state is not None:
        build.load_state(method, state, checkpoint)
    classifier = getattr(method, "classifier", None)
    classes = record["data_info"]["classes"]
    if classifier is not None and data_info.classes not in (None, classes):  # None: it teaches unlabelled samples
        raise ConfigError(f"method.teacher.checkpoint={checkpoint}: it knows {classes} classes and the data has "
                          f"{data_info.classes}; take a teacher of the same data")
    return FrozenTeacher(method.encoder, classifier, method.backbone.out_features)
