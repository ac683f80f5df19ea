"""A rank: builds what a configuration describes and trains it; starts no other process and reports nothing.

``python -m ssl_zoo.worker RUN_DIR`` is one rank of a run with several processes; a run with one process calls
:func:`run` directly. No rank ever sees Hydra, so that a sweep is never started twice.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils._pytree import tree_map_only

from ssl_zoo import build, distributed, machine, ranks, rendezvous, runs, sharding, small_batches, tracking
from ssl_zoo.callbacks.checkpoint import RunCheckpoint, Terminated
from ssl_zoo.config import plain
from ssl_zoo.durations import seconds
from ssl_zoo.errors import ConfigError
from ssl_zoo.layers import read_at
from ssl_zoo.lock import Lock
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.memory_layout import channels_last
from ssl_zoo.modules.recompute import recompute_blocks
from ssl_zoo.rendezvous import Meeting
from ssl_zoo.trainer import devices_of, make_trainer, precision_of
from ssl_zoo.typed_paths import seen_from

if TYPE_CHECKING:
    from ssl_zoo.methods.base import Method


STOPPING = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # that a training answers by saving its state


class Trained(NamedTuple):
    """What a training leaves in its process."""

    method: Method
    data: Any
    loggers: list[Any]
    device: torch.device  # on which it trained; Lightning has moved the method away from it
    seconds: float


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
        ".*`srun` command is available.*",  # a training needs no srun, inside of a job neither
        ".*`broadcast_buffers` is deprecated.*",  # ranks are built alike: there is nothing to broadcast
    ):
        warnings.filterwarnings("ignore", message=text)


def build_run(cfg: DictConfig, data: Any = None) -> tuple[Method, Any]:
    """Method and data of a configuration; a wrong one ends here, before anything is trained.

    Args:
        cfg: With ``resume`` filled in: null, or the checkpoint whose weights are loaded.
        data: The data module, if it is built already.
    """
    data = data or build.build_data(cfg)
    build.check_kind(cfg, data)
    method = build.build_method(cfg, data.info)
    small_batches.check(cfg, method, data.info.batch_size)
    read_at(method, cfg.get("layer"))  # only to see that there is this layer
    try:
        method.recipe.bind(method.named_parameters(), data.batch_size, fused=False)  # only to see that it can be
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if cfg.resume is not None:
        build.load_state(method, runs.read_checkpoint(cfg.resume, "resume")["state_dict"], str(cfg.resume))
    return method, data


def prepare(method: Method, device: torch.device, compile: bool | str, recompute: bool = False) -> None:
    """Memory layout, recomputation and compilation, in place: names and tensors stay: checkpoints and teachers fit.

    Args:
        compile: ``graphs``: the launches of the compiled networks are replayed too, on a GPU.
        recompute: ``trainer.activation_checkpointing``.

    Raises:
        ConfigError: If there are no blocks whose activations could be computed again.
    """
    channels_last(method, device)
    if recompute:
        recompute_blocks(method.backbone)
    if compile:
        # For the sizes of the training batches alone: with sizes left open inductor took over ten minutes for MoCo's
        # grouped batch norm. What evaluates networks switches the compiler off, for its batches have other sizes.
        graphs = compile == "graphs" and device.type == "cuda"
        _compile(method.backbone, graphs)
        for teacher in (module for module in method.modules() if isinstance(module, EMA)):
            _compile(teacher.net, graphs)


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


def run(
    cfg: DictConfig,
    run_dir: Path,
    built: tuple[Method, Any] | None = None,
    record: runs.Record | None = None,
    meeting: Meeting | None = None,
) -> Trained:
    """Train in this process, or as one rank of several.

    Args:
        cfg: Checked configuration with ``run_dir`` filled in; ``resume`` is null or the path of a checkpoint.
        run_dir: Where everything is written.
        built: What :func:`build_run` gave, if the caller has built already.
        record: Of the run folder, for the checkpoints; None: a new one.
        meeting: Of the ranks; None: this process trains alone.

    Raises:
        Terminated: If the run was asked to stop; its state is saved.
        ConfigError: If the disk is full, or data or losses are no good; or if another rank has gone.
    """
    _quiet()
    machine.keep_memory()
    method, data = built or build_run(cfg)
    record = record or runs.Record.begin(plain(cfg), data=data.fingerprint(), decisions=data.decisions)
    loggers = tracking.build(cfg.logger, plain(cfg), record.id)
    try:
        return _fit(cfg, run_dir, method, data, record, loggers, meeting)
    except BaseException:  # also a signal's: what tracks the run is told, and closed for the next run of this process
        tracking.close(loggers, "failed")
        raise


def _fit(
    cfg: DictConfig,
    run_dir: Path,
    method: Method,
    data: Any,
    record: runs.Record,
    loggers: list[Any],
    meeting: Meeting | None,
) -> Trained:
    callbacks = [build.instantiate(node, _convert_="all") for node in (cfg.callbacks or {}).values() if node]
    callbacks.append(_checkpoints(cfg, run_dir, build.run_record(cfg, record, data.info)))
    options = {**plain(cfg)["trainer"], "devices": devices_of(cfg), "precision": precision_of(cfg)}
    options |= {} if method.trains else {"max_epochs": 0}
    trainer = make_trainer(callbacks, loggers, run_dir, meeting, **options)
    recompute = bool(cfg.trainer.get("activation_checkpointing"))
    prepare(method, trainer.strategy.root_device, cfg.trainer.compile, recompute)
    data.run_dir = run_dir
    if cfg.resume is not None:
        _cut_metrics(cfg.resume, loggers)
    began, patience = time.perf_counter(), float(cfg.trainer.get("collective_timeout", rendezvous.HANGS))
    held = {number: signal.getsignal(number) for number in machine.signals(*STOPPING)}
    try:
        with nullcontext() if meeting is None else meeting.group(trainer.strategy.root_device, patience):
            trainer.fit(method, datamodule=data, ckpt_path=cfg.resume, weights_only=True)
            method = _for_reports(cfg, method, data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ConfigError(
                f"the disk of {run_dir} is full; an earlier last.ckpt is still whole: free some space and "
                "continue with resume=auto"
            ) from None
        raise
    finally:
        for number, handler in held.items():  # those of the training would only note a signal
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    return Trained(method, data, loggers, trainer.strategy.root_device, time.perf_counter() - began)


def _for_reports(cfg: DictConfig, method: Method, data: Any) -> Method:
    """A method that a single process can run: parameters that were split are put together, on the main one."""
    if not sharding.is_sharded(method):
        return method
    state = sharding.whole_state(method)
    if not distributed.is_main():
        return method
    whole = build.build_method(cfg, data.info).to(method.dtype)
    whole.load_state_dict(state)
    whole.metrics = method.metrics
    return whole


def _checkpoints(cfg: DictConfig, run_dir: Path, record: dict[str, Any]) -> RunCheckpoint:
    given = cfg.trainer
    limit = None if given.get("max_time") is None else seconds(str(given.max_time))
    return RunCheckpoint(
        run_dir,
        record,
        every=given.checkpoint_every,
        minutes=given.get("checkpoint_minutes"),
        keep_every=given.get("keep_every"),
        max_time=limit,
    )


def _cut_metrics(checkpoint: str, loggers: list[Any]) -> None:
    """Drop the rows that were written after the checkpoint to continue from; the run writes them again."""
    step = int(runs.read_checkpoint(checkpoint, "resume")["global_step"])
    for logger in loggers:
        if hasattr(logger, "truncate"):
            logger.truncate(step)


@contextmanager
def recorded(record: runs.Record, folder: Path) -> Iterator[None]:
    """Write into the record how the training inside ends; what it raises goes on."""
    try:
        yield
    except BaseException as error:
        record.state = "interrupted" if isinstance(error, (Terminated, KeyboardInterrupt)) else "failed"
        first = str(error).splitlines()[0] if str(error) else ""
        record.reason = error.reason if isinstance(error, Terminated) else f"{type(error).__name__}: {first}"
        try:
            record.write(folder)
        except OSError as full:  # the error that is on its way says more
            print(f"{folder / runs.RECORD} cannot be written ({full.strerror})", file=sys.stderr)
        raise


def finished(record: runs.Record, folder: Path, trained: Trained) -> None:
    """Write into the record that all steps are taken: from here on nothing can lose the run."""
    record.state, record.reason = "finished", None
    record.metrics = dict(trained.method.metrics)
    record.seconds = round(record.seconds + trained.seconds, 1)
    record.write(folder)


def lead(
    cfg: DictConfig, folder: Path, record: runs.Record, built: tuple[Method, Any] | None, meeting: Meeting | None
) -> Trained:
    """Train as the process that keeps the record of the run folder, whose lock the caller holds."""
    with recorded(record, folder):
        trained = run(cfg, folder, built, record, meeting)
    finished(record, folder, trained)
    return trained


def follow(meeting: Meeting) -> int:
    """Do what rank 0 decides: train with it, or end as it does.

    Returns:
        The exit status.
    """
    word = meeting.hear()
    if isinstance(word, int):
        return word
    cfg = OmegaConf.create(word["config"])
    run(cfg, Path(word["folder"]), record=runs.Record(**word["record"]), meeting=meeting)
    return 0


def word(cfg: DictConfig, folder: Path, record: runs.Record) -> dict[str, Any]:
    """What rank 0 says of a run, in plain containers; its paths hold wherever the others were started."""
    cfg = deepcopy(cfg)
    seen_from(Path.cwd(), cfg)
    return {"config": OmegaConf.to_yaml(cfg), "folder": str(folder.absolute()), "record": asdict(record)}


def main(argv: list[str] | None = None) -> int:
    """One rank of those that :mod:`ssl_zoo.launch` starts."""
    (folder,) = argv if argv is not None else sys.argv[1:]
    machine.die_with_parent()
    run_dir = Path(folder)
    cfg = OmegaConf.load(run_dir / runs.CONFIG)
    found = ranks.of_variables(os.environ)
    assert isinstance(cfg, DictConfig) and found is not None
    lock = Lock(run_dir)
    try:
        meeting = rendezvous.meet(found, float(cfg.trainer.get("rendezvous_timeout", rendezvous.PATIENCE)))
        if not meeting.is_main:
            return follow(meeting)
        lock.acquire()
        record = runs.read_record(run_dir)
        assert record is not None
        meeting.tell(word(cfg, run_dir, record))
        trained = lead(cfg, run_dir, record, None, meeting)
        tracking.close(trained.loggers, "success")  # the command reports, and tells them the final numbers
    except Terminated as error:
        print(error, file=sys.stderr) if found.rank == 0 else None
        return error.status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if found.rank == 0:
            lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
