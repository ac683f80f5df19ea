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
from ssl_zoo.augmentations import bands
from ssl_zoo.augmentations.captured import CapturedViews
from ssl_zoo.augmentations.rng import BatchRNG, stream_key
from ssl_zoo.augmentations.views import EvalView, ViewPipeline
from ssl_zoo.data import fingerprint
from ssl_zoo.data.batch import Batch, DataInfo, RawBatch, opened
from ssl_zoo.data.damage import Damage
from ssl_zoo.data.decoders import STREAM, TrainTask, auto_workers
from ssl_zoo.data.loader import EvalLoader, TrainLoader
from ssl_zoo.data.pseudo import PseudoLabels
from ssl_zoo.data.sampler import Groups, Mixture, Plan
from ssl_zoo.data.source import Part, Source, Splits
from ssl_zoo.data.splits import keep_labels, labelled_rows, split
from ssl_zoo.data.statistics import normalization
from ssl_zoo.data.view_checks import check_views
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side, height_width, plain_side

PLACES = ("auto", "device", "worker")
SMALL = 96  # pixels up to which a CPU makes views faster in batches than one by one


class DataModule(pl.LightningDataModule):
    """One data set, its order, its views.

    Args:
        source: Called with ``root``, ``download``, ``image_size`` and ``channels``; gives the :class:`Splits`.
        batch_size: Samples per optimizer step over all devices.
        unlabelled_per_labelled: So many samples without a label come with each labelled one, on top of ``batch_size``
            of those; None: a batch is what comes, of both.
        image_size: Of the views unless ``augmentation`` says otherwise: side of a square, or height and width.
        stored_size: Of images that are kept in memory at one size, from which views are cut; None: ``image_size``.
        channels: Bands of the images: grey (1) and colour (3) become each other, others are as many as the files have.
        augmentation: ``{views, eval, normalize, where}`` as ``conf/augmentation`` has it; views for colour adapt to
            other bands.
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

    def __init__(
        self,
        source: Callable[..., Splits],
        batch_size: int,
        image_size: Side,
        channels: int,
        augmentation: Mapping[str, Any],
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
        stored_size: Side | None = None,
        unlabelled_per_labelled: Size | None = None,
        trains: bool = True,
    ) -> None:
        super().__init__()
        self.unlabelled_per_labelled = unlabelled_per_labelled
        self.trains = trains
        self.batch_size = batch_size
        self.image_size = plain_side(image_size)
        self.channels = channels
        self.seed = seed
        self.accumulate = accumulate
        self.epoch_steps = epoch_steps
        self.workers = workers
        self.where = augmentation.get("where", "auto")
        require("augmentation.where", self.where, PLACES, ConfigError)
        auto_workers(workers, True, 1, 1)
        self._root = fingerprint.place(root)
        stored = image_size if stored_size is None else stored_size
        splits = source(root=root, download=download, image_size=stored, channels=channels)
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
        self.normalization = normalization(augmentation.get("normalize"), train, channels)
        # Two copies: workers are forked with one that has never seen a device.
        self.views, self._worker_views = (self._pipeline(augmentation) for _ in range(2))
        self.captured = CapturedViews(self.views)
        self.eval_view, self._worker_eval_view = (self._eval_view(augmentation) for _ in range(2))
        check_views(self.views, self.eval_view, channels, self.train.image_size, self.image_size)
        self._plan()  # a batch that cannot be made is an error now, not after the networks are built
        self._loader: TrainLoader | None = None
        self._position: dict[str, int] | None = None
        self._groups: Groups | None = None
        self._damages: dict[str, Damage] = {}
        self.run_dir: Path | None = None  # where damaged files are listed; None: nowhere

    def _pipeline(self, augmentation: Mapping[str, Any]) -> ViewPipeline:
        return ViewPipeline(augmentation["views"], self.normalization.numbers, self.channels, self.train.white)

    def _eval_view(self, augmentation: Mapping[str, Any]) -> EvalView:
        ops, size = augmentation["eval"]["ops"], augmentation["eval"].get("size") or self.image_size
        return EvalView(ops, size, self.normalization.numbers, self.channels, self.train.white)

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
        return DataInfo(len(self.train), classes, self.image_size, self.channels, self._plan().rows)

    @property
    def decisions(self) -> list[str]:
        """What was decided about the data, a line each: told at the start, kept in the run's record."""
        own = getattr(self._splits.train, "decisions", ())
        changes = list(dict.fromkeys([*self.views.changes, *self.eval_view.changes]))
        return [*own, *bands.told(changes, self.channels), *self.normalization.told]

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

    def image(self, index: int, train: bool = True) -> Tensor:
        """A sample as it is stored: ``[C, H, W]``."""
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
        own |= {"augmentation.normalize": self.normalization.numbers} if self.normalization.measured else {}
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
            told = f"images in memory, views in batches on {place.type}"
        elif self._finish(place):
            told = f"views one by one in {hands}"
        else:
            told = f"decoding and crops in {hands}, the rest of the views in batches on {place.type}"
        return f"{told} ({self._reason(place)})"

    def _reason(self, place: torch.device) -> str:
        """Why views are made there."""
        if self.where != "auto":
            return f"augmentation.where={self.where}"
        if place.type != "cpu":
            return "auto: an accelerator always makes the views itself"
        if self.train.in_memory:
            return "auto: a CPU makes views of what lies in memory in batches"
        size = f"{max(height_width(self.image_size))} px is {'more than' if self._finish(place) else 'at most'} {SMALL}"
        return f"auto: {size}, where a CPU is faster {'image by image' if self._finish(place) else 'in batches'}"

    # Where things run: rules on the data and the device, never timings

    def _device(self) -> torch.device:
        if self.trainer is not None:
            return self.trainer.strategy.root_device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _finish(self, device: torch.device) -> bool:
        """Whether workers make whole views; otherwise they crop at most."""
        if self.where == "auto":
            return not self.train.in_memory and device.type == "cpu" and max(height_width(self.image_size)) > SMALL
        return self.where == "worker"

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
        self._check_accumulate()
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

    def _check_accumulate(self) -> None:
        """A trainer of the user's own may add up other micro-batches than a step's samples were divided into."""
        taken = self.accumulate if self.trainer is None else self.trainer.accumulate_grad_batches
        if taken != self.accumulate:
            raise ConfigError(
                f"Trainer(accumulate_grad_batches={taken}) with data.accumulate={self.accumulate}: a step would have "
                f"{self.batch_size // self.accumulate * taken} samples, and data.batch_size={self.batch_size}; "
                f"set accumulate_grad_batches={self.accumulate}, or build the data with accumulate={taken}"
            )

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
        views: Any = opened(batch.images)
        extra: dict[str, Tensor] = {}
        if not batch.finished:
            self.views.to(device)
            views, extra = self.captured(views, stream_key(self.seed, STREAM, batch.epoch), rng.slot)
        if self._pseudo is not None:
            self._pseudo = self._pseudo.to(device)
            extra["pseudo"] = self._pseudo[batch.index]
        if self.trainer is not None:
            # trainer.precision=64-true and 16-true: Lightning converts batches before the views are made.
            views = [view.to(self.trainer.lightning_module.dtype) for view in views]
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
