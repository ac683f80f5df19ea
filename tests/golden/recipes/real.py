"""Networks with real numbers, where first values or results are asked for; transformers are cut to a few blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import build
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from tests.golden.recipes.composed import Composed

BLOCKS = 2  # of a transformer: first values of all blocks follow one rule
SAMPLES = 20_000  # of a data set in whose memory no bank is large

_backbones: WeakKeyDictionary[Composed, Backbone] = WeakKeyDictionary()
_methods: WeakKeyDictionary[Composed, Method] = WeakKeyDictionary()


def real_backbone(composed: Composed) -> Backbone:
    if composed not in _backbones:
        node = _small(composed).backbone
        torch.manual_seed(composed.cfg.seed)
        _backbones[composed] = instantiate(node, _convert_="all")
    return _backbones[composed]


def real_method(composed: Composed) -> Method:
    """The whole method; its state has fewer rows where the method does not mind."""
    if composed not in _methods:
        cfg, info = _small(composed), composed.info
        fewer = replace(info, samples=min(info.samples, SAMPLES))
        try:
            _methods[composed] = build.build_method(cfg, fewer)
        except (ConfigError, ValueError):
            _methods[composed] = build.build_method(cfg, info)
    return _methods[composed]


def _small(composed: Composed) -> DictConfig:
    """The configuration without weights to start from, and with the first blocks of a transformer only."""
    cfg: Any = OmegaConf.create(composed.plain)
    deep = len(getattr(composed.method.backbone.net, "blocks", ())) > BLOCKS and composed.method.backbone.has_tokens
    for node in (cfg.backbone, cfg.method.backbone):
        if "weights" in node:
            node.weights = None
        if deep:
            node.depth = BLOCKS
    return cfg
