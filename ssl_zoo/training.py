"""The training command: choose the run folder, build, train here or in one process per device, report."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_zoo import trainer, worker
from ssl_zoo.callbacks.checkpoint import Terminated
from ssl_zoo.errors import ConfigError


class Outcome(NamedTuple):
    """What a job ends with: its exit status, and the number that a sweeper asked for (None: there is none)."""

    status: int
    objective: float | None = None


def train(cfg: DictConfig) -> Outcome:
    """Build, then train here or in one process per device."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg))  # type: ignore[assignment]
    made = not any(path.name != ".hydra" for path in run_dir.iterdir())
    try:
        trainer.check_devices(cfg)
        run_dir, finished = _choose_run(cfg, run_dir, made)
        if finished:
            return Outcome(0)
        built = worker.build_run(cfg)
    except ConfigError:
        if made:
            _remove_made(run_dir)
        raise
    worker.write_config(cfg, run_dir)
    worker.write_record(cfg, run_dir)
    if trainer.devices_of(cfg) * cfg.trainer.num_nodes > 1:
        del built
        return Outcome(worker.launch(cfg, run_dir))
    try:
        numbers: dict[str, Any] = worker.run(cfg, run_dir, built)
    except Terminated as error:
        print(error, file=sys.stderr)
        return Outcome(worker.TERMINATED)
    return Outcome(0, numbers.get("probe/top1", numbers.get("knn/top1")))


def _choose_run(cfg: DictConfig, run_dir: Path, made: bool) -> tuple[Path, bool]:
    """Fill in ``run_dir`` and ``resume``; the folder to work in, and whether its run is finished already."""
    with open_dict(cfg):
        cfg.run_dir = str(run_dir)
        if cfg.resume == "auto":
            found = worker.find_run(cfg, run_dir)
            cfg.resume = None
            if found is not None:
                if found != run_dir and made:
                    _remove_made(run_dir)
                run_dir = found
                cfg.run_dir = str(run_dir)
                if worker.is_finished(run_dir):
                    print(f"{run_dir} is finished already: nothing to do (resume=null starts a new run)")
                    return run_dir, True
                last = run_dir / "checkpoints" / "last.ckpt"
                cfg.resume = str(last) if last.is_file() else None
        elif cfg.resume is not None and Path(cfg.resume).is_dir():
            cfg.resume = str(Path(cfg.resume) / "checkpoints" / "last.ckpt")
    return run_dir, False


def _remove_made(run_dir: Path) -> None:
    """Remove a run folder that this start made and that holds nothing yet, and parents that are empty then."""
    shutil.rmtree(run_dir, ignore_errors=True)
    for parent in list(run_dir.parents)[:3]:
        if parent == Path.cwd() or not parent.is_dir() or any(parent.iterdir()):
            return
        parent.rmdir()
