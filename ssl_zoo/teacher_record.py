"""How to build a teacher, kept in the student's configuration for the day when the teacher's checkpoint is gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_warn

from ssl_zoo import runs, trust
from ssl_zoo.config import plain
from ssl_zoo.errors import ConfigError

PARTS = ("method", "backbone", "optimizer", "batch_norm", "seed", "trainer")  # of a configuration, that a network needs


def read_record(
    checkpoint: Mapping[str, Any], where: str, trusted: Iterable[str] = (), known: Iterable[str] = ()
) -> str:
    """How to build the network of a checkpoint, in JSON: its configuration without weights to start from, and its data.

    Args:
        checkpoint: Of :func:`ssl_zoo.runs.read_checkpoint`.
        where: What to call its file in messages.
        trusted, known: As :func:`ssl_zoo.trust.read` takes them.

    Raises:
        ConfigError: If its configuration names what it may not, or is not whole.
    """
    said = checkpoint["ssl_zoo"]
    config = trust.inert(trust.read(said["config"], where, trusted, known))
    absent = [key for key in PARTS if key not in config]
    if absent:
        raise ConfigError(f"{where}: its configuration has no {absent[0]!r}")
    info = trust.read(said["data_info"], where)
    return json.dumps({"config": {key: config[key] for key in PARTS}, "data_info": info})


def embed(cfg: DictConfig) -> None:
    """Keep in a configuration how to build its teacher, so that checkpoints can be read when the teacher's are gone.

    A run that is resumed takes this from its own checkpoint. What these files name must be named by ``cfg`` too, or be
    the project's, or lie in a package of ``cfg.trust``.
    """
    teacher = cfg.method.get("teacher")
    if not teacher or teacher.get("checkpoint") is None or teacher.get("network") is not None:
        return
    trusted, known = trust.packages(cfg.get("trust")), trust.names_in(plain(cfg))
    network = None
    if cfg.get("resume"):
        own = runs.read_checkpoint(cfg.resume, "resume")
        read = trust.read(own["ssl_zoo"]["config"], f"resume={cfg.resume}", trusted, known)
        network = ((read.get("method") or {}).get("teacher") or {}).get("network")
    if network is None:
        found = runs.read_checkpoint(teacher.checkpoint, "method.teacher.checkpoint")
        network = read_record(found, f"method.teacher.checkpoint={teacher.checkpoint}", trusted, known)
        _compare_pixels(found["ssl_zoo"]["config"], cfg)
    OmegaConf.update(cfg, "method.teacher.network", network, force_add=True)


def _compare_pixels(taught: Mapping[str, Any], cfg: DictConfig) -> None:
    """Teacher and student see the same view: say so when the teacher was trained on pixels of another range."""
    own = OmegaConf.select(cfg, "augmentation.normalize")
    own = OmegaConf.to_container(own) if OmegaConf.is_config(own) else own
    wanted = (taught.get("augmentation") or {}).get("normalize")
    if own != wanted:
        rank_zero_warn(
            f"method.teacher was trained with augmentation.normalize={wanted} and this run has {own}: the teacher will "
            "see pixels that it does not know; give this run the teacher's"
        )
