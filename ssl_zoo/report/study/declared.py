"""What the file of an experiment says under ``study``: question, what varies, what is measured, the paper's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from ssl_zoo import composing
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.report.experiments import experiments
from ssl_zoo.report.study.measures import MEASURES

PAPER = "paper"  # the name of the paper's numbers among the measures
REST = "*"  # in a claim: any other label of that axis
# Keys of ``study`` that are not for the report: the sweep sets ``arm``, the file refers to ``arms`` and ``ops``, and
# ``measured`` is what the documentation says of a small form.
OTHERS = ("arm", "arms", "ops", "measured")

Labels = tuple[str, ...]  # one for each axis


@dataclass(frozen=True)
class Axis:
    """A setting that the runs of a sweep have different values of.

    Attributes:
        key: ``method.stop_gradient``.
        labels: What its values are called, in the order in which they are drawn; others follow under their own names.
    """

    key: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def label(self, value: str) -> str:
        return self.labels.get(value, value)


@dataclass(frozen=True)
class Claim:
    """That one kind of runs has more of a measure than others, or than a number.

    Attributes:
        says: The finding in words.
        more: Labels, one for each axis.
        less: Likewise, ``*`` for any label but that of ``more``; or a number.
        of: The measure.
    """

    says: str
    more: Labels
    less: Labels | float
    of: str


@dataclass(frozen=True)
class Study:
    """A declared experiment.

    Attributes:
        name: Of its file.
        question: What it asks.
        answer: What its paper found, in words.
        source: Where that stands, and whether it was read again.
        of: What the paper's numbers measure.
        axes: What varies.
        measures: Name -> how it is read from a run (:mod:`ssl_zoo.report.study.measures`) and of what.
        numbers: The paper's, nested by the labels of the axes.
        claims: What decides whether the effect is there.
        draw: A panel each: name of a drawing, what it draws, and options.
        limits: What a run of this size cannot show, and what would; empty for the size of the paper.
        module: With ``table(rows)`` and ``draw(rows, out)``, in place of ours; None: ours.
    """

    name: str
    question: str
    answer: str
    source: str
    axes: Sequence[Axis]
    measures: Mapping[str, Mapping[str, Any]]
    claims: Sequence[Claim]
    draw: Sequence[Mapping[str, Any]]
    of: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    limits: str = ""
    module: str | None = None

    def paper(self, labels: Labels) -> float | None:
        """The paper's number for these labels; None: it printed none."""
        found: Any = self.numbers
        for label in labels:
            found = found.get(label) if isinstance(found, Mapping) else None
        return None if found is None else float(found)


def names() -> list[str]:
    """The experiments that are studies, by their files."""
    return [name for name, one in experiments().items() if one.study is not None]


def load(name: str) -> Study:
    """The study of ``conf/experiment/NAME.yaml``.

    Raises:
        ConfigError: If there is no such experiment, or its file says too little or what is not known.
    """
    known = names()
    if name not in known:
        raise ConfigError(f"ssl-zoo report {name}: no experiment of that name says what it measures; "
                          f"{nearest(name, known)}")  # fmt: skip
    node = OmegaConf.select(composing.load([f"experiment={name}"]), "study")
    found = OmegaConf.to_container(node, resolve=True)
    assert isinstance(found, dict)
    return parse(name, {str(key): value for key, value in found.items() if key not in OTHERS})


def parse(name: str, node: Mapping[str, Any]) -> Study:
    """A study from plain containers.

    Raises:
        ConfigError: As :func:`load`.
    """
    where = f"experiment/{name}.yaml: study"
    wanted = [key for key in Study.__dataclass_fields__ if key not in ("name", "axes")] + ["vary"]
    for key in node:
        if key not in wanted:
            raise ConfigError(f"{where} has no {key!r}; {nearest(str(key), wanted)}")
    missing = [key for key in ("question", "answer", "source", "vary", "measures") if not node.get(key)]
    missing += [] if node.get("draw") or node.get("module") else ["draw (or module)"]
    if missing:
        raise ConfigError(f"{where} does not say {', '.join(missing)}")
    axes = [Axis(str(key), _labels(values)) for key, values in node["vary"].items()]
    measures = {str(key): _measure(where, str(key), how) for key, how in node["measures"].items()}
    claims = [_claim(where, claim, measures, len(axes)) for claim in node.get("claims") or ()]
    rest = {key: node[key] for key in ("question", "answer", "source", "of", "limits", "module") if node.get(key)}
    return Study(
        name=name, axes=axes, measures=measures, claims=claims, draw=node.get("draw") or (),
        numbers=_keyed(node.get("numbers") or {}), **rest,
    )  # fmt: skip


def text(value: Any) -> str:
    """A value in the one way in which labels and settings are compared: true, null, 512, 5e-05, [64], resnet8."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text, value))}]"
    word = str(value).strip()
    if word in ("True", "False"):  # as Hydra writes the values of a sweep in a file
        return word.lower()
    try:
        number = float(word)
    except ValueError:
        return word
    if not math.isfinite(number):
        return word
    return str(int(number)) if number == int(number) else repr(number)


def _labels(values: Any) -> dict[str, str]:
    pairs = values.items() if isinstance(values, Mapping) else ((value, value) for value in values or ())
    return {text(value): text(label) for value, label in pairs}


def _keyed(node: Any) -> Any:
    return {text(key): _keyed(value) for key, value in node.items()} if isinstance(node, Mapping) else node


def _measure(where: str, name: str, how: Any) -> dict[str, Any]:
    if not isinstance(how, Mapping) or len(how) < 1 or next(iter(how)) not in MEASURES:
        got = next(iter(how)) if isinstance(how, Mapping) and how else how
        raise ConfigError(f"{where}.measures.{name} is read by {got!r}; {nearest(str(got), MEASURES)}")
    return {str(key): value for key, value in how.items()}


def _claim(where: str, node: Mapping[str, Any], measures: Mapping[str, Any], axes: int) -> Claim:
    of = str(node.get("of", next(iter(measures))))
    if of not in measures:
        raise ConfigError(f"{where}.claims: there is no measure {of!r}; {nearest(of, measures)}")
    sides = [tuple(map(text, side)) if isinstance(side, list) else side for side in (node["more"], node["less"])]
    more, less = [(text(side),) if isinstance(side, (str, bool)) else side for side in sides]
    if not isinstance(more, tuple):
        raise ConfigError(f"{where}.claims: more is {more!r}; wanted the labels of a kind of runs")
    for side in (more, less):
        if isinstance(side, tuple) and len(side) != axes:
            raise ConfigError(f"{where}.claims: {list(side)} has {len(side)} labels, and {axes} settings vary")
    return Claim(str(node["says"]), more, less if isinstance(less, tuple) else float(less), of)
