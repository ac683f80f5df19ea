"""Sweeps: the jobs that a command line asks for, the check of all of them before the first one, and the objective."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ssl_zoo import words
from ssl_zoo.composing import Composer, composer
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.family import Family

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
LARGEST = 100_000
Judge = Callable[[DictConfig, "dict[str, Any] | None"], None]
OBJECTIVES = ("probe/top1", "knn/top1")  # the first that a run has measured, unless objective=NAME says which


class Sweep(NamedTuple):
    """What a command line with ``-m`` asks for."""

    jobs: list[list[str]]  # the words of each, in Hydra's order
    swept: list[str]  # the keys that differ between jobs
    searches: bool  # a sweeper that chooses the next values itself: the jobs are the ends of its intervals
    added: list[str]  # words of ours for Hydra


def expand(argv: Sequence[str], name: str = "train") -> list[list[str]]:
    """The words of every job of a sweep, in the order in which Hydra runs them."""
    with composer(name) as composing:
        return plan(argv, composing).jobs


def plan(argv: Sequence[str], composing: Composer) -> Sweep:
    """The jobs of a sweep, expanded as Hydra's own sweeper does.

    For a sweeper that searches, one value at a time goes through both ends of its interval or all of its choices, and
    the others stay at their first.

    Raises:
        ConfigError: With a line for every word that the sweeper cannot use.
    """
    parsed = list(zip(words.parse(argv), argv, strict=True))
    hydras = [(override, word) for override, word in parsed if override.key_or_group.startswith("hydra")]
    several = [word for override, word in hydras if override.is_sweep_override()]
    problems = [f"{word}: Hydra's own settings are the same for all jobs{_quoted(word)}" for word in several]
    problems += [problem for o, _ in hydras if (problem := words.plugin_problem(o))]
    if problems:
        raise ConfigError("\n".join(problems))
    own = [word for _, word in hydras]
    single = [(override, word) for override, word in parsed if not override.is_sweep_override() and word not in own]
    fixed = [word for override, word in single if composing.is_good_choice(override)]
    settings = composing.settings(own + fixed)
    searches = settings.sweeper._target_ != BASIC_SWEEPER
    in_file = [f"{key}={value}" for key, value in (settings.sweeper.get("params") or {}).items()]
    values, swept = _values([*in_file, *(word for _, word in parsed if word not in own)], composing, searches)
    jobs = [own + list(job) for job in (_one_at_a_time(values) if searches else itertools.product(*values))]
    alone = not searches and settings.launcher._target_ == BASIC_LAUNCHER and settings.sweeper.max_batch_size is None
    # All jobs are checked here: let Hydra compose each when its turn comes, in place of all before the first.
    return Sweep(jobs, swept, searches, ["hydra.sweeper.max_batch_size=1"] if alone else [])


def _quoted(word: str) -> str:
    key, _, value = word.partition("=")
    return f"; for the value as it stands write {words.as_it_stands(key, value)}"


def _values(argv: Sequence[str], composing: Composer, searches: bool) -> tuple[list[list[str]], list[str]]:
    """``key=value`` words for every key, the last word for a key counting; the keys that have several."""
    found: dict[str, list[str]] = {}
    swept: dict[str, bool] = {}
    problems: list[str] = []
    for override, word in zip(words.parse(argv), argv, strict=True):
        key = override.get_key_element()
        if searches and override.is_sweep_override() and swept.get(key) is False:
            continue  # this sweeper keeps what is given, wherever it stands
        swept[key] = override.is_sweep_override()
        try:
            found[key] = _ends(override, word) if searches else _list(override, word, composing)
        except ConfigError as error:
            problems.append(str(error))
    count = 1
    for values in found.values():
        count *= len(values)
    if count > LARGEST and not searches:
        fix = "give fewer values, or search with hydra/sweeper=optuna"
        problems.append(f"a sweep of {count} jobs, more than {LARGEST}; {fix}")
    if problems:
        raise ConfigError("\n".join(problems))
    return list(found.values()), [key for key in found if swept[key]]


def _one_at_a_time(values: list[list[str]]) -> Iterable[list[str]]:
    first = [words[0] for words in values]
    yield first
    for place, choices in enumerate(values):
        for choice in choices[1:]:
            yield [*first[:place], choice, *first[place + 1 :]]


def _list(override: Override, word: str, composing: Composer) -> list[str]:
    """What the basic sweeper makes of a word: one word for each value."""
    if not override.is_sweep_override():
        return [word]
    value = override.value()
    if isinstance(value, IntervalSweep):
        raise ConfigError(
            f"{word}: an interval is searched, it has no list of values; add hydra/sweeper=optuna, or write "
            "range(START,STOP,STEP) or choice(A,B,...)"
        )
    if isinstance(override._value, Glob):
        return _globbed(override, override._value, word, composing)
    found = _enumerated(override, word)
    if not found:
        raise ConfigError(f"{word}: there is no value in it")
    return found


def _enumerated(override: Override, word: str) -> list[str]:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, RangeSweep) and _steps(value, word) > LARGEST:
        raise ConfigError(f"{word}: {math.ceil(_steps(value, word))} values, more than {LARGEST}; give a larger step")
    nested = isinstance(value, ChoiceSweep) and any(isinstance(item, (ChoiceSweep, RangeSweep)) for item in value.list)
    if nested or (isinstance(value, ChoiceSweep) and any(isinstance(item, IntervalSweep) for item in value.list)):
        raise ConfigError(f"{word}: a choice holds values, not another choice, range or interval")
    return [f"{key}={text}" for text in override.sweep_string_iterator()]


def _steps(value: RangeSweep, word: str) -> float:
    """How many steps lie between the ends of a range."""
    assert value.start is not None and value.stop is not None
    if not value.step:
        raise ConfigError(f"{word}: a step of 0 never arrives")
    return (value.stop - value.start) / value.step


def _globbed(override: Override, value: Glob, word: str, composing: Composer) -> list[str]:
    group = override.key_or_group
    if group not in composing.groups:
        raise ConfigError(f"{word}: glob() chooses among the files of a group, and {group} is none")
    options = composing.names(group)
    found = value.filter(options)
    if not found:
        raise ConfigError(f"{word}: no {group} has such a name; there are: {', '.join(options)}")
    return [f"{override.get_key_element()}={option}" for option in found]


def _ends(override: Override, word: str) -> list[str]:
    """What a searching sweeper may choose: both ends of an interval or a range, or every choice."""
    if not override.is_sweep_override():
        return [word]
    key, value = override.get_key_element(), override.value()
    if isinstance(override._value, Glob):
        raise ConfigError(f"{word}: this sweeper takes no glob(); write the names, {key}=choice(A,B,...)")
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None and high is not None
        if not low < high:
            raise ConfigError(f"{word}: the interval ends before it begins; write interval({high:g},{low:g})")
        if "log" in value.tags and low <= 0:
            raise ConfigError(f"{word}: on a logarithmic scale an interval begins above 0")
        return [f"{key}={low}", f"{key}={high}"]
    if isinstance(value, RangeSweep) and not value.shuffle:
        steps = _steps(value, word)
        if value.step < 0 or steps < 0:
            wanted = "range(START,STOP,STEP) with START below STOP and STEP above 0"
            raise ConfigError(f"{word}: this sweeper wants {wanted}")
        assert value.start is not None
        last = value.start + math.floor(steps + 1e-9) * value.step  # this sweeper includes the end
        return [f"{key}={value.start}", f"{key}={last}"]
    return _enumerated(override, word)


def check(sweep: Sweep, composing: Composer, judge: Judge) -> None:
    """Judge every job of a sweep.

    Args:
        judge: Takes a job's configuration, and the same resolved in plain containers where that is known already;
            raises :class:`ConfigError` with a line for every problem.

    Raises:
        ConfigError: With every problem of every job, each once, and the jobs that have it unless all of them do.
    """
    found: dict[str, list[int]] = {}
    families: dict[Any, Family] = {}
    for number, job in enumerate(sweep.jobs):
        try:
            _judge(job, composing, families, judge)
        except ConfigError as error:
            for line in _problems(str(error)):
                found.setdefault(line, []).append(number)
    if found:
        raise ConfigError("\n".join(f"{line}{_jobs(numbers, sweep)}" for line, numbers in found.items()))


def _judge(job: list[str], composing: Composer, families: dict[Any, Family], judge: Judge) -> None:
    overrides = words.parse(job)
    values = [override for override in overrides if not composing.is_choice(override)]
    choices = tuple(word for word, override in zip(job, overrides, strict=True) if composing.is_choice(override))
    kind = (choices, tuple(override.get_key_element() for override in values))
    try:
        member = families[kind].member(values) if kind in families else None
    except OmegaConfBaseException:
        member = None  # told by the check of the whole configuration
    if member is not None:
        judge(*member)
        return
    cfg = composing.load(job)
    try:
        judge(cfg, None)
    finally:
        if kind not in families:
            with contextlib.suppress(OmegaConfBaseException):  # told by the check
                families[kind] = Family(cfg, values)


def _problems(text: str) -> list[str]:
    """The problems of a message: one a line, a line that is indented belonging to the one before."""
    return re.split(r"\n(?! )", text)


def _jobs(numbers: list[int], sweep: Sweep) -> str:
    if len(numbers) == len(sweep.jobs):
        return ""
    first = f"#{numbers[0]} {named(sweep.jobs[numbers[0]], sweep.swept)}".rstrip()
    if len(numbers) == 1:
        return f" (job {first})"
    return f" ({len(numbers)} of {len(sweep.jobs)} jobs, the first is {first})"


def named(job: Iterable[str], swept: Iterable[str]) -> str:
    """The words of a job in which it differs from others."""
    return " ".join(word for word in job if word.partition("=")[0] in set(swept))


def objective_of(numbers: dict[str, Any], wanted: str | None) -> float | None:
    """The number by which a sweeper judges a run.

    Args:
        numbers: What ``summary.json`` holds.
        wanted: The name of one of them; None takes the probe's accuracy, else that of kNN.

    Returns:
        The number; None where ``wanted`` is None and the run measured neither.

    Raises:
        ConfigError: If there is no number called ``wanted``.
    """
    there = {key: float(value) for key, value in numbers.items() if type(value) in (int, float)}
    if wanted is None:
        return next((there[key] for key in OBJECTIVES if key in there), None)
    if wanted not in there:
        raise ConfigError(f"objective={wanted}: the run's summary.json has no such number; {nearest(wanted, there)}")
    return there[wanted]
