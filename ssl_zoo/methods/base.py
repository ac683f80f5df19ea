"""Method: the contract of every method, and the loop, logging and state that they share (DESIGN, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.errors import ConfigError
from ssl_zoo.features import extract
from ssl_zoo.losses.precision import promoted
from ssl_zoo.methods.scalars import Scalars
from ssl_zoo.modules.float32 import Float32State, norms_in_float32
from ssl_zoo.modules.memory_layout import channels_last
from ssl_zoo.modules.queue import Staged
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.optim.lengths import total_steps
from ssl_zoo.optim.recipe import BoundRecipe, OptimizerRecipe
from ssl_zoo.optim.schedules import Progress
from ssl_zoo.seeding import seed_generators
from ssl_zoo.sharding import gathered, shard

Compared = Literal["batch", "process"]


class Method(Float32State, pl.LightningModule):
    """Base of all methods: subclasses write :meth:`training_loss` and, where they need them, the two step hooks.

    A method builds its state in ``__init__``, never logs, never talks to ``torch.distributed`` except through the
    words of :mod:`ssl_zoo.distributed`, and draws its random numbers from ``batch.rng``. Its own buffers and all batch
    norms keep float32 where the networks are cast to half precision.

    Args:
        backbone: Encoder with ``out_features``; what is evaluated and exported unless :attr:`encoder` says otherwise.
        optimizer: Recipe that groups the parameters and gives every group its values at every step.
    """

    views_required: tuple[int, int] = (2, 0)  # (global, local) at least; checked before anything is built
    views_allowed: tuple[int | None, int | None] = (2, 0)  # at most; None: any number
    trains: bool = True  # False: a run takes no step and leaves the networks as they were built
    needs_labels: bool = False
    needs_tokens: bool = False  # a vision transformer whose patches can be masked, dropped and read one by one
    drops_tokens: bool = False  # leaves patches out, which windows of patches do not allow
    modality: str | None = None  # the only kind of samples that it is for, as Augmentation.modality says it; None: any
    tensor_views: bool = False  # mixes, shuffles or cuts views, which must be single tensors for it
    begins: tuple[str, ...] = ()  # settings that say from which epoch on a part of the method works
    unsplittable: str | None = None  # why FSDP cannot hold its parameters in pieces, in words; None: it can
    rows_of_samples: bool = False  # the state has a row for each training sample, which no other data may take over
    # Whose samples the loss compares with one another, of which a batch of one has none: of a micro-batch over all
    # devices, or of a process.
    compares: Compared | None = None
    # The loss of uniform assignments (ln K), by which the monitor names a collapse; where it depends on the batch,
    # training_loss reports it under this name.
    uniform_loss: float | None = None
    data_info: DataInfo  # set by build_method

    def __init__(self, backbone: Backbone, optimizer: OptimizerRecipe) -> None:
        super().__init__()
        if self.needs_tokens:
            backbone.require_tokens(type(self).__name__, self.drops_tokens)
        self.backbone = backbone
        self.recipe = optimizer
        self.progress = Progress(step=0, total=1, steps_per_epoch=1)
        self.seed = 0
        self.clip: Clip | None = None
        self.metrics: dict[str, float] = {}  # the latest values, for the progress bar and the table at the end
        self._bound: BoundRecipe | None = None
        self._batch_size: int | None = None  # samples of a step over all devices, as bound
        self._scalars = Scalars()
        self._noted: tuple[int, int] | None = None  # the last micro-batch whose scalars were taken up

    # What a method writes

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        """The sentence about a setting of the method that does not go with ``augmentation.views``, before the start."""
        return None

    def share_problem(self, samples: int) -> str | None:
        """The sentence about a process's samples of a micro-batch that the method cannot divide, before the start."""
        return None

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss": scalar, "features": [B, F] for probes (optional), **scalars to log}``."""
        raise NotImplementedError(f"{type(self).__name__} must define training_loss(batch)")

    def before_step(self) -> None:
        """Called once per optimizer step, before its first micro-batch."""

    def after_step(self) -> None:
        """Called once per optimizer step that was really taken; steps that a gradient scaler skips do not count."""

    @property
    def student(self) -> nn.Module:
        """Backbone and projector as one network: what a teacher copies and follows (``teacher.net.0``, ``.1``)."""
        return nn.Sequential(self.backbone, cast(nn.Module, self.projector))

    @property
    def encoder(self) -> nn.Module:
        """What is evaluated and exported."""
        return self.backbone

    def embed(self, view: Any) -> Tensor:
        """Features of a view as evaluation reads them: ``[B, F]``."""
        return self.encoder(view)

    # What the base does

    def bind(self, batch_size: int, fused: bool = True) -> BoundRecipe:
        """Build the optimizer for ``batch_size`` samples per step over all devices; ``fused`` as in the recipe's."""
        bound = self.recipe.bind(self.named_parameters(), batch_size, fused)
        # torch calls the hook after every step that was taken: a gradient scaler that skips one does not come here.
        bound.optimizer.register_step_post_hook(lambda *_: self._stepped())
        self._bound, self._batch_size = bound, batch_size
        return bound

    @property
    def bound(self) -> BoundRecipe:
        if self._bound is None:
            raise RuntimeError("the optimizer is not built yet: call method.bind(batch_size) first")
        return self._bound

    def configure_model(self) -> None:
        """Before every fit: the layout decides in which order numbers are summed, whoever has made the trainer."""
        # In a run limited by steps Lightning takes a checkpoint of the end of an epoch for one of its middle, and would
        # go on with one batch too few in it.
        self.trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        strategy, precision = self.trainer.strategy, self.trainer.precision_plugin
        if isinstance(precision, DoublePrecision):
            precision.convert_module(self)  # later, as Lightning does, a checkpoint's weights would have been rounded
        if isinstance(strategy, ModelParallelStrategy):
            shard(self, strategy.device_mesh["data_parallel"])
        else:
            channels_last(self, strategy.root_device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Bind anew for every fit: the trainer knows the data and the precision, whoever has made it."""
        batch_size = getattr(self.trainer.datamodule, "batch_size", self._batch_size)  # type: ignore[attr-defined]
        if batch_size is None:
            raise ConfigError("fit(method) wants to know the samples of a step over all devices: give it a datamodule "
                              "with batch_size, or call method.bind(batch_size) before")
        # With a gradient scaler a fused step unscales by itself: clipping would see scaled gradients, and a step that
        # the scaler skips would count as taken.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return self.bind(batch_size, fused=not scaled).optimizer

    def begin_micro_batch(self, first: bool) -> None:
        """Before the forward of a micro-batch; ``first`` of its optimizer step."""
        if first:
            self.bound.apply(self.progress)
            self.before_step()

    def on_train_start(self) -> None:
        self._noted = None
        loop = self.trainer.fit_loop
        if loop.restarted_mid_epoch and loop.epoch_loop.batch_progress.is_last_batch:
            # Saved after the last step of an epoch: Lightning takes it for the middle of one, and would begin the next
            # without this hook, in which methods cluster and label.
            self.on_train_epoch_start()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        accumulate = self.trainer.accumulate_grad_batches
        steps = int(self.trainer.num_training_batches) // accumulate
        total = total_steps(steps, self.trainer.max_epochs, self.trainer.max_steps)
        self.progress = Progress(self.trainer.global_step, total, steps)
        # Dropout must not depend on what came before: a resumed run draws what the uninterrupted one did. All processes
        # draw the same numbers, for the samples of all of them: ssl_zoo.modules.dropout.
        seed_generators(hash((self.seed, self.trainer.current_epoch, batch_idx)) & (2**63 - 1), self.device)
        self.begin_micro_batch(first=batch_idx % accumulate == 0)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        out = self.training_loss(batch)
        return {name: value if name == "loss" else value.detach() for name, value in out.items()}

    def on_after_backward(self) -> None:
        for module in self.modules():
            if isinstance(module, Staged):
                module.commit()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip as ``trainer.clip`` says, or a trainer of the user's own; then drop the gradients of what is frozen, as
        DINO's authors order it."""
        if self.clip:
            self.clip(self.named_parameters())
        if gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.bound.freeze(self.progress)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        with norms_in_float32(self):
            return super()._apply(fn, recurse)

    def _stepped(self) -> None:
        self.after_step()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.note(outputs, batch_idx)

    def note(self, outputs: Any, batch_idx: int) -> None:
        """Take up what a micro-batch gave, once: a checkpoint of a step asks for its row before Lightning calls us."""
        if self._noted == (self.trainer.current_epoch, batch_idx):
            return
        self._noted = self.trainer.current_epoch, batch_idx
        accumulate, step = self.trainer.accumulate_grad_batches, self.trainer.global_step
        self._scalars.add(outputs, accumulate)
        if (batch_idx + 1) % accumulate == 0:
            due = step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
            self._scalars.end_step(due, step=step, epoch=self.trainer.current_epoch, lr=self.bound.lr(self.progress))
        self._log_scalars()

    def _log_scalars(self, wait: bool = False) -> None:
        for label, scalars in self._scalars.arrived(wait):
            row = {f"train/{name}": value for name, value in scalars.items()}
            self.report({**row, "lr": label["lr"]}, label["step"], label["epoch"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._log_scalars(wait=True)  # a run that resumes here does not write these rows again

    def report(self, row: dict[str, float], step: int | None = None, epoch: int | None = None) -> None:
        """Send a row of numbers to every logger, at the current step unless told, and keep it for the progress bar."""
        self.metrics.update(row)
        step = self.trainer.global_step if step is None else step
        epoch = self.trainer.current_epoch if epoch is None else epoch
        for logger in self.trainer.loggers:
            logger.log_metrics({**row, "epoch": epoch}, step=step)

    def extract(self, module: nn.Module, dtype: torch.dtype | None = None) -> Tensor:
        """Outputs of ``module`` on evaluation views of the whole training set: one pass, split over the processes.

        Args:
            module: On the method's device.
            dtype: Of the result; float16 takes half the memory of every process, for numbers of 11 bits.

        Returns:
            ``[samples, ...]`` ordered by index, on the CPU, the same on every rank.
        """
        loader = self.trainer.datamodule.train_eval_loader()  # type: ignore[attr-defined]
        with gathered(self):
            return extract(
                module, loader, self.device, lambda view: promoted(module(view.to(self.dtype))), dtype
            ).features
