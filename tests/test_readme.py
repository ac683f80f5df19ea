"""README and docs say what the code does: their tables, links and commands are checked."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssl_zoo import build, cli, composing, config, export, sweeps
from ssl_zoo.data.image import pack
from ssl_zoo.report import experiments, methods, pages
from ssl_zoo.report.study import declared

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
TABLES = methods.TABLES | experiments.TABLES
PROGRAMS = {("python", "train.py"): "train", ("python", "evaluate.py"): "evaluate"}


def found() -> Iterator[tuple[str, ...]]:
    """Of all indented lines: what ``ssl-zoo`` would be called with; a backslash at the end continues a line."""
    for page in PAGES.values():
        lines = re.sub(r"\\\n\s+", "", page).splitlines()
        commands = [line for line in lines if re.match(r"    (python \w+\.py|ssl-zoo) ", line)]
        for words in (shlex.split(line, comments=True) for line in commands):
            yield tuple(words[1:] if words[0] == "ssl-zoo" else [PROGRAMS[words[0], words[1]], *words[2:]])


COMMANDS = [list(words) for words in dict.fromkeys(found())]


def train(words: list[str]) -> None:
    with composing.composer() as composer:
        for job in sweeps.plan([word for word in words if word != "-m"], composer).jobs:
            assert composer.load(job).method._target_.startswith("ssl_zoo.methods.")


def evaluate(words: list[str]) -> int:
    assert config.load(words, "evaluate").checkpoint == "RUN"
    return 0


def report(words: list[str]) -> None:
    assert words[1] == ("RUN" if words[0] in cli.REPORTS else "SWEEP")
    assert words[0] in cli.REPORTS or words[0] in declared.names()


CHECKS: dict[str, Callable[[list[str]], object]] = {
    "train": train,
    "preview": train,
    "evaluate": lambda words: evaluate([word.replace("=STUDENT", "=RUN") for word in words]),
    "pseudo-label": lambda words: cli.entry(["pseudo-label", *words]),
    "export": lambda words: cli.entry(["export", *words]),
    "methods": lambda words: cli.entry(["methods", *words]),
    "experiments": lambda words: cli.entry(["experiments", *words]),
    "pack": lambda words: config.load(pack.parse(words)[1]),
    "report": report,
    "bench": lambda words: None,  # any name of a row
    "doctor": lambda words: config.load(words) and None,
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_parses(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "evaluate", evaluate)
    monkeypatch.setattr(export, "export", lambda *given: given[0])
    assert not CHECKS[words[0]](words[1:]) or words[0] == "pack"


def test_every_command_of_the_command_line_is_in_the_documentation() -> None:
    assert {words[0] for words in COMMANDS} == set(cli.COMMANDS)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_files(page: str) -> None:
    which = "experiments" if "<!-- experiments -->" in PAGES[page] else "methods"
    assert PAGES[page] == pages.renew(PAGES[page], TABLES), f"write it with: ssl-zoo {which} out={page}"


def test_all_tables_have_a_place() -> None:
    assert {name for name in TABLES for page in PAGES.values() if f"<!-- {name} -->\n" in page} == set(TABLES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page])
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).is_file()] == []
    named = re.findall(r"`((?:docs|tests|conf|benchmarks|ssl_zoo)/[\w/.-]+\.\w+)", PAGES[page])
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("group", ["backbone", "data", "trainer"])
def test_every_choice_is_named(group: str) -> None:
    row = next(line for line in PAGES["docs/use.md"].splitlines() if line.startswith(f"| `{group}`"))
    names = {path.stem for path in ROOT.glob(f"conf/{group}/*.yaml")} - {"any", "base"}
    assert names <= set(re.findall(r"[=`](\w+)", row))


def test_the_readme_leads_to_every_page() -> None:
    assert {f"docs/{name}" for name in re.findall(r"\(docs/([\w-]+\.md)\)", README)} == set(PAGES) - {"README.md"}


def test_the_new_method_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,), (yaml,) = (re.findall(rf"```{kind}\n(.*?)```", README, re.S) for kind in ("python", "yaml"))
    (tmp_path / "method").mkdir()
    (tmp_path / "method/follow.yaml").write_text(yaml)
    (tmp_path / "follow.py").write_text(code)
    monkeypatch.delitem(sys.modules, "follow", raising=False)  # of another test
    monkeypatch.syspath_prepend(str(tmp_path))
    build.check_signatures(config.load(["method=follow", f"hydra.searchpath=[file://{tmp_path}]"]))
