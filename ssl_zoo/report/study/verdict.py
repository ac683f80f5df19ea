"""Whether a sweep shows what its paper claims: differences of means beside two standard errors."""

from __future__ import annotations

from math import sqrt

from ssl_zoo.report.study.declared import REST, Claim, Labels
from ssl_zoo.report.study.sweep import Results, Values

ERRORS = 2  # standard errors of the difference
SHOWN, NOT_SHOWN, OPPOSITE, OPEN = "shown", "not shown", "the opposite was measured", "cannot be judged"


def verdicts(results: Results) -> list[str]:
    """A sentence for each claim of the study."""
    return [f"{claim.says}: {_judge(results, claim)}" for claim in results.study.claims]


def _judge(results: Results, claim: Claim) -> str:
    more = results.values(claim.more, claim.of)
    if not isinstance(claim.less, tuple):
        return _compare(claim, name(claim.more), more, f"{claim.less:g}", Values([claim.less]), fixed=True)
    others = _matching(results, claim.less, claim.more)
    if not others:
        return f"{OPEN}: there is no run of {name(claim.less)}"
    told = [_compare(claim, name(claim.more), more, name(one), results.values(one, claim.of)) for one in others]
    worst = [text for kind in (OPEN, OPPOSITE, NOT_SHOWN, SHOWN) for text in told if text.startswith(kind)]
    return worst[0] if len(told) == 1 else f"{worst[0]} (the least of {len(told)} comparisons)"


def name(labels: Labels) -> str:
    return ", ".join("any other" if label == REST else label for label in labels)


def _matching(results: Results, pattern: Labels, but: Labels) -> list[Labels]:
    return [
        labels
        for labels in results.cells
        if labels != but and all(want in (REST, label) for want, label in zip(pattern, labels, strict=True))
    ]


def _compare(claim: Claim, first: str, more: Values, second: str, less: Values, fixed: bool = False) -> str:
    if more.mean is None or less.mean is None:
        lacking = first if more.mean is None else second
        return f"{OPEN}: {claim.of} of {lacking} was not measured in a finished run"
    difference = more.mean - less.mean
    told = f"{claim.of} {more.told(2)} of {first}, {less.told(2)} of {second}, difference {difference:+.2f}"
    if len(more.numbers) < 2 or (len(less.numbers) < 2 and not fixed):
        return f"{OPEN}: {told}, with one seed; run seed=0,1,2"
    error = sqrt(more.squared_error + less.squared_error)
    kind = SHOWN if difference > ERRORS * error else OPPOSITE if difference < -ERRORS * error else NOT_SHOWN
    return f"{kind}: {told}, {ERRORS} standard errors {ERRORS * error:.2f}"
