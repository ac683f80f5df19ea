"""Optimizer recipe: which parameters get which values, at every step. One mechanism for learning-rate and weight-decay
schedules, exclusion of biases and norms, constant rates of a part, layer decay, and frozen parts."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ssl_zoo.errors import require
from ssl_zoo.optim.layer_decay import layer_scales
from ssl_zoo.optim.schedules import Progress, capped_warmup, value
from ssl_zoo.shards import is_shard
from ssl_zoo.signatures import argument_problems

Named = tuple[str, nn.Parameter]
LR_SCALES: dict[str, Callable[[int], float]] = {
    "linear256": lambda batch_size: batch_size / 256,  # https://arxiv.org/abs/1706.02677
    "sqrt": lambda batch_size: math.sqrt(batch_size),  # SimCLR, App. B.1: 0.075 * sqrt(B)
    "absolute": lambda batch_size: 1.0,
}
DEFAULT = "default"  # name of the group of parameters that no rule matches
SELECTORS = ("match", "ndim_at_most")
KERNELS = ("fused", "foreach")  # which of torch's ways a step takes: the machine's choice, not a checkpoint's
OTHERS = ("name", "lr_factor", "frozen_until")


def lr_multiplier(lr_scale: str, batch_size: int) -> float:
    """Factor of every learning rate for ``batch_size`` samples per step over all devices."""
    require("optimizer.lr_scale", lr_scale, LR_SCALES)
    return LR_SCALES[lr_scale](batch_size)


@dataclass(frozen=True)
class GroupRow:
    """One line of the table of groups: rates as finally used (scaled by the batch size)."""

    name: str
    tensors: int
    parameters: int
    lr: float
    highest_lr: float
    weight_decay: float
    frozen_until: int | None  # step


class OptimizerRecipe:
    """A partial optimizer, the values of its options, and rules for parts of the network.

    Args:
        optimizer: Called with a list of groups; a partial of a ``torch.optim`` class.
        values: Options of every group, each a constant or a schedule; one that is None is left out. Must hold ``lr``.
        rules: Name -> rule, or a list of rules; the first that fits a parameter wins, and one that gets no parameter is
            an error. A rule selects by ``match`` (regular expression searched in the parameter's name) and/or
            ``ndim_at_most`` (1: biases and norms). It may set any option of the optimizer (constant or schedule),
            ``lr_factor`` (of the default lr), and ``frozen_until`` (steps, or ``{"epochs": n}``). A rule that is None
            is left out, so that a config can switch one off.
        lr_scale: ``linear256`` (rates are per 256 samples), ``sqrt`` (times the root of the batch) or ``absolute``; the
            ends of schedules that have an ``absolute_end`` stay as they are.
        layer_decay: Factor of the learning rate from each layer of the backbone to the one before it (heads: 1), on top
            of the rules (:mod:`ssl_zoo.optim.layer_decay`); None: one rate for all layers.
    """

    def __init__(
        self,
        optimizer: Callable[..., Optimizer],
        values: Mapping[str, Any],
        rules: Mapping[str, Mapping[str, Any] | None] | Sequence[Mapping[str, Any]] = (),
        lr_scale: str = "linear256",
        layer_decay: float | None = None,
    ) -> None:
        if "lr" not in values:
            raise ValueError(f"optimizer.values has no 'lr', only {sorted(values)}")
        lr_multiplier(lr_scale, 1)
        if layer_decay is not None:
            layer_scales([], layer_decay)
        self.optimizer = optimizer
        self.values = {option: x for option, x in values.items() if x is not None}
        self.rules = _named_rules(rules)
        self.lr_scale = lr_scale
        self.layer_decay = layer_decay

    def bind(self, named_parameters: Iterable[Named], batch_size: int, fused: bool = True) -> BoundRecipe:
        """Build the optimizer over the parameters that require a gradient.

        Args:
            named_parameters: As ``module.named_parameters()`` gives them.
            batch_size: Samples per optimizer step over all devices; scales the learning rates.
            fused: Take torch's fused step where the optimizer has one and the recipe does not say otherwise. Not with a
                gradient scaler: a fused step unscales by itself, so that clipping would see scaled gradients.
        """
        every = list(named_parameters)
        named = [(name, p) for name, p in every if p.requires_grad]
        if not named:
            raise ValueError("no parameter requires a gradient: there is nothing to optimize")
        multiplier = lr_multiplier(self.lr_scale, batch_size)
        scales = self._layer_scales([name for name, _ in every])
        groups = []
        for name, (rule, members) in self._members(named).items():
            options = {**self.values, **{k: v for k, v in rule.items() if k not in (*SELECTORS, *OTHERS)}}
            where = "optimizer.values" if name == DEFAULT else f"optimizer.rules.{name}"
            _check_constants(self.optimizer, options, where)
            lr = _times(options["lr"], rule.get("lr_factor", 1.0), multiplier)
            for scale, params in _by_scale(members, scales):
                scaled = {**options, "lr": lr if scale == 1 else _times(lr, scale)}
                label = name if scale == 1 else f"{name} x {scale:.3g}"
                groups.append(_Group(label, params, scaled, rule.get("frozen_until")))
        split = any(is_shard(p) for _, p in named)
        return BoundRecipe(_fused(self.optimizer, split) if fused else self.optimizer, groups)

    def _layer_scales(self, names: list[str]) -> dict[str, float]:
        if self.layer_decay is None:
            return {}
        return dict(zip(names, layer_scales(names, self.layer_decay), strict=True))

    def _members(self, named: list[Named]) -> dict[str, tuple[dict[str, Any], list[Named]]]:
        """Group name -> (rule, its parameters); what no rule takes comes first, under ``default``."""
        taken: dict[str, tuple[dict[str, Any], list[Named]]] = {DEFAULT: ({}, [])}
        taken.update({name: (rule, []) for name, rule in self.rules.items()})
        for parameter in named:
            winner = next((name for name, rule in self.rules.items() if _fits(rule, *parameter)), DEFAULT)
            taken[winner][1].append(parameter)
        for name, rule in self.rules.items():
            if not taken[name][1]:
                raise ValueError(_unmatched(name, rule, named))
        return {name: entry for name, entry in taken.items() if entry[1]}


@dataclass
class _Group:
    """Parameters that share their values."""

    name: str
    params: list[nn.Parameter]
    options: dict[str, Any]
    frozen_until: int | Mapping[str, float] | None

    def frozen_steps(self, progress: Progress) -> int | None:
        if isinstance(self.frozen_until, Mapping):
            return round(self.frozen_until["epochs"] * progress.steps_per_epoch)
        return self.frozen_until


class BoundRecipe:
    """A recipe with its optimizer. Holds no state of its own: everything follows from the progress."""

    def __init__(self, optimizer: Callable[..., Optimizer], groups: list[_Group]) -> None:
        self.groups = groups
        before = Progress(step=0, total=1, steps_per_epoch=1)  # only to build; apply() sets the values of every step
        built = [{"params": g.params, "name": g.name, **_at(g.options, before)} for g in groups]
        self.optimizer = optimizer(built, lr=built[0]["lr"])
        self.optimizer.register_load_state_dict_post_hook(_lay_as_parameters)
        self._kernels = {key: x for key, x in self.optimizer.defaults.items() if key in KERNELS}

    def apply(self, progress: Progress) -> None:
        """Set every option of every group; a constant too, because a loaded optimizer state brings its own."""
        for group, target in zip(self.groups, self.optimizer.param_groups, strict=True):
            target.update({**self._kernels, **_at(group.options, progress)})

    def freeze(self, progress: Progress) -> None:
        """Drop the gradients of groups that are frozen at this step: no momentum, no weight decay (SwAV, DINO)."""
        for group in self.groups:
            if progress.step < (group.frozen_steps(progress) or 0):
                for p in group.params:
                    p.grad = None

    def lr(self, progress: Progress) -> float:
        """Learning rate of the first group: of what no rule matches, if there is such."""
        return value(self.groups[0].options["lr"], progress)

    def table(self, progress: Progress) -> list[GroupRow]:
        return [
            GroupRow(
                name=group.name,
                tensors=len(group.params),
                parameters=sum(p.numel() for p in group.params),
                lr=value(group.options["lr"], progress),
                highest_lr=_highest(group.options["lr"]),
                weight_decay=value(group.options.get("weight_decay", 0.0), progress),
                frozen_until=group.frozen_steps(progress),
            )
            for group in self.groups
        ]

    def messages(self, progress: Progress) -> list[str]:
        """What to tell before the run: warm-ups that do not fit it."""
        found = [
            f"{group.name}, {option}: {message}"
            for group in self.groups
            for option, x in group.options.items()
            if (message := capped_warmup(x, progress))
        ]
        return list(dict.fromkeys(found))


def _fused(optimizer: Callable[..., Optimizer], split: bool) -> Callable[..., Optimizer]:
    """One kernel for a step instead of one for each operation: measured 2 to 3 times faster on a CPU too.

    Args:
        split: The parameters lie in pieces on several processes (FSDP), which the kernels of Adam and AdamW alone take.
    """
    known, given = inspect.signature(optimizer).parameters, getattr(optimizer, "keywords", {})
    if "fused" not in known or given.keys() & {"fused", "foreach", "differentiable"}:
        return optimizer
    if split and "betas" not in known:
        return optimizer
    return functools.partial(optimizer, fused=True)


def _lay_as_parameters(optimizer: Optimizer) -> None:
    """Moments of a checkpoint may lie otherwise in memory than their parameter (channels-last here, rows there), and a
    fused step takes the numbers as they lie."""
    for p, entry in optimizer.state.items():
        for name, x in entry.items():
            if isinstance(x, torch.Tensor) and x.shape == p.shape and x.stride() != p.stride():
                entry[name] = torch.empty_like(p, dtype=x.dtype).copy_(x)


def _named_rules(rules: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(rules, Mapping):
        rules = {rule.get("name") or _describe(rule): rule for rule in _numbered(rules)}
    named = {str(name): dict(rule) for name, rule in rules.items() if rule is not None}
    for name, rule in named.items():
        if not any(selector in rule for selector in SELECTORS):
            raise ValueError(f"optimizer.rules.{name} selects nothing: give it 'match' or 'ndim_at_most', got {rule}")
        if "match" in rule:
            try:
                re.compile(rule["match"])
            except re.error as error:
                told = f"optimizer.rules.{name}.match={rule['match']!r} is no regular expression: {error}"
                raise ValueError(told) from None
        until = rule.get("frozen_until")
        if isinstance(until, Mapping) and set(until) != {"epochs"}:
            raise ValueError(f"optimizer.rules.{name}.frozen_until wants steps or {{epochs: n}}, got {dict(until)}")
    return named


def _numbered(rules: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rules of a list that select the same get names of their own, so that the second is reported as unmatched."""
    names = [_describe(rule) for rule in rules]
    return [
        {"name": f"{name} #{names[:i].count(name) + 1}", **rule} if name in names[:i] else rule
        for i, (name, rule) in enumerate(zip(names, rules, strict=True))
    ]


def _describe(rule: Mapping[str, Any]) -> str:
    parts = [f"match {rule['match']!r}"] if "match" in rule else []
    parts += [f"ndim <= {rule['ndim_at_most']}"] if "ndim_at_most" in rule else []
    return " and ".join(parts) or "rule"


def _fits(rule: Mapping[str, Any], name: str, parameter: nn.Parameter) -> bool:
    by_name = "match" not in rule or re.search(rule["match"], name) is not None
    return by_name and ("ndim_at_most" not in rule or parameter.ndim <= rule["ndim_at_most"])


def _unmatched(name: str, rule: Mapping[str, Any], named: list[Named]) -> str:
    fitting = [n for n, p in named if _fits(rule, n, p)]
    if fitting:
        return (
            f"optimizer.rules: {name} ({_describe(rule)}) gets no parameter, because earlier rules take all that it "
            f"matches: {_sample(fitting)}; put it before them"
        )
    return (
        f"optimizer.rules: {name} ({_describe(rule)}) matches none of {len(named)} trainable parameters; "
        f"their names look like: {_sample([n for n, _ in named])}"
    )


def _sample(names: list[str], count: int = 8) -> str:
    """A few names from the whole of a network, not only from its stem."""
    stride = max(len(names) / count, 1.0)
    picked = [names[int(i * stride)] for i in range(min(count, len(names)))]
    return ", ".join(dict.fromkeys([*picked, names[-1]]))


def _by_scale(members: list[Named], scales: Mapping[str, float]) -> list[tuple[float, list[nn.Parameter]]]:
    """Parameters that share a factor of their layer, the largest first, so that a group's own rate stands first."""
    found: dict[float, list[nn.Parameter]] = {}
    for name, p in members:
        found.setdefault(scales.get(name, 1.0), []).append(p)
    return sorted(found.items(), key=lambda item: -item[0])


def _check_constants(optimizer: Callable[..., Optimizer], options: Mapping[str, Any], where: str) -> None:
    """Torch's optimizers judge their defaults alone: a momentum of -1 in a group would train."""
    constants = {option: x for option, x in options.items() if not callable(x)}
    kind = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    problems = list(argument_problems(kind, constants, where, partial=True))
    if not problems:
        try:
            optimizer([nn.Parameter(torch.zeros(1))], **{"lr": 1.0, **constants})
        except ValueError as error:
            problems = [f"{where}: {error}"]
    if problems:
        raise ValueError("\n".join(problems))


def _times(x: Any, factor: float, batch: float = 1.0) -> Any:
    return x.scaled(factor, batch) if callable(x) else x * (factor * batch)


def _highest(x: Any) -> float:
    return x.highest() if callable(x) else float(x)


def _at(options: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    return {option: x(progress) if callable(x) else x for option, x in options.items()}
