"""Checkpoints at step boundaries: the last, the best, those to keep, and what a signal or the time asks for."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from ssl_zoo import files, renamed
from ssl_zoo.distributed import highest, highest_soon, is_main, world_size
from ssl_zoo.machine import REPLACES_MAPPED
from ssl_zoo.runs import BEST, CHECKPOINTS, LAST

TERMINATED, INTERRUPTED = 143, 130  # what a shell reports after SIGTERM and after SIGINT


class Wish(IntEnum):
    """What a rank wants at the next step boundary; of several ranks' wishes the highest is done."""

    NOTHING = 0
    SAVE = 1
    TIME = 2  # and the following: save and stop
    SIGUSR1 = 3
    SIGUSR2 = 4
    SIGTERM = 5
    SIGINT = 6


class Terminated(Exception):
    """The run was asked to stop and has saved its state; the message says where.

    Args:
        message: For people.
        reason: Who asked, and after which step: for the record.
        status: Exit status of the process.
    """

    def __init__(self, message: str, reason: str = "", status: int = TERMINATED) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status


class RunCheckpoint(Checkpoint):
    """Write ``checkpoints/last.ckpt`` (atomically) and keep the best epoch by a watched metric.

    Being a Lightning ``Checkpoint`` it runs after all other callbacks, so that the probes' state of the same step is
    in the file. SIGTERM, SIGINT (Ctrl-C), SIGUSR1, SIGUSR2 and the end of ``max_time`` save at the next step boundary
    and end the run; a second Ctrl-C ends it at once. Several processes learn of it one step boundary later, so that no
    step waits for the answers.

    Args:
        run_dir: Run folder.
        record: Plain containers for the checkpoint's ``ssl_zoo`` key.
        every: Optimizer steps between saves; None: at the end of each epoch.
        minutes: Time between saves, besides; None: steps and epochs decide alone.
        keep_every: Every so many epochs the checkpoint is kept as ``epoch-0010.ckpt``; None: only last and best are.
        max_time: Seconds after which the run saves and stops; None: no limit.
        watch: Metric whose highest value decides on ``best.ckpt``, the first of the list that exists.
    """

    def __init__(
        self,
        run_dir: str | Path,
        record: dict[str, Any],
        every: int | None = None,
        minutes: float | None = None,
        keep_every: int | None = None,
        max_time: float | None = None,
        watch: tuple[str, ...] = ("probe/top1", "knn/top1"),
    ) -> None:
        self.folder = Path(run_dir) / CHECKPOINTS
        self.record = record
        self.every = every
        self.minutes = minutes
        self.keep_every = keep_every
        self.max_time = max_time
        self.watch = watch
        self.best: float | None = None
        self._began = self._saved_at = time.monotonic()
        self._signal = Wish.NOTHING
        self._told: Callable[[], int] | None = None  # what the ranks wished after the step before
        self._stopping: tuple[Wish, int] | None = None  # what ends the run, and after which step it was saved for good
        self._owed = False  # whether an epoch has had its last step and not yet its end (evaluations, the best one)
        self._unsaved = False  # whether that was made up for and no checkpoint has it yet

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "owed": self._owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self._owed = state_dict.get("owed", False)  # checkpoints of earlier versions do not say it

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in self.folder.glob("*.part"):
                stale.unlink()
        # Lightning would end the process with 1 after Ctrl-C. Before the first step there is nothing to save.
        signal.signal(signal.SIGINT, self._at_once)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here, because Lightning registers its own handler between fit start and train start; that one would broadcast
        # from inside the handler and end the process without saving.
        for wish in (Wish.SIGUSR1, Wish.SIGUSR2, Wish.SIGTERM, Wish.SIGINT):
            if hasattr(signal, wish.name):
                signal.signal(signal.Signals[wish.name], self._on_signal)
        self._began = self._saved_at = time.monotonic()
        if self._owed:
            self._end_epoch(trainer, pl_module)

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What Lightning leaves out when it goes on from the last step of an epoch: it counts the epoch as ended."""
        progress = trainer.fit_loop.epoch_progress.current
        progress.completed -= 1  # the hooks see the epoch that ends
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_train_epoch_end(trainer, pl_module)
        pl_module.on_train_epoch_end()
        progress.completed += 1
        self._owed, self._unsaved = False, True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._unsaved:
            self._save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not getattr(pl_module, "trains", True):  # no epoch has saved it
            self._save(trainer)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signal = max(self._signal, Wish[signal.Signals(number).name])
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._at_once)

    def _at_once(self, number: int, frame: Any) -> None:
        last = self.folder / LAST
        kept = f"{last} is whole; continue with resume=auto" if last.is_file() else "nothing had been saved"
        raise Terminated(f"stopped by SIGINT at once; {kept}", "SIGINT, at once", INTERRUPTED)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["ssl_zoo"] = self.record

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        ends = 0 < trainer.max_steps <= trainer.global_step
        last = ends or trainer.is_last_batch
        wish = self._agreed(last)
        if not wish and self.every is not None and trainer.global_step % self.every == 0:
            wish = Wish.SAVE
        if wish:
            pl_module.note(outputs, batch_idx)  # type: ignore[operator]  # its row is in the file before its checkpoint
        if wish and not last:
            self._save(trainer)
        elif wish > Wish.SAVE and not ends:
            # The end of the epoch saves too, but its evaluations may take longer than the system waits.
            self._owed = True
            self._save(trainer)
            self._owed = False
        if wish > Wish.SAVE:
            # Raised at the next batch, when this step has been logged; after the last batch of an epoch its evaluation
            # still belongs to the run.
            self._stopping = wish, trainer.global_step
        elif not last:
            self._told = highest_soon(self._wish())

    def _agreed(self, last: bool) -> Wish:
        """What the ranks wished after the step before; in one process, and after the ``last`` of an epoch, after this.

        There all ranks wait for one another anyway, and the next step may be an evaluation away.
        """
        told, self._told = self._told, None
        found = Wish.NOTHING if told is None else Wish(told())
        return max(found, Wish(highest(self._wish()))) if last or world_size() == 1 else found

    def _wish(self) -> Wish:
        """What this rank wants because of a signal or the time; which steps are saved by their number all know."""
        now = time.monotonic()
        if self._signal:
            return self._signal
        if self.max_time is not None and now - self._began >= self.max_time:
            return Wish.TIME
        late = self.minutes is not None and now - self._saved_at >= 60 * self.minutes
        return Wish.SAVE if late else Wish.NOTHING

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._stopping is not None:
            self._end(*self._stopping)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = getattr(pl_module, "metrics", {})
        value = next((metrics[name] for name in self.watch if name in metrics), None)
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        if not self._owed:
            self._save(trainer)
        epochs = trainer.current_epoch + 1
        if better:
            self._keep(BEST)
        if self.keep_every is not None and epochs % self.keep_every == 0:
            self._keep(f"epoch-{epochs:04d}.ckpt")
        if self._stopping is not None and not self._is_last(trainer):
            self._end(*self._stopping)

    def _is_last(self, trainer: pl.Trainer) -> bool:
        """Whether nothing is left to train: a run that was asked to stop in its last step has ended by itself."""
        steps, epochs = trainer.max_steps, trainer.max_epochs or -1
        return (steps > 0 and trainer.global_step >= steps) or (epochs > 0 and trainer.current_epoch + 1 >= epochs)

    def _end(self, wish: Wish, step: int) -> None:
        reason = f"{'trainer.max_time' if wish is Wish.TIME else wish.name} after step {step}"
        status = INTERRUPTED if wish is Wish.SIGINT else TERMINATED
        raise Terminated(
            f"stopped by {reason}; saved {self.folder / LAST}; continue with resume=auto", reason, status
        )

    def _save(self, trainer: pl.Trainer) -> None:
        """Write beside the old file and rename: a run killed while it saves has lost nothing."""
        part = self.folder / f"{LAST}.part"
        try:
            trainer.save_checkpoint(part)
        except OSError:
            part.unlink(missing_ok=True)  # on a full disk it would keep the next start from saving too
            raise
        if is_main():
            files.rename(part, self.folder / LAST)
        self._saved_at = time.monotonic()
        self._unsaved = False

    def _keep(self, name: str) -> None:
        """Give what was just saved a second name; the next save replaces ``last.ckpt`` and leaves this one."""
        if not is_main():
            return
        part = self.folder / f"{name}.part"
        part.unlink(missing_ok=True)
        try:
            os.link(self.folder / LAST, part)
        except OSError:  # a file system without links
            shutil.copyfile(self.folder / LAST, part)
        files.rename(part, self.folder / name)


class CheckpointFile(TorchCheckpointIO):
    """Checkpoints go straight to their file and to the disk, and come back as data, never as code.

    Lightning's own writer makes a copy in memory and another in the folder of temporary files; its reader would
    unpickle anything.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with open(path, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch ends its archive whatever happened, and fails again
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return renamed.current_checkpoint(
            torch.load(path, map_location="cpu", weights_only=True, mmap=REPLACES_MAPPED)
        )
