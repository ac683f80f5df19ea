"""A process that trains: reads the resolved configuration of a run folder, builds, fits, reports.

``python -m ssl_zoo.worker RUN_DIR`` is one rank of a run with several processes; a run with one process calls
:func:`run` directly. No worker ever sees Hydra, so that a sweep is never started twice.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils._pytree import tree_map_only

from ssl_zoo import build, distributed
from ssl_zoo.callbacks.checkpoint import RunCheckpoint, Terminated
from ssl_zoo.config import config_hash, plain
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.report import finish, start
from ssl_zoo.trainer import devices_of, make_trainer, precision_of

CONFIG = "config.yaml"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
TERMINATED = 143  # what a shell reports for a process that SIGTERM ended


def _quiet() -> None:
    """Silence Lightning's remarks that our own screen says better or that are wrong here."""
    import logging

    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*The number of training batches.*",
        ".*`training_step` returned.*",
        ".*defined a `validation_step`.*",
        ".*Checkpoint directory.*",
        ".*in eval mode at the start of training.*",  # frozen teachers are meant to be
        ".*isinstance.treespec.*",
        ".*LeafSpec.*",
        ".*`broadcast_buffers` is deprecated.*",  # ranks are built alike: there is nothing to broadcast
    ):
        warnings.filterwarnings("ignore", message=text)


def keep_memory() -> None:
    """Let glibc keep freed activations for the next step instead of returning them to the system.

    Measured on two cores (resnet8, width 32, batch 128 at 32 pixels, channels-last): 259 views/s without, 306 with.
    Tensors above 32 MB, the largest threshold for maps of their own that glibc takes, need that there are no such maps
    (width 16, 512 rows at once): 44,000 page faults and 309 ms a step with them, 170 and 246 ms without.
    """
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 512 << 20)


def build_run(cfg: DictConfig) -> tuple[Method, Any]:
    """Data and method of a configuration; a wrong one ends here, before anything is trained."""
    data = build.build_data(cfg)
    method = build.build_method(cfg, data.info)
    try:
        method.recipe.bind(method.named_parameters(), data.batch_size, fused=False)  # only to see that it can be
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if cfg.resume is not None:
        build.load_state(method, build.read_checkpoint(cfg.resume)["state_dict"], str(cfg.resume))
    return method, data


def prepare(method: Method, device: torch.device, compile: bool | str) -> None:
    """Memory layout and compilation, both in place: names and tensors stay, so that checkpoints and teachers fit.

    Args:
        compile: ``graphs``: the launches of the compiled networks are replayed too, on a GPU.
    """
    if device.type != "cpu" or not any(map(_overflows, method.modules())):
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        # For the sizes of the training batches alone: with sizes left open inductor took over ten minutes for MoCo's
        # grouped batch norm. What evaluates networks switches the compiler off, for its batches have other sizes.
        graphs = compile == "graphs" and device.type == "cuda"
        _compile(method.backbone, graphs)
        for teacher in (module for module in method.modules() if isinstance(module, EMA)):
            _compile(teacher.net, graphs)


def _overflows(layer: nn.Module) -> bool:
    """Whether torch corrupts the heap in this layer's backward pass on a CPU if its layout is channels-last.

    Seen with torch 2.6, 2.11 and 2.14 on CPUs with AVX2 alone and one thread (``ONEDNN_MAX_CPU_ISA=AVX2``): 1 x 1
    convolutions with a stride write past a buffer if they have fewer channels than a vector has numbers, eight.
    """
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.in_channels // layer.groups < 8


def _compile(net: nn.Module, graphs: bool) -> None:
    if not graphs:
        net.compile(dynamic=False)
        return
    net.compile(dynamic=False, mode="reduce-overhead")
    replay: Any = net._compiled_call_impl

    def replay_and_copy(*args: Any, **kwargs: Any) -> Any:
        """The next replay writes into the graph's own outputs, which a method, a queue or a probe may still hold."""
        return tree_map_only(torch.Tensor, torch.Tensor.clone, replay(*args, **kwargs))

    net._compiled_call_impl = replay_and_copy


