"""Checkpoints at step boundaries: last.ckpt for resuming, best.ckpt by the probe, SIGTERM's too."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from ssl_zoo.distributed import any_rank, is_main


class Terminated(Exception):
    """The run was asked to stop (SIGTERM) and has saved its state; the message says where."""


class RunCheckpoint(Checkpoint):
    """Write ``checkpoints/last.ckpt`` (atomically) and keep the best epoch by a watched metric.

    Being a Lightning ``Checkpoint`` it runs after all other callbacks, so that the probes' state of the same step is
    in the file.

    Args:
        run_dir: Run folder.
        record: Plain containers for the checkpoint's ``ssl_zoo`` key.
        every: Optimizer steps between saves; None: at the end of each epoch.
        watch: Metric whose highest value decides on ``best.ckpt``, the first of the list that exists.
    """

    def __init__(
        self,
        run_dir: str | Path,
        record: dict[str, Any],
        every: int | None = None,
        watch: tuple[str, ...] = ("probe/top1", "knn/top1"),
    ) -> None:
        self.folder = Path(run_dir) / "checkpoints"
        self.record = record
        self.every = every
        self.watch = watch
        self.best: float | None = None
        self._asked_to_stop = False
        self._stopping: int | None = None  # the step after which the state was saved for good

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in self.folder.glob("*.part"):
                stale.unlink()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here, because Lightning registers its own handler between fit start and train start; that one would broadcast
        # from inside the handler and end the process without saving.
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, *_: Any) -> None:
        self._asked_to_stop = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["ssl_zoo"] = self.record

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop = any_rank(self._asked_to_stop, pl_module.device)
        if stop or (self.every is not None and trainer.global_step % self.every == 0):
            self._save(trainer, "last.ckpt")
        if stop:
            # Raised at the next batch, when this step has been logged; after the last batch of an epoch its evaluation
            # still belongs to the run.
            self._stopping = trainer.global_step

    def _end(self) -> None:
        raise Terminated(
            f"stopped by SIGTERM after step {self._stopping}; saved {self.folder / 'last.ckpt'}; "
            "continue with resume=auto"
        )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._stopping is not None:
            self._end()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = getattr(pl_module, "metrics", {})
        value = next((metrics[name] for name in self.watch if name in metrics), None)
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        self._save(trainer, "last.ckpt")
        if better:
            self._save(trainer, "best.ckpt")
        if self._stopping is not None:
            self._end()

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        """Write beside the old file and rename: a run killed while it saves has lost nothing."""
        part, final = self.folder / f"{name}.part", self.folder / name
        trainer.save_checkpoint(part)
        if is_main():
            os.replace(part, final)
