"""The words of a command line: which are options of Hydra's, what each override says, and the quoting that works."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException

from ssl_zoo.errors import ConfigError, nearest

# Hydra answers these itself, without running a job.
ASKS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
SEVERAL = ("--multirun", "-m")
FLAGS = (*SEVERAL, "--run", "-r", "--resolve", "--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc")
VALUED = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p",
    "--experimental-rerun",
)  # fmt: skip
INFO = ("--info", "-i")
OF_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
# hydra/GROUP=NAME: the module that brings it, and what pip installs.
PLUGINS = {
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "ssl_zoo[optuna]"),
    "hydra/sweeper=search": ("hydra_optuna_sweeper", "ssl_zoo[optuna]"),
    "hydra/sweeper=ax": ("hydra_ax_sweeper", "hydra-ax-sweeper"),
    "hydra/sweeper=nevergrad": ("hydra_nevergrad_sweeper", "hydra-nevergrad-sweeper"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "ssl_zoo[slurm]"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "ssl_zoo[slurm]"),
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "hydra-joblib-launcher"),
    "hydra/launcher=ray": ("hydra_ray_launcher", "hydra-ray-launcher"),
    "hydra/launcher=rq": ("hydra_rq_launcher", "hydra-rq-launcher"),
}
# A choice of a plugin's configuration: the file of conf/ that stands for it.
OURS = {"hydra/sweeper=optuna": "hydra/sweeper=search"}
PAIR = re.compile(r"(?P<key>[\w./@+~-]+):(?P<value>.+)")


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of Hydra's (with their values) and overrides; Hydra itself wants them in this order.

    Raises:
        ConfigError: For a setting with hyphens before it, with the spelling that is meant.
    """
    options: list[str] = []
    overrides: list[str] = []
    wrong: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            overrides.append(OURS[word] if word in OURS and not _missing(word) else word)
        elif name in VALUED or name in FLAGS or name in INFO:
            options.append(word)
            if rest and not equals and (name in VALUED or name in INFO and rest[0] in OF_INFO):
                options.append(rest.pop(0))
        else:
            has_value = not equals and rest and "=" not in rest[0] and not rest[0].startswith("-")
            wrong.append(f"{word} {rest.pop(0)}" if has_value else word)
    if wrong:
        raise ConfigError(_hyphened(wrong))
    return options, overrides


