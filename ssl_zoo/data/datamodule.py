"""DataModule: from a source to the batches that a method sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_zoo import distributed
from ssl_zoo.augmentations.captured import CapturedViews
from ssl_zoo.augmentations.pipeline import Augmentation, EvalView, FirstView, ViewPipeline, chosen
from ssl_zoo.augmentations.rng import BatchRNG, stream_key
from ssl_zoo.data import fingerprint
from ssl_zoo.data.batch import Batch, DataInfo, RawBatch
from ssl_zoo.data.damage import Damage
from ssl_zoo.data.decoders import STREAM, TrainTask, auto_workers
from ssl_zoo.data.loader import EvalLoader, TrainLoader, check_accumulate
from ssl_zoo.data.pseudo import PseudoLabels
from ssl_zoo.data.sampler import Groups, Mixture, Plan
from ssl_zoo.data.source import Part, Source, Splits
from ssl_zoo.data.splits import keep_labels, labelled_rows, split
from ssl_zoo.data.trial import views_fit
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.samples import cast


class DataModule(pl.LightningDataModule):
    """One data set, its order, its views.

    Args:
        source: Called with ``root`` and ``download``; gives the :class:`Splits`.
        batch_size: Samples per optimizer step over all devices.
        unlabelled_per_labelled: So many samples without a label come with each labelled one, on top of ``batch_size``
            of those; None: a batch is what comes, of both.
        augmentation: Makes the views; without a ``_target_``, the settings of :attr:`default_augmentation`.
        seed: Of the order, the draws and the choice of labels.
        root: Where the files are; a list where the source takes several places.
        download: Whether missing files may be fetched.
        subset: Train on this many samples (a fixed choice); None: on all.
        labels: Share of each class that keeps its labels; None: all.
        drop_unlabelled: Train on the labelled samples only, where some have no label.
        pseudo_labels: File of ``ssl-zoo pseudo-label``: how often a sample is seen, and the guessed classes that
            methods find in ``batch.extra["pseudo"]``; None: none.
        imbalance: Train on a long tail, the first class this many times larger than the last; None: on all samples.
        val_fraction: Hold out this share of the training samples and validate on them, in place of the set's own
            validation samples; None: use those.
        workers: Processes that decode; ``auto``: none for data in memory, else one a core.
        accumulate: Micro-batches per optimizer step.
        layout: What the check before the start looks for; not used here.
        changed: For the training command, not used here: whether a run may go on with other data than it began with.
        epoch_steps: Optimizer steps of an epoch, whatever the number of samples; None: as many as they fill.
        trains: False: nobody trains on it, so that fewer samples than a batch will do (evaluation, pictures).
    """

    default_augmentation: type[Augmentation] | None = None  # of settings without a _target_
    of_the_network: tuple[str, ...] = ()  # settings that other data take over from those that a network was trained on
    tensor_views = True  # whether each view of a batch is one tensor
    pair = "a sample and its first training view"  # what :meth:`second_look` compares, in words

    def __init__(
        self,
        source: Callable[..., Splits],
        batch_size: int,
        augmentation: Augmentation | Mapping[str, Any],
        seed: int = 0,
        root: str | list[str] | None = None,
        download: bool = False,
        subset: int | None = None,
        labels: float | None = None,
        val_fraction: float | None = None,
        workers: int | str = "auto",
        accumulate: int = 1,
        layout: Mapping[str, Any] | None = None,
        imbalance: float | None = None,
        drop_unlabelled: bool = False,
        pseudo_labels: str | None = None,
        changed: Literal["refuse", "accept"] = "refuse",
        epoch_steps: Size | None = None,
        unlabelled_per_labelled: Size | None = None,
        trains: bool = True,
    ) -> None:
        super().__init__()
        self.unlabelled_per_labelled = unlabelled_per_labelled
        self.trains = trains
        self.batch_size = batch_size
        self.seed = seed
        self.accumulate = accumulate
        self.epoch_steps = epoch_steps
        self.workers = workers
        self.augmentation: Any = augmentation
        if not isinstance(augmentation, Augmentation):
            self.augmentation = self.augmentation_class(augmentation)(**augmentation)
        self.where = self.augmentation.where
        auto_workers(workers, True, 1, 1)
        self._root = fingerprint.place(root)
        splits = self._read(source, root, download)
        self._splits = splits
        self._fingerprint: dict[str, Any] | None = None
        train, held_out = split(splits.train, subset, val_fraction, imbalance)
        self.labelled = None if labels is None else labelled_rows(train.labels, labels, seed)
        self.drop_unlabelled = drop_unlabelled
        self._whole = train
        self._guesses = None if pseudo_labels is None else PseudoLabels.read(pseudo_labels, train)
        self._pseudo: Tensor | None = None  # [N, C] guessed classes by index
        self.train: Part = self._chosen()
        self.val: Source | None = held_out or splits.val
        self._prepare_views()
        # Two copies: workers are forked with one that has never seen a device.
        self.views, self._worker_views = (self._make_views() for _ in range(2))
        self.captured = CapturedViews(self.views)
        self.eval_view, self._worker_eval_view = (self._make_eval() for _ in range(2))
        self._check_views()
        self._plan()  # a batch that cannot be made is an error now, not after the networks are built
        self._loader: TrainLoader | None = None
        self._position: dict[str, int] | None = None
        self._groups: Groups | None = None
        self._damages: dict[str, Damage] = {}
        self.run_dir: Path | None = None  # where damaged files are listed; None: nowhere

    # What a kind of data may do in its own way

    def _read(self, source: Callable[..., Splits], root: Any, download: bool) -> Splits:
        return source(root=root, download=download)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What networks must know of a sample."""
        return self.train.facts

    @classmethod
    def augmentation_class(cls, settings: Mapping[str, Any]) -> type[Augmentation]:
        """What makes the views of a configuration's ``augmentation``.

        Raises:
            ConfigError: If it is for data of another kind.
        """
        return chosen(settings, cls.default_augmentation, cls.__name__)

    def _prepare_views(self) -> None:
        """What must be known of the samples before there are views."""

    def _make_views(self) -> ViewPipeline:
        return self.augmentation.make_views(self.train)

    def _make_eval(self) -> EvalView:
        return self.augmentation.make_eval(self.train)

    def _check_views(self) -> None:
        """Make the views of one sample: what does not fit it is an error now, not after the networks are built."""
        self.tensor_views = views_fit(self.train, self.views, self.eval_view)

    def _made_by(self, device: torch.device) -> tuple[bool, str]:
        """Whether ``augmentation.where=auto`` lets workers make whole views, and why."""
        return False, "auto: views are made in batches"

    def second_look(self, view: EvalView) -> EvalView:
        """Another evaluation view, of what stays the same thing: by it a network is judged without labels."""
        return FirstView(self._make_views())  # which may be moved to a device

    # The same for all

    def _plan(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> Plan:
        if not self.trains:
            fitting = min(self.batch_size, len(self.train))
            return Plan(len(self.train), fitting, self.seed, shards=self.train.shards, shares=self.train.shares)
        sizes = len(self.train), self.batch_size, self.seed, self.accumulate
        mixture = Mixture.of(self.train.labels, self.unlabelled_per_labelled)
        return Plan(*sizes, rank, world, device, self.train.shards, self.epoch_steps, mixture, self.train.shares)

    def first(self, rows: int) -> list[int]:
        """Positions of the training samples that epoch 0 begins with; methods that read by groups ask for it later."""
        return self._plan().beginning(rows)

    def _chosen(self) -> Part:
        """The training samples, with the labels that they keep, as often as they are seen."""
        part = self._whole if self.labelled is None else keep_labels(self._whole, self.labelled)
        if self._guesses is not None:
            rows = self._guesses.rows(part.labels)
            self._pseudo = self._guesses.probabilities[rows]
            return part.select(rows)
        if self.drop_unlabelled:
            if part.labels is None or not bool((part.labels >= 0).any()):
                raise ConfigError("data.drop_unlabelled=true: no training sample has a label; set it to false")
            return part.select((part.labels >= 0).nonzero().flatten())
        return part

    # What others ask

    @property
    def info(self) -> DataInfo:
        """What a method may know."""
        classes = None if self.train.labels is None or self.train.classes is None else len(self.train.classes)
        return DataInfo(len(self.train), classes, self._plan().rows, self.facts)

    @property
    def decisions(self) -> list[str]:
        """What was decided about the data, a line each: told at the start, kept in the run's record."""
        return [*getattr(self._splits.train, "decisions", ()), *self.views.changes, *self.eval_view.changes]

    @property
    def epoch_samples(self) -> int:
        """Of which ``batch_size`` make a step: all, or the labelled ones of a mixture."""
        return self._plan().counted

    @property
    def train_labels(self) -> Tensor | None:
        """``[N]`` labels of the training samples by index, -1 = none, on the CPU."""
        return None if self.train.labels is None else self.train.labels.cpu()

    def group(self, number: Tensor, instances: int | None, domain: Tensor | None = None) -> None:
        """Read the training set by groups from the next epoch on, as a method may ask for between epochs.

        Args:
            number: ``[N]`` group of each training sample, -1: one of its own; equal on all processes.
            instances: So many samples of a group follow one another; None: all groups equally often, in any order.
            domain: ``[N]`` bool: from which of two domains each sample is; rows of the one and the other alternate.
                None: there is one.
        """
        self._groups = Groups(number.cpu(), instances, None if domain is None else domain.cpu())
        if self._loader is not None:
            self._loader.group(self._groups)

    def check_group(self, number: Tensor, instances: int | None, domain: Tensor | None = None) -> None:
        """Raise what :meth:`group` would of such groups, before a method spends time on finding them."""
        self._plan(distributed.rank(), distributed.world_size()).group(Groups(number, instances, domain))

    def sample(self, index: int, train: bool = True) -> Any:
        """A sample as it is stored."""
        source = self.train if train else self.val
        assert source is not None
        return source.load(index)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this data from other data, before anything is chosen or held out of it: plain containers.

        Returns:
            ``{"train": {"samples": N, "digest": hex}, "val": the same or None, "root": absolute path, URL or None}``;
            :func:`ssl_zoo.data.fingerprint.changed` compares two of them.
        """
        if self._fingerprint is not None:
            return self._fingerprint
        parts = {
            name: None if source is None else {"samples": len(source), "digest": fingerprint.of(source)}
            for name, source in self._splits._asdict().items()
        }
        self._fingerprint = {**parts, "root": self._root}
        return self._fingerprint

    def resolved(self, device: torch.device) -> dict[str, Any]:
        """What ``auto`` has become where it bears on the numbers of views, by the path of the setting.

        Args:
            device: Where the run trains.
        """
        own = {f"data.source.{key}": value for key, value in getattr(self.train.source, "resolved", {}).items()}
        return {"augmentation.where": "worker" if self._finish(device) else "device", **own}

    def describe(self, device: torch.device | str | None = None, processes: int = 1) -> str:
        """Where decoding and augmentation run, in one line.

        Args:
            device: Where the run will train, if no trainer is attached yet.
            processes: That will train on this node, if no trainer is attached yet.
        """
        place = self._device() if device is None else torch.device(device)
        workers = self.count_workers(processes)
        hands = f"{workers} workers" if workers else "this process"
        if self._batched(place):
            told = f"samples in memory, views in batches on {place.type}"
        elif self._finish(place):
            told = f"views one by one in {hands}"
        else:
            cut = " and crops" if self.views.cuts else ""
            told = f"decoding{cut} in {hands}, the rest of the views in batches on {place.type}"
        return f"{told} ({self._made_by(place)[1] if self.where == 'auto' else f'augmentation.where={self.where}'})"

    # Where things run: rules on the data and the device, never timings

    def _device(self) -> torch.device:
        if self.trainer is not None:
            return self.trainer.strategy.root_device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _finish(self, device: torch.device) -> bool:
        """Whether workers make whole views; otherwise they crop at most."""
        return self._made_by(device)[0] if self.where == "auto" else self.where == "worker"

    def _batched(self, device: torch.device) -> bool:
        return self.train.in_memory and not self._finish(device)

    def count_workers(self, processes: int = 1) -> int:
        """Of each process, where so many train on this node, if no trainer is attached yet."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = self.trainer.num_devices if self.trainer is not None else processes
        return auto_workers(self.workers, self.train.in_memory and self.where != "worker", processes, cores)

    # Loaders

    def train_dataloader(self) -> TrainLoader:
        if self._loader is not None:
            return self._loader
        check_accumulate(self.trainer, self.accumulate, self.batch_size)
        device = self._device()
        batched = self._batched(device)
        if batched:
            self.train = self.train.resident(device)
        kept = self.train.positions.device if batched else "cpu"
        plan = self._plan(distributed.rank(), distributed.world_size(), kept)
        task = None if batched else TrainTask(self.train, self._worker_views, self.seed, self._finish(device))
        workers = 0 if batched else self.count_workers()
        self._loader = TrainLoader(self.train, plan, task, workers, device.type == "cuda", self._damage(self.train))
        if self._groups is not None:
            self._loader.group(self._groups)
        if self._position is not None:
            self._loader.load_state_dict(self._position)
        return self._loader

    def val_loader(self) -> EvalLoader | None:
        """Evaluation views of the validation samples; None without any."""
        return None if self.val is None else self._eval_loader(self.val)

    def train_eval_loader(self, rows: Tensor | None = None) -> EvalLoader:
        """Evaluation views of the training samples, or of some of them (``[n]`` positions)."""
        return self._eval_loader(self.train, rows)

    def _eval_loader(self, source: Source, rows: Tensor | None = None) -> EvalLoader:
        world, device = distributed.world_size(), self._device() if self.trainer is not None else torch.device("cpu")
        view = self.eval_view if source.in_memory else self._worker_eval_view
        batch = max(min(self.batch_size // world, 512), 64)
        workers = 0 if source.in_memory else self.count_workers(world)
        rank, damage = distributed.rank(), self._damage(source)
        return EvalLoader(source, view, batch, rank, world, workers, device, rows, damage)

    def _damage(self, source: Source) -> Damage:
        """One list for all passes over the same samples, so that a file is told once."""
        kind = "val" if source is self.val else "train"
        if kind not in self._damages:
            self._damages[kind] = Damage(source.damage_limit, len(source))
        damage = self._damages[kind]
        if self.run_dir is not None:
            rank = distributed.rank()
            damage.listed = Path(self.run_dir, f"damaged.rank{rank}.txt" if rank else "damaged.txt")
        return damage

    # From rows to views, after Lightning has moved them to the device

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not isinstance(batch, RawBatch):
            return batch
        device = batch.index.device
        slots = torch.arange(batch.slot, batch.slot + len(batch.index))
        rng = BatchRNG(self.seed, batch.epoch, batch.micro, slots, STREAM, device)
        views: Any = batch.samples
        extra: dict[str, Tensor] = {}
        if not batch.finished:
            self.views.to(device)
            epoch, slot = self.views.drawn_at(batch.epoch, rng.slot, batch.index)
            views, extra = self.captured(views, stream_key(self.seed, STREAM, epoch), slot)
        if self._pseudo is not None:
            self._pseudo = self._pseudo.to(device)
            extra["pseudo"] = self._pseudo[batch.index]
        if self.trainer is not None:
            dtype: Any = self.trainer.lightning_module.dtype
            # trainer.precision=64-true and 16-true: Lightning converts batches before the views are made.
            views = [cast(view, dtype) for view in views]
        return Batch(views, batch.index, batch.label, rng, {**batch.reports, **extra})

    # State

    def state_dict(self) -> dict[str, Any]:
        """Position in the training stream and its groups, where views are made, and which samples keep their labels."""
        position = self._position if self._loader is None else self._loader.state_dict()
        where = "worker" if self._finish(self._device()) else "device"
        groups = None if self._groups is None else self._groups._asdict()
        return {"position": position, "where": where, "labelled": self.labelled, "groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue there. Where views are made is kept too: workers and devices agree to 2/255 only."""
        self._position = state_dict["position"]
        self.where = state_dict["where"]
        if state_dict.get("groups") is not None:  # checkpoints of earlier versions do not name it
            self.group(**state_dict["groups"])
        if self._loader is not None and self._position is not None:
            self._loader.load_state_dict(self._position)
        if state_dict["labelled"] is not None:
            self.labelled = state_dict["labelled"]
            self.train = self._chosen()

    def teardown(self, stage: str) -> None:
        """End the workers; another fit begins at the first epoch, or where the checkpoint says."""
        if self._loader is not None:
            self._loader.close()
        self._loader = self._position = self._groups = None
