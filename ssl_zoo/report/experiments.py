"""The experiments, whole runs of known recipes, printed from their files in ``conf/experiment``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ssl_zoo.errors import ConfigError, nearest

# "ImageNet linear top-1 of ResNet-50, percent, as its authors report it; not reproduced here"
MEASURE = re.compile(r"(?P<what>.+?)(?:,| in) percent, (?P<whose>.+); (?P<here>not )?reproduced here")
NONE = "none"
SMALL = "_tiny"  # how the name of the small form of a study ends
MEASURED = ("found", "runs", "minutes")  # what a small form says of itself under ``study.measured``


class Experiment(NamedTuple):
    """What the file of an experiment says.

    Attributes:
        text: Its comment: what is run, and where the recipe was read.
        commands: How it is run and, in some, judged.
        number: Percent, and how the run differs from the published one, if it does; ``none``.
        what: What the number measures.
        whose: Who reports it.
        here: Whether it was reproduced here, yes or no.
        study: What its own file says under ``study``, for ``ssl-zoo report NAME SWEEP``; None: nothing.
    """

    text: str
    commands: list[str]
    number: str = NONE
    what: str = ""
    whose: str = ""
    here: str = ""
    study: Mapping[str, Any] | None = None

    def told(self) -> list[str]:
        """The number in a line, where there is one."""
        here = "reproduced here" if self.here == "yes" else "not reproduced here"
        return [] if self.number == NONE else [f"{self.number}: {self.what}, percent, {self.whose}; {here}"]


def experiments() -> dict[str, Experiment]:
    """Every ``conf/experiment/*.yaml``, by the name that ``experiment=`` takes."""
    found = [file for file in files("ssl_zoo.conf").joinpath("experiment").iterdir() if file.name.endswith(".yaml")]
    return {
        name: _read(name, file.read_text()) for name, file in sorted((f.name.removesuffix(".yaml"), f) for f in found)
    }


def _read(name: str, content: str) -> Experiment:
    """Raises ConfigError for a number whose measure does not say what, whose, and whether it was reproduced."""
    head = [line[1:].strip() for line in content.split("\ndefaults:")[0].splitlines() if line.startswith("# ")]
    commands = [re.split(r"\s{2,}", line)[0] for line in head if line.startswith("python ")]
    text = " ".join(line for line in head if not line.startswith(("python ", "@package")))
    values = OmegaConf.create(content)
    expected: Any = OmegaConf.select(values, "expected", default=None)
    if expected is None or expected.value is None:
        plain: Any = OmegaConf.to_container(values)  # references lead into the whole configuration: they stay words
        return Experiment(text, commands, study=plain.get("study"))
    told = MEASURE.fullmatch(expected.measure)
    if told is None:
        raise ConfigError(
            f"experiment/{name}.yaml: expected.measure={expected.measure}; "
            "wanted 'WHAT, percent, WHOSE; not reproduced here'"
        )
    differs = expected.get("differs")
    number = f"{expected.value} (not the published recipe: {differs})" if differs else str(expected.value)
    return Experiment(text, commands, number, told["what"], told["whose"], "no" if told["here"] else "yes")


def show(name: str | None = None) -> None:
    """Print all experiments, or what the files of those say whose names begin with ``name``."""
    known = experiments()
    chosen = {key: value for key, value in known.items() if key.startswith(name or "")}
    if not chosen:
        raise ConfigError(f"ssl-zoo experiments {name}: there is no such experiment; {nearest(str(name), known)}")
    console = Console()
    if name is None:
        columns = ("number", "of what, percent", "whose", "reproduced here")
        table = Table(Column("experiment", no_wrap=True), *columns, title="ssl_zoo: experiment=NAME")
        for key, one in chosen.items():
            table.add_row(key, one.number, one.what, one.whose, one.here)
        console.print(table)
        return
    for key, one in chosen.items():
        console.print(Text("\n".join([key, one.text, *one.commands, *one.told()])), end="\n\n")


def markdown() -> str:
    """The table of ``docs/experiments.md``."""
    lines = ["| command | number | of what, percent | whose | reproduced here |", "| --- | --- | --- | --- | --- |"]
    for one in experiments().values():
        if one.study is None:
            lines.append(f"| `{one.commands[0]}` | {one.number} | {one.what} | {one.whose} | {one.here} |")
    return "\n".join(lines)


def studies() -> str:
    """The table of the papers' decisive experiments: each with its small form, and what that has shown."""
    heads = [
        "experiment",
        "question",
        "the paper's answer",
        f"what `NAME{SMALL}` shows",
        "runs",
        "minutes of a core",
    ]
    known = experiments()
    lines = [heads, ["---"] * len(heads)]
    for name, one in known.items():
        small = known.get(f"{name}{SMALL}")
        if one.study is not None and small is not None and small.study is not None:
            measured = small.study.get("measured") or {}
            found = [measured.get(key, "not yet measured" if key == "found" else "") for key in MEASURED]
            lines.append([f"`{name}`", one.study["question"], one.study["answer"], *map(str, found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"experiments": markdown, "studies": studies}
