"""Learning rates and weight decay: their rule, their peak, and the parts that have their own."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import Reader, by_key
from tests.golden.recipes.rates import Groups, near, selectors
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.words import Grammar

LAWS: dict[str, Callable[[float, int], float]] = {
    "absolute": lambda base, batch: base,
    "linear256": lambda base, batch: base * batch / 256,
    "linear512": lambda base, batch: base * batch / 512,
    "sqrt": lambda base, batch: base * math.sqrt(batch),
}
_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def peak(composed: Composed, batch: int | None = None) -> float:
    """Highest rate of the parameters that have no rate of their own, for a batch of any size."""
    bound = composed.bound
    if batch is not None:
        bound = composed.method.recipe.bind(composed.method.named_parameters(), batch, fused=False)
    which = Groups(composed, bound).others(selectors(composed.recorded.value("lr_groups")))
    rows = bound.table(composed.progress(0, theirs=False))
    return max(rows[i].highest_lr for i in which)


@field("lr_peak")
def lr_peak(value: float, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if not near(peak(composed), value, 1e-6):
        yield unequal("lr_peak", peak(composed), value)


@field("lr_rule")
def lr_rule(value: dict[str, Any], recorded: Recorded, composed: Composed) -> Iterator[str]:
    """A rate that scales does so at another batch too; one that is absolute may scale with ours from that batch on."""
    law = LAWS.get(value.get("kind", ""))
    if law is None:
        yield unmapped("lr_rule.kind", value.get("kind"))
        return
    batch = recorded.value("batch") or composed.cfg.data.batch_size
    batches = [batch] if value["kind"] == "absolute" else [batch, 2 * batch]
    for rows in batches:
        if not near(peak(composed, rows), law(value["base"], rows), 1e-6):
            yield unequal(f"lr_rule.base for a batch of {rows}", peak(composed, rows), law(value["base"], rows))
    rest = {key: x for key, x in value.items() if key not in ("kind", "base")}
    yield from by_key("lr_rule", rest, _RULE, (composed, value, batches))


def _at_batch(subject: str, wanted: int, asked: Any) -> Iterator[str]:
    """Our rate may be absolute too, or scale from this batch on."""
    composed = asked[0]
    if composed.cfg.data.batch_size != wanted:
        yield unequal(subject, composed.cfg.data.batch_size, wanted)


def _formula(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    """``base * B / 256``, or with ``at N`` behind it."""
    composed, value, batches = asked
    text, _, at = wanted.partition(" at ")
    for batch in [int(at)] if at else batches:
        number = evaluated(text, base=value["base"], B=batch)
        if number is None:
            yield unmapped(subject, wanted)
        elif not near(peak(composed, batch), number, 1e-6):
            yield unequal(f"{subject} for a batch of {batch}", peak(composed, batch), number)


def _scales_too(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    if wanted != "warm-up rate":
        yield unmapped(subject, wanted)
        return
    composed, _, (batch, *_) = asked
    first = []
    for rows in (batch, 2 * batch):
        bound = composed.method.recipe.bind(composed.method.named_parameters(), rows, fused=False)
        first.append(Groups(composed, bound).at(composed.progress(0))[0]["lr"])
    if not near(first[1], 2 * first[0], 1e-6):
        yield unequal(subject, f"first rate {first[0]:g}, and {first[1]:g} for twice the batch", wanted)


_RULE: dict[str, Reader] = {"at_batch": _at_batch, "lr": _formula, "equals": _formula, "scales_too": _scales_too}


def evaluated(text: str, **names: float) -> float | None:
    """The number that a formula of ``+ - * /``, ``sqrt`` and these names gives; None: it holds something else."""

    def number(node: ast.AST) -> float:
        if isinstance(node, ast.Expression):
            return number(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](number(node.left), number(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "sqrt":
            return math.sqrt(number(node.args[0]))
        raise ValueError(text)

    try:
        return number(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, ValueError):
        return None


@field("lr_groups")
def lr_groups(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    groups = Groups(composed)
    steps = [composed.progress(k) for k in _steps(recorded, composed)]
    if value == "one group":
        various = [found for step in steps if len(found := groups.values("lr", step, groups.others([]))) > 1]
        if various:
            yield unequal("lr_groups", various[0], value)
        return
    if not isinstance(value, dict):
        yield unmapped("lr_groups", value)
        return
    for selector, wanted in value.items():
        which = groups.of(selector)
        if which is None:
            yield unmapped("lr_groups", selector)
        elif not which:
            yield unequal(f"lr_groups.{selector}", "no group of its own", wanted)
        elif isinstance(wanted, dict):
            yield from by_key(f"lr_groups.{selector}", wanted, _GROUP, (groups, which, composed))
        else:
            rest = groups.others(list(value))
            yield from _GROUP_WORDS.differences(f"lr_groups.{selector}", wanted, (groups, which, rest, steps))


def _steps(recorded: Recorded, composed: Composed) -> list[int]:
    rows = recorded.value("points") or []
    return [row["step"] for row in rows] or [0, composed.ours_total // 2, composed.ours_total - 1]


def _group_peak(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    groups, which, composed = asked
    rows = groups.bound.table(composed.progress(0, theirs=False))
    ours = max(rows[i].highest_lr for i in which)
    if not near(ours, wanted, 1e-6):
        yield unequal(subject, ours, wanted)


def _group_base(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    recorded = asked[2].recorded
    law = LAWS[recorded.value("lr_rule")["kind"]]
    yield from _group_peak(f"{subject} scaled", law(wanted, recorded.value("batch")), asked)


_GROUP: dict[str, Reader] = {"base": _group_base, "peak": _group_peak}


def _same_schedule(match: Any, asked: Any) -> str | None:
    groups, which, rest, steps = asked
    pairs = [(groups.values("lr", step, which), groups.values("lr", step, rest)) for step in steps]
    return next((f"{own} beside {others}" for own, others in pairs if own != others), None)


def _no_decay(match: Any, asked: Any) -> str | None:
    groups, which, _, steps = asked
    found = [groups.values("weight_decay", step, which) for step in steps]
    return next((f"weight decay {x}" for x in found if x != [0.0]), None)


def _constant(match: Any, asked: Any) -> str | None:
    groups, which, _, steps = asked
    highest = max(groups.bound.table(steps[0])[i].highest_lr for i in groups.others([]))
    found = [groups.values("lr", step, which) for step in steps]
    return next((f"{x}" for x in found if len(x) != 1 or not near(x[0], highest, 1e-6)), None)


_GROUP_WORDS = Grammar(
    (r"the same schedule", _same_schedule),
    (r"no decay", _no_decay),
    (r"constant at the peak", _constant),
    (r"\([^)]*\)", None),
)


@field("weight_decay")
def weight_decay(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    groups = Groups(composed)
    every, total = groups.others([]), composed.progress(0).total

    def ours(step: int) -> list[float]:
        found = groups.values("weight_decay", composed.progress(step), every)
        return [x for x in found if x != 0] or found

    if isinstance(value, dict):
        yield from by_key("weight_decay", value, _DECAY, (ours, total, value))
    elif various := [found for step in (0, total // 2, total - 1) if (found := ours(step)) != [value]]:
        yield unequal("weight_decay", various[0], value)


def _decay_start(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    found = asked[0](0)
    if len(found) != 1 or not near(found[0], wanted, 1e-3):
        yield unequal(subject, found, wanted)


def _decay_end(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    ours, total, value = asked
    found = ours(round(total * _stretch(value)))
    if len(found) != 1 or not near(found[0], wanted, 1e-6):
        yield unequal(subject, found, wanted)


def _stretch(value: dict[str, Any]) -> float:
    words = re.search(r"stretch ([\d.]+)", str(value.get("schedule")))
    return float(words[1]) if words else 1.0


def _decay_shape(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    """``cosine per step``, with ``counter from 1`` and ``stretch x`` where there are such."""
    ours, total, value = asked
    known = Grammar((r"cosine per step", None), (r"counter from [01]", None), (r"stretch [\d.]+", None))
    found, unknown = known.read(wanted)
    if unknown or not found or not wanted.startswith("cosine per step"):
        yield unmapped(subject, wanted)
        return
    step, counter = total // 3, 1 if "counter from 1" in wanted else 0
    done = (step + counter) / int(total * _stretch(value))
    number = value["end"] + (value["start"] - value["end"]) * (1 + math.cos(math.pi * done)) / 2
    if len(ours(step)) != 1 or not near(ours(step)[0], number, 1e-6):
        yield unequal(f"{subject} at step {step}", ours(step), number)


_DECAY: dict[str, Reader] = {"start": _decay_start, "end": _decay_end, "schedule": _decay_shape}