def are_several(options: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep."""
    return not {*SEVERAL}.isdisjoint(options) or "hydra.mode=MULTIRUN" in overrides


def _hyphened(wrong: list[str]) -> str:
    pairs = [word for word in wrong if re.search("[= ]", word)]
    known = (*FLAGS, *VALUED, *INFO)
    lines = [f"{word}: there is no such option; {nearest(word, known)}" for word in wrong if word not in pairs]
    if pairs:
        fixed = " ".join(shlex.quote(re.sub("[= ]", "=", word.lstrip("-"), count=1)) for word in pairs)
        typed = " ".join(pairs)
        agent = "in a sweep of W&B, write ${args_no_hyphens} for ${args} in its command"
        lines.insert(0, f"{typed}: a setting has no hyphens before it; write {fixed} ({agent})")
    return "\n".join(lines)


def search_path(options: Sequence[str]) -> list[str]:
    """``--config-dir X`` as the override that it stands for."""
    joined = [word for option in options for word in option.split("=", 1)]
    found = [value for key, value in zip(joined, joined[1:], strict=False) if key in ("--config-dir", "-cd")]
    folders = [QuotedString(f"file://{Path(value).absolute()}", Quote.double).with_quotes() for value in found]
    return [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []


def parse(argv: Sequence[str]) -> list[Override]:
    """What each word says.

    Raises:
        ConfigError: With a line for every word that cannot be read, and the words that can.
    """
    problems = _without_equals(argv)
    found = []
    for word in [] if problems else argv:
        try:
            found.append(_parsed(word))
        except OverrideParseException as error:
            problems.append(f"cannot read {word!r}: {_reason(error)}; {_advice(word)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return found


@functools.lru_cache(maxsize=4096)  # the jobs of a sweep share most of their words
def _parsed(word: str) -> Override:
    return OverridesParser.create().parse_overrides([word])[0]


def _without_equals(argv: Sequence[str]) -> list[str]:
    """``method byol``, ``method:byol``, ``method= byol``: what was typed and what is meant."""
    problems = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        following = rest[0] if rest else ""
        pair = PAIR.fullmatch(word)
        if word.startswith("-"):
            problems.append(_hyphened([word]))
        elif word.endswith("=") and following and "=" not in following:
            problems.append(_meant(f"{word} {rest.pop(0)}", f"{word}{following}"))
        elif "=" in word or word.startswith("~"):
            continue
        elif following.startswith("="):
            problems.append(_meant(f"{word} {rest.pop(0)}", f"{word}{following}"))
        elif pair:
            problems.append(_meant(word, f"{pair['key']}={pair['value']}"))
        elif following and "=" not in following and not PAIR.fullmatch(following):
            problems.append(_meant(f"{word} {rest.pop(0)}", f"{word}={following}"))
        else:
            problems.append(f"{word}: a word without an equals sign; wanted key=value, for example method=byol")
    return problems


def _meant(typed: str, meant: str) -> str:
    return f"{typed}: wanted key=value; write {shlex.quote(meant)}"


def _reason(error: HydraException) -> str:
    """Hydra's reason in half a sentence, without the names of its own classes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines[0].startswith("LexerNoViableAlt"):
        return "a sign in it has to stand in quotes"
    said = next((line for line in lines if " while evaluating " in line), lines[0])
    return re.sub(r"^\w+ while evaluating '.*?': ", "", said).removeprefix("Error parsing override ")


def _advice(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"for the value as it stands write {as_it_stands(key, value)}" if equals and key else "wanted key=value"


def as_it_stands(key: str, value: str) -> str:
    """``key=value`` as a POSIX shell takes it, quoted so that the setting is the text ``value``, letter for letter.

    Two layers of quotes: the outer ones are the shell's, the inner ones Hydra's, in which only a reference has to be
    escaped besides. The shorter of the two ways round is taken.
    """
    ways = [shlex.quote(f"{key}={_in_quotes(value)}")]
    if not re.search(r'["$`\\!]', value):
        ways.append(f'"{key}={QuotedString(value, Quote.single).with_quotes()}"')
    return min(ways, key=len)


def setting(key: str, value: str | os.PathLike[str] | Sequence[str]) -> str:
    """``key=value`` to paste into a POSIX shell: as it is where that says the same, else quoted.

    Args:
        value: A text or path, or several texts, which become a list.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        word = f"{key}={value}"
        return word if shlex.quote(word) == word and _says(word, value) else as_it_stands(key, value)
    plain = ("${" not in part and _says(f"{key}=[{part},b]", [part, "b"]) for part in value)
    parts = [part if same else _in_quotes(part) for part, same in zip(value, plain, strict=True)]
    return shlex.quote(f"{key}=[{','.join(parts)}]")


def _says(word: str, value: str | list[str]) -> bool:
    """Whether Hydra reads a word as this, letter for letter."""
    try:
        override = _parsed(word)
    except OverrideParseException:
        return False
    return not override.is_sweep_override() and override.value() == value


def _in_quotes(value: str) -> str:
    return QuotedString(value.replace("${", "\\${"), Quote.double).with_quotes()


def sweep_problem(override: Override, word: str) -> str:
    """The sentence about a word that means several values where one is wanted."""
    key, _, value = word.partition("=")
    if override.value_type is not None and override.value_type.name == "SIMPLE_CHOICE_SWEEP" and "(" not in value:
        listed = shlex.quote(f"{key}=[{value}]")
        return (
            f"{word}: a comma separates the jobs of a sweep; add -m to run them, write {listed} for a list, "
            f"or {as_it_stands(key, value)} for the value as it stands"
        )
    return f"{word}: several values; add -m to run a job for each, or give one of them"


def plugin_problem(override: Override) -> str | None:
    """The sentence about ``hydra/sweeper=NAME`` or ``hydra/launcher=NAME`` of a package that is not installed."""
    chosen = f"{override.key_or_group}={override.value()}"
    package = _missing(chosen)
    return f"{chosen}: its plugin is not installed; pip install {shlex.quote(package)}" if package else None


def _missing(chosen: str) -> str | None:
    """The package to install for a choice of a plugin, unless it is there."""
    module, package = PLUGINS.get(chosen, ("", ""))
    try:
        found = not module or importlib.util.find_spec(f"hydra_plugins.{module}") is not None
    except ModuleNotFoundError:  # there is no plugin at all
        found = False
    return None if found else package
