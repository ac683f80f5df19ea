"""Evaluation by one process or by several: all make their share of the features, and rank 0 judges and writes alone.

``python -m ssl_zoo.evaluation.ranks FILE`` is one rank of several, FILE its configuration. As in training, no rank sees
Hydra.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import distributed, launch, machine
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import check, run
from ssl_zoo.ranges import Size
from ssl_zoo.signatures import describe, fits

GRACE = 3.0  # seconds in which rank 0 says what all ranks find wrong, and whoever started them ends the others


def evaluate(cfg: DictConfig) -> int:
    """``evaluate.py``: in this process, or in ``devices`` processes that are started on this node and waited for.

    Args:
        cfg: ``conf/evaluate.yaml``.

    Returns:
        The exit status.

    Raises:
        ConfigError: As :func:`ssl_zoo.evaluation.run.run`, and for a number of devices that there are not.
    """
    check(cfg)
    devices = _devices(cfg)
    if devices == 1:
        run(cfg)
        return 0
    with tempfile.TemporaryDirectory(prefix="ssl-zoo-") as folder:
        file = Path(folder, "evaluate.yaml")
        OmegaConf.save(cfg, file)
        command = [sys.executable, "-m", "ssl_zoo.evaluation.ranks", str(file)]
        return launch.start(command, devices, nodes=1, on_cpu=not _on_gpu(cfg))


def as_rank(cfg: DictConfig) -> int:
    """One rank of those that the environment describes (:func:`ssl_zoo.distributed.enter`); its exit status."""
    distributed.enter(_on_gpu(cfg))
    main = distributed.is_main()
    try:
        run(cfg)
    except ConfigError as error:
        if not main:
            time.sleep(GRACE)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _on_gpu(cfg: DictConfig) -> bool:
    return str(cfg.device).startswith("cuda") or (cfg.device == "auto" and torch.cuda.is_available())


def _devices(cfg: DictConfig) -> int:
    wanted, gpus = cfg.devices, torch.cuda.device_count() if _on_gpu(cfg) else None
    if wanted == -1:
        return gpus or 1
    if not fits(wanted, Size):
        raise ConfigError(f"devices={wanted!r}: wanted {describe(Size)}, or -1 for all GPUs")
    if wanted > 1 and ":" in str(cfg.device):
        raise ConfigError(f"devices={wanted}: device={cfg.device} is one; wanted device=auto, cpu or cuda with it")
    if gpus is not None and wanted > gpus:
        raise ConfigError(f"devices={wanted}: this machine has {gpus} GPU(s)")
    return int(wanted)


def main(argv: list[str] | None = None) -> int:
    """One rank."""
    (file,) = argv if argv is not None else sys.argv[1:]
    machine.die_with_parent()
    cfg = OmegaConf.load(file)
    assert isinstance(cfg, DictConfig)
    return as_rank(cfg)


if __name__ == "__main__":
    sys.exit(main())
