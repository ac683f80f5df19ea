"""From samples to views, whatever a sample is: lists of operations, their draws, and what evaluation sees.

A modality subclasses :class:`Augmentation` (what ``augmentation._target_`` names), and :class:`ViewPipeline` where its
workers do something to single samples, or its views end in a way of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError, nearest, require
from ssl_zoo.ranges import Size
from ssl_zoo.samples import concat, leaves
from ssl_zoo.signatures import fits, locate

KINDS = ("global", "local")
PLACES = ("auto", "device", "worker")


@dataclass(frozen=True)
class ViewSpec:
    """One entry of ``augmentation.views``.

    Args:
        ops: ``{modality/op: {option: value}}``, applied in order.
        count: number of views of this entry, each with draws of its own.
        kind: global or local; a pipeline puts the global views first, otherwise in the order of the file.
        tie: ``{modality/op: view}``: take the draws of this operation from that view (a position in the final order).
    """

    needed: ClassVar[tuple[str, ...]] = ("ops",)

    ops: Sequence[Any]
    count: int = field(default=1, kw_only=True)
    kind: str = field(default="global", kw_only=True)
    tie: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    @property
    def side(self) -> Any:
        """The size of the view, of which operations are told; None: views have none."""
        return None

    @classmethod
    def problems(cls, entry: Any) -> list[str]:
        """All that is wrong with one entry of a YAML list, its operations aside (``registry.check``)."""
        if not isinstance(entry, Mapping):
            return [f"a view is a mapping with {' and '.join(cls.needed)}, got {entry!r}"]
        known = [item.name for item in fields(cls)]
        found = [f"a view has no key {key!r}: {nearest(key, known)}" for key in entry if key not in known]
        found += [f"a view needs {key!r}" for key in cls.needed if key not in entry]
        if entry.get("kind", "global") not in KINDS:
            found.append(f"kind={entry['kind']}: {nearest(entry['kind'], KINDS)}")
        if not isinstance(entry.get("ops", []), Sequence) or isinstance(entry.get("ops"), str):
            found.append(f"ops is {entry['ops']!r}, it must be a list of operations")
        if not fits(entry.get("count", 1), Size):
            found.append(f"count is {entry['count']!r}, it must be a whole number of at least 1")
        return found

    @classmethod
    def parse(cls, entry: Any) -> Any:
        """One entry of a YAML list, checked."""
        if isinstance(entry, cls):
            return entry
        problems = cls.problems(entry) or registry.check(entry["ops"])
        if problems:
            raise ConfigError("augmentation.views: " + "; ".join(problems))
        return cls(**{str(key): value for key, value in entry.items()})


class Operations(nn.Module):
    """The operations of one view.

    Args:
        spec: what to build.
        position: of the view in the pipeline, the name of its draws.
        facts: of the source, which operations are told.
    """

    def __init__(self, spec: ViewSpec, position: int, facts: Mapping[str, Any] | None = None):
        super().__init__()
        self.names = [registry.parse(entry)[0] for entry in spec.ops]
        self.ops = nn.ModuleList([registry.build(entry, spec.side, facts) for entry in spec.ops])
        self.draws = [(position, i) for i in range(len(self.ops))]   # (view, operation) whose numbers each one takes
        self.paths = [f"{position}/{name}" for name in self.names]

    def tie(self, tie: Mapping[str, int], views: Sequence[Operations]) -> None:
        """Take the draws of the named operations from another view that has them."""
        for name, view in tie.items():
            if name not in self.names:
                raise ConfigError(f"tie: this view has no operation {name!r}: {nearest(name, self.names)}")
            if not 0 <= view < len(views) or name not in views[view].names:
                raise ConfigError(f"tie: there is no {name!r} in view {view}, of {len(views)} views counted from 0")
            self.draws[self.names.index(name)] = (view, views[view].names.index(name))

    def draw_of(self, i: int, draw: Draw) -> Draw:
        """The draw of the operation at position ``i``."""
        view, op = self.draws[i]
        return draw.child(("view", view)).child(op, self.paths[i])

    def forward(self, x: Any, draw: Draw) -> Any:
        for i, op in enumerate(self.ops):
            x = op(x, self.draw_of(i, draw))
        return x


class ViewPipeline(nn.Module):
    """Samples to views. Every random number is a function of the draw, the view and the operation.

    Args:
        views: entries as in :attr:`spec`, or parsed ones.
        facts: of the source, which operations are told.
        collate: of the source: samples to a batch of them.
    """

    spec: type[ViewSpec] = ViewSpec
    operations: type[Operations] = Operations
    cuts = False   # whether there is something that workers do to each sample for each view: :meth:`crop`
    changes: Sequence[str] = ()   # what was made of the views that were asked for, a line each
    once = False   # whether a sample has the same views in every epoch

    def __init__(self, views: Sequence[Any], facts: Mapping[str, Any] | None = None,
                 collate: Callable[[Sequence[Any]], Any] = concat):
        super().__init__()
        parsed = [self.spec.parse(view) for view in views]
        specs = [spec for spec in parsed for _ in range(spec.count)]
        specs.sort(key=lambda spec: KINDS.index(spec.kind))
        if not specs:
            raise ConfigError("augmentation.views is empty; a method needs at least one view")
        self.specs = specs
        self.collate = collate
        self.counts = tuple(sum(spec.kind == kind for spec in specs) for kind in KINDS)
        made = [self.operations(spec, position, facts) for position, spec in enumerate(specs)]
        for view, spec in zip(made, specs, strict=True):
            view.tie(spec.tie, made)
        self.views = nn.ModuleList(made)
        self.ending = self.make_ending(facts or {})

    @classmethod
    def make_ending(cls, facts: Mapping[str, Any]) -> nn.Module:
        """What every view ends with: normalisation, padding; nothing unless a modality says so."""
        return nn.Identity()

    @torch.no_grad()
    def forward(self, batch: Any, draw: Draw, prepared: bool = False) -> tuple[list[Any], dict[str, Tensor]]:
        """Views of a batch, on its device.

        Args:
            batch: Samples as the source gives them; or a list with one such batch for each view.
            draw: one slot for each sample.
            prepared: :meth:`crop` has been done.

        Returns:
            One view of all samples for each entry, and what operations reported as ``"view/modality/op/name"``.
        """
        batches = batch if isinstance(batch, list) else [batch] * len(self.views)
        if len(batches) != len(self.views):
            raise ValueError(f"got samples for {len(batches)} views, the pipeline makes {len(self.views)}")
        # Views are made in full precision, whatever the training computes in.
        with torch.autocast(draw.device.type, enabled=False):
            views = [self.ending(view(x, draw)) for view, x in zip(self.views, batches, strict=True)]
        return views, dict(draw.reports)

    def drawn_at(self, epoch: int, slot: Tensor, index: Tensor) -> tuple[int, Tensor]:
        """The epoch and the slots ``[B]`` of the draws: those of the order, or of the samples themselves.

        Args:
            epoch: Counted from 0.
            slot: ``[B]`` places in the epoch's order.
            index: ``[B]`` positions in the training set.
        """
        return (0, index) if self.once else (epoch, slot)

    def hint(self, draw: Draw) -> Any:
        """What :meth:`Source.load` may be told for the sample of ``draw`` (one slot); None: nothing."""
        return None

    def crop(self, sample: Any, draw: Draw) -> list[Any]:
        """What a worker does to one sample for each view; the rest is done on the batch."""
        return [sample] * len(self.views)

    def full(self, sample: Any, draw: Draw) -> list[Any]:
        """All views of one sample, for workers: batches of one."""
        return self(self.collate([sample]), draw)[0]

    @staticmethod
    def stack(rows: int) -> Any:
        """Where a worker puts what :meth:`full` gives, sample by sample: has ``add(views)`` and ``views``."""
        return Joined()


class Joined:
    """Views of one sample after the other, joined at the end."""

    def __init__(self) -> None:
        self._rows: list[list[Any]] = []

    def add(self, views: list[Any]) -> None:
        self._rows.append(views)

    @property
    def views(self) -> list[Any]:
        """One batch for each view."""
        return [concat(view) for view in zip(*self._rows, strict=True)]


class EvalView(nn.Module):
    """The one view of evaluation; the same for every sample at every time.

    Args:
        view: operations without randomness, or with one draw that all samples share.
        ending: what every view ends with.
        collate: as of :class:`ViewPipeline`.
    """

    changes: Sequence[str] = ()

    def __init__(self, view: Operations, ending: nn.Module, collate: Callable[[Sequence[Any]], Any] = concat):
        super().__init__()
        self.view = view
        self.ending = ending
        self.collate = collate

    @torch.no_grad()
    def forward(self, batch: Any) -> Any:
        first = leaves(batch)[0]
        draw = Draw(stream_key(0, "eval", 0), torch.zeros(len(batch), dtype=torch.int64, device=first.device))
        with torch.autocast(first.device.type, enabled=False):
            return self.ending(self.view(batch, draw))

    def hint(self) -> Any:
        """As :meth:`ViewPipeline.hint`."""
        return None

    def one(self, sample: Any) -> Any:
        """The view of one sample, for workers: a batch of one."""
        return self(self.collate([sample]))

    @staticmethod
    def stack(rows: int) -> Any:
        """As :meth:`ViewPipeline.stack`."""
        return Joined()


class FirstView(EvalView):
    """The first training view, with draws that depend on the place in a batch alone."""

    def __init__(self, pipeline: ViewPipeline):
        super().__init__(pipeline.views[0], pipeline.ending, pipeline.collate)   # type: ignore[arg-type]

    @torch.no_grad()
    def forward(self, batch: Any) -> Any:
        device = leaves(batch)[0].device
        draw = Draw(stream_key(0, "look", 0), torch.arange(len(batch), device=device))
        with torch.autocast(device.type, enabled=False):
            return self.ending(self.view(batch, draw))


def checked(ops: Sequence[Any]) -> Sequence[Any]:
    """``augmentation.eval.ops``, if they can be built."""
    problems = registry.check(ops)
    if problems:
        raise ConfigError("augmentation.eval: " + "; ".join(problems))
    return ops


class Augmentation:
    """What ``augmentation._target_`` names: the views of a modality.

    A modality sets :attr:`modality`, and :attr:`pipeline` where it has one of its own.

    Args:
        views: entries as ``pipeline.spec`` says.
        eval: ``{ops: [...]}``: the view of evaluation.
        where: auto: on the device; worker: whole views are made in the processes that load samples.
        once: A sample has the same views in every epoch, as where an author's code makes them before the training.
    """

    modality: str   # the first part of the names of its operations
    pipeline: type[ViewPipeline] = ViewPipeline
    # Functions that draw, by name; None: nobody does. Of a data module and a path: its views. Of a data module,
    # features by name, and a path: samples beside those of the nearest features.
    drawn_by: str | None = None
    neighbours_drawn_by: str | None = None

    def __init__(self, views: Sequence[Any], eval: Mapping[str, Any], where: str = "auto", once: bool = False):
        require("augmentation.where", where, PLACES, ConfigError)
        self.once = once
        self.views = views
        self.eval = eval
        self.where = where

    def check(self, source: Any) -> None:
        """Raise a ConfigError if ``source`` says that its samples are of another kind."""
        kind = getattr(source, "modality", None)
        if kind not in (None, self.modality):
            raise ConfigError(
                f"augmentation is for samples of the kind {self.modality!r}, and those of the data are of the kind "
                f"{kind!r}; leave augmentation out, or choose one that is for them with augmentation=NAME"
            )

    def told(self, source: Any) -> Mapping[str, Any]:
        """What operations may ask for by the names of their arguments: the facts of ``source``."""
        return source.facts

    def make_views(self, source: Any) -> ViewPipeline:
        """The training views for samples of ``source``."""
        self.check(source)
        pipeline = self.pipeline(self.views, self.told(source), source.collate)
        pipeline.once = self.once
        return pipeline

    def make_eval(self, source: Any) -> EvalView:
        """The evaluation view."""
        told = self.told(source)
        view = self.pipeline.operations(ViewSpec(checked(self.eval["ops"])), 0, told)
        return EvalView(view, self.pipeline.make_ending(told), source.collate)

    @classmethod
    def finetuning_view(cls, config: Mapping[str, Any], ops: Sequence[Any]) -> dict[str, Any]:
        """The view on which a network is fine-tuned: ``protocol.ops``, or where they are for samples of another kind,
        the first view of the run.

        Args:
            config: Of the run, in plain containers.
            ops: Of the protocol.
        """
        own = all(registry.parse(entry)[0].startswith(f"{cls.modality}/") for entry in ops)
        first = {key: value for key, value in config["augmentation"]["views"][0].items() if key != "tie"}
        return {**first, "count": 1, "kind": "global", **({"ops": list(ops)} if own else {})}

    @classmethod
    def problems(cls, views: Sequence[Any], evaluation: Mapping[str, Any]) -> list[str]:
        """All that is wrong with ``augmentation.views`` and ``augmentation.eval``, a line each."""
        found: list[str] = []
        for i, view in enumerate(views):
            found += [f"augmentation.views.{i}: {text}" for text in cls.pipeline.spec.problems(view)]
        for i, view in enumerate([] if found else views):
            found += [f"augmentation.views.{i}.ops: {text}" for text in cls._foreign(view["ops"])]
        return found + [f"augmentation.eval.ops: {text}" for text in cls._foreign(evaluation["ops"])]

    @classmethod
    def _foreign(cls, ops: Sequence[Any]) -> list[str]:
        problems = registry.check(ops)
        if problems:
            return problems
        names = [registry.parse(entry)[0] for entry in ops]
        own = [name for name in registry.names() if name.startswith(f"{cls.modality}/")]
        return [f"{name} works on samples of another kind; {cls.__name__} takes {', '.join(own)}" for name in names
                if name not in own]


def chosen(settings: Mapping[str, Any], default: type[Augmentation] | None, data: str) -> type[Augmentation]:
    """The class that makes the views of a configuration's ``augmentation``.

    Args:
        settings: Its node.
        default: Of settings without ``_target_``, and what others must be a kind of; None: there is none.
        data: What to call the data in messages.

    Raises:
        ConfigError: If it is for data of another kind.
    """
    found: Any = locate(str(settings["_target_"])) if "_target_" in settings else default
    if inspect.isclass(found) and issubclass(found, default or Augmentation):
        return found
    got = settings.get("_target_", "settings without _target_")
    raise ConfigError(f"augmentation is {got}, which is not for the samples of data._target_={data}; choose one that "
                      "is with augmentation=NAME")