def run(cfg: DictConfig, run_dir: Path, built: tuple[Method, Any] | None = None) -> dict[str, Any]:
    """Train in this process (or as one rank of several) and return the numbers of the table at the end.

    Args:
        cfg: Checked configuration with ``run_dir`` filled in; ``resume`` is null or the path of a checkpoint.
        run_dir: Where everything is written.
        built: What :func:`build_run` gave, if the caller has built already.
    """
    _quiet()
    keep_memory()
    method, data = built or build_run(cfg)
    loggers = [build.instantiate(node, _convert_="all") for node in (cfg.logger or {}).values() if node]
    callbacks = [build.instantiate(node, _convert_="all") for node in (cfg.callbacks or {}).values() if node]
    record = build.run_record(cfg, config_hash(plain(cfg)), data.info)
    callbacks.append(RunCheckpoint(run_dir, record, every=cfg.trainer.checkpoint_every))
    options = {**plain(cfg)["trainer"], "devices": devices_of(cfg), "precision": precision_of(cfg)}
    trainer = make_trainer(callbacks, loggers, **options)
    prepare(method, trainer.strategy.root_device, cfg.trainer.compile)
    method.bind(data.batch_size, fused=trainer.precision != "16-mixed")
    if cfg.resume is not None:
        _cut_metrics(cfg.resume, loggers)
    if trainer.is_global_zero:
        start.show(cfg, run_dir, method, data, cfg.resume, trainer.world_size)
    began = time.perf_counter()
    try:
        trainer.fit(method, datamodule=data, ckpt_path=cfg.resume)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ConfigError(
                f"the disk of {run_dir} is full; an earlier last.ckpt is still whole: free some space and "
                "continue with resume=auto"
            ) from None
        raise
    main = trainer.is_global_zero
    distributed.leave()  # what follows is rank 0's alone, and reading features is collective
    if not main:
        return {}
    return finish.finish(cfg, run_dir, method, data, time.perf_counter() - began)


def _cut_metrics(checkpoint: str, loggers: list[Any]) -> None:
    """Drop the rows that were written after the checkpoint to continue from; the run writes them again."""
    step = int(build.read_checkpoint(checkpoint)["global_step"])
    for logger in loggers:
        if hasattr(logger, "truncate"):
            logger.truncate(step)


def launch(cfg: DictConfig, run_dir: Path) -> int:
    """Start one process per device of this node and wait; the first that fails ends the others."""
    devices = devices_of(cfg)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "TORCHELASTIC"))}
    environment.setdefault("MASTER_ADDR", "127.0.0.1")
    environment.setdefault("MASTER_PORT", str(_free_port()))
    environment.setdefault("NODE_RANK", "0")
    environment["WORLD_SIZE"] = str(devices * cfg.trainer.num_nodes)
    if "OMP_NUM_THREADS" not in environment and cfg.trainer.accelerator == "cpu":
        environment["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // devices, 1))
    command = [sys.executable, "-m", "ssl_zoo.worker", str(run_dir)]
    ranks = [
        subprocess.Popen(command, env={**environment, "LOCAL_RANK": str(i), "RANK": str(i)}) for i in range(devices)
    ]
    if cfg.trainer.accelerator == "cpu":
        _pin(ranks)
    return _wait(ranks)


def _pin(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Give every process cores of its own, with its data workers.

    Left to the system, two processes on two cores move between them: 358 ms a step, 289 pinned (width 16, 128 rows
    each).
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = len(cores) // len(ranks)
    for i, process in enumerate(ranks):
        if share and process.poll() is None:
            os.sched_setaffinity(process.pid, cores[i * share : (i + 1) * share])


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Exit code of the run: 0 when all ranks end well, else the first failure's; signals reach every rank.

    A process that a signal ended counts as 128 plus the signal's number, as in a shell: never as a success.
    """
    import signal

    def stop(*_: Any) -> None:
        for rank in ranks:
            rank.terminate()

    held = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            codes = [rank.poll() for rank in ranks]
            failed = [code for code in codes if code]
            if failed:
                time.sleep(5.0 if failed[0] == TERMINATED else 1.0)  # let the others say what they have to say
                return failed[0] if failed[0] > 0 else 128 - failed[0]
            if all(code == 0 for code in codes):
                return 0
            time.sleep(0.1)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
        signal.signal(signal.SIGTERM, held)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(cfg: DictConfig, run_dir: Path) -> None:
    """The resolved configuration of a run, from which ranks, evaluation and resuming read."""
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(plain(cfg)), run_dir / CONFIG)


def main(argv: list[str] | None = None) -> int:
    """One rank."""
    (folder,) = argv if argv is not None else sys.argv[1:]
    run_dir = Path(folder)
    cfg = OmegaConf.load(run_dir / CONFIG)
    assert isinstance(cfg, DictConfig)
    try:
        run(cfg, run_dir)
    except Terminated as error:
        print(error, file=sys.stderr) if distributed.is_main() else None
        return TERMINATED
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def is_finished(run_dir: Path) -> bool:
    """Whether the run in a folder has reached its end (it has written its summary)."""
    return (run_dir / finish.SUMMARY).is_file()


def find_run(cfg: DictConfig, run_dir: Path) -> Path | None:
    """The newest run with the same configuration hash, in this folder or beside it (``resume=auto``)."""
    wanted = config_hash(plain(cfg))
    siblings = [path for path in run_dir.parent.glob("*") if path.is_dir() and path != run_dir]
    siblings.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in [run_dir, *siblings]:
        record = folder / "run.json"
        if record.is_file() and json.loads(record.read_text())["hash"] == wanted:
            return folder
    return None


def write_record(cfg: DictConfig, run_dir: Path) -> None:
    (run_dir / "run.json").write_text(json.dumps({"hash": config_hash(plain(cfg))}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
