"""Evaluation by one process or by several: all make their share of the features, and rank 0 judges and writes alone.

``python -m ssl_zoo.evaluation.ranks FILE`` is one of those that :func:`evaluate` starts, FILE its configuration. As in
training, of ranks that somebody else has started the first alone sees Hydra, and tells the others what was typed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import launch, machine, ranks, rendezvous
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import check, run
from ssl_zoo.ranges import Size
from ssl_zoo.rendezvous import HANGS, PATIENCE, Meeting
from ssl_zoo.signatures import describe, fits
from ssl_zoo.typed_paths import seen_from


def evaluate(cfg: DictConfig, meeting: Meeting | None = None) -> int:
    """``evaluate.py``: in this process, in ``devices`` processes that are started here, or in those that there are.

    Args:
        cfg: ``conf/evaluate.yaml``.
        meeting: Of the processes that a launcher has started, of which this is rank 0; None: there are none.

    Returns:
        The exit status.

    Raises:
        ConfigError: As :func:`ssl_zoo.evaluation.run.run`, and for a number of devices that there are not.
    """
    check(cfg)
    if meeting is not None:
        _fit(cfg, meeting)
        meeting.tell(OmegaConf.to_yaml(cfg))
        return as_rank(cfg, meeting)
    devices = _devices(cfg)
    if devices == 1:
        run(cfg)
        return 0
    with tempfile.TemporaryDirectory(prefix="ssl-zoo-") as folder:
        file = Path(folder, "evaluate.yaml")
        OmegaConf.save(cfg, file)
        command = [sys.executable, "-m", "ssl_zoo.evaluation.ranks", str(file)]
        return launch.start_here(command, devices, "gpu" if _on_gpu(cfg) else "cpu")


def follow(meeting: Meeting) -> int:
    """Evaluate what rank 0 tells, or end as it does; the exit status."""
    word = meeting.hear()
    return word if isinstance(word, int) else as_rank(OmegaConf.create(word), meeting)


def as_rank(cfg: DictConfig, meeting: Meeting) -> int:
    """One of several ranks; its exit status. What all of them find wrong one says."""
    device = torch.device("cuda", meeting.ranks.local_rank) if _on_gpu(cfg) else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with meeting.group(device, HANGS):
            run(cfg)
    except ConfigError as error:
        if meeting.says_first(str(error)):
            print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _fit(cfg: DictConfig, meeting: Meeting) -> None:
    """Take the launcher's number of processes, and paths that hold wherever the others were started."""
    world = meeting.ranks.world
    if cfg.devices not in (1, -1, world):
        raise ConfigError(
            f"devices={cfg.devices}: {meeting.ranks.by} has started {world} processes; leave devices out, or start as "
            "many"
        )
    seen_from(Path.cwd(), cfg)


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
    cfg, found = OmegaConf.load(file), ranks.of_variables(os.environ)
    assert isinstance(cfg, DictConfig) and found is not None
    try:
        return as_rank(cfg, rendezvous.meet(found, PATIENCE))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
