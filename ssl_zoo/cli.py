"""The command line: ``train.py``, ``evaluate.py`` and ``ssl-zoo``.

Everything is checked before Hydra makes a folder: names and folders first, without importing torch; then signatures.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import composing, config, jobs, ranks, sweeps, tracking, words
from ssl_zoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from ssl_zoo.rendezvous import Meeting

COMMANDS = {
    "train": "train a method: ssl-zoo train method=byol data=cifar10",
    "evaluate": "judge a checkpoint: ssl-zoo evaluate checkpoint=RUN protocol=knn",
    "pseudo-label": "guess classes of unlabelled samples: ssl-zoo pseudo-label checkpoint=RUN out=FILE",
    "methods": "list the methods by their choices: ssl-zoo methods [NAME [diff=OTHER]] [negatives=false] [labels=true] "
    "[stage=NAME] [modality=NAME] [out=PAGE.md]",
    "experiments": "list the runs of known recipes: ssl-zoo experiments [NAME] [out=PAGE.md]",
    "preview": "draw what a method sees: ssl-zoo preview augmentation=byol data=cifar10",
    "export": "take the encoder away: ssl-zoo export run=RUN format=torchvision",
    "report": "draw what a run has learnt, or a sweep shows: ssl-zoo report attention|reconstruction|EXPERIMENT RUN",
    "bench": "time it beside other libraries: ssl-zoo bench [NAME ...] [quick=true] [out=bench.json] [root=DIR]",
    "doctor": "examine machine, cluster and data: ssl-zoo doctor [data=NAME data.root=DIR] [out=FOLDER]",
    "pack": "put a data set into one file: ssl-zoo pack data=folder data.root=DIR out=FILE.pack",
}
FULL_ERROR = "HYDRA_FULL_ERROR"
INTERRUPTED = 130
# ssl-zoo report NAME RUN [key=value ...]: draws for a run folder or a checkpoint and returns the path of the picture.
REPORTS = {
    "attention": "ssl_zoo.report.attention.attention",
    "reconstruction": "ssl_zoo.report.reconstruction.reconstruction",
}
STUDY = "ssl_zoo.report.study.command.report"  # of a sweep of an experiment that says what it measures


def train(argv: Sequence[str] | None = None) -> int:
    """``python train.py``: check, then train; exit status 0, 1 for a wrong input, 143 after SIGTERM."""
    given = list(sys.argv[1:] if argv is None else argv)

    def command(meeting: Meeting | None = None) -> int:
        check = partial(_check_training, meeting=meeting)
        return _with_hydra("train", partial(_train_job, meeting=meeting), given, check)

    try:
        found = ranks.find(os.environ)
        if found is not None:
            from ssl_zoo import started

            return started.run(found, given, command)
        if ranks.is_node_of_several(os.environ):
            from ssl_zoo import by_hand

            status = by_hand.train(given)
            if status is not None:
                return status
    except ConfigError as error:
        return _fail(error)
    return command()


def evaluate(argv: Sequence[str] | None = None) -> int:
    """``python evaluate.py``."""
    given = list(sys.argv[1:] if argv is None else argv)

    def command(meeting: Meeting | None = None) -> int:
        return _with_hydra("evaluate", partial(_evaluate_job, meeting=meeting), given, lambda *_: None)

    try:
        found = ranks.find(os.environ)
    except ConfigError as error:
        return _fail(error)
    if found is None:
        return command()
    from ssl_zoo import started
    from ssl_zoo.evaluation.ranks import follow

    return started.run(found, given, command, follow)


def entry(argv: Sequence[str] | None = None) -> int:
    """``ssl-zoo COMMAND ...``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h"):
        print("ssl-zoo COMMAND [key=value ...]\n" + "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items()))
        return 0
    if command not in COMMANDS:
        return _fail(ConfigError(f"ssl-zoo {command}: no such command; {nearest(command, COMMANDS)}"))
    hydras: dict[str, Callable[[list[str]], int]] = {"train": train, "evaluate": evaluate}  # with its own --help
    own: dict[str, Callable[[list[str]], int]] = {
        "pseudo-label": _pseudo_label,
        "methods": _methods,
        "experiments": _experiments,
        "preview": _preview,
        "export": _export,
        "report": _report,
        "bench": _bench,
        "doctor": _doctor,
        "pack": _pack,
    }
    try:
        if command in own and {"--help", "-h"} & set(arguments):
            print(COMMANDS[command])
            return 0
        return (hydras | own)[command](arguments[1:])
    except ConfigError as error:
        return _fail(error)


def _fail(error: ConfigError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _with_hydra(name: str, function: jobs.Function, argv: list[str], judge: sweeps.Judge) -> int:
    sweep = None
    try:
        options, overrides = words.split(argv)
        if not any(word.partition("=")[0] in words.ASKS for word in options):
            given = [*words.search_path(options), *overrides]
            with composing.composer(name) as composer:
                if words.are_several(options, overrides):
                    sweep = sweeps.plan(given, composer)
                    sweeps.check(sweep, composer, judge)
                    overrides += sweep.added
                else:
                    judge(composer.load(given), None)
                overrides = composer.at_scale(overrides)
    except ConfigError as error:
        return _fail(error)
    job = jobs.Job(function)
    status, problem = _run_hydra(name, job, [*options, *overrides])
    ended = job.gather()
    failed = jobs.failures(ended, sweep) if sweep else None
    for line in (problem, failed):
        if line and not (line == problem and failed and jobs.all_failed(ended)):  # the jobs say why
            print(f"error: {line}", file=sys.stderr)
    statuses = [one.status for one in ended]
    if sweep and sweep.searches and 0 in statuses:
        return status  # a trial that failed is a result of the search
    return max([status, *statuses])


def _run_hydra(name: str, job: jobs.Job, argv: list[str]) -> tuple[int, str | None]:
    """Hand over to Hydra.

    Returns:
        The exit status of what went wrong outside of the jobs, and what it was; 0 and None, where nothing did.
    """
    held, full = sys.argv, os.environ.get(FULL_ERROR)
    sys.argv = [f"{name}.py", *argv]
    os.environ[FULL_ERROR] = "1"  # Hydra raises then, in place of printing a traceback and ending the process
    try:
        hydra.main(version_base="1.3", config_path="pkg://ssl_zoo.conf", config_name=name)(job)()
    except jobs.Stopped:
        return 0, None  # the job has said so
    except KeyboardInterrupt:
        return INTERRUPTED, "stopped by SIGINT"
    except Exception as error:
        if full == "1":
            traceback.print_exc()
        return 1, composing.told(error)
    finally:
        sys.argv = held
        os.environ.pop(FULL_ERROR)
        if full is not None:
            os.environ[FULL_ERROR] = full
    return 0, None


def _check_training(cfg: DictConfig, resolved: dict[str, Any] | None = None, meeting: Meeting | None = None) -> None:
    if meeting is not None:
        from ssl_zoo import started

        started.fit(cfg, meeting)
    if cfg.run_dir is not None:
        raise ConfigError(
            f"run_dir={cfg.run_dir}: it is filled in when the run starts; choose the folder with "
            f"{words.setting('hydra.run.dir', cfg.run_dir)}"
        )
    config.quick_check(cfg, resolved)
    tracking.check(cfg)
    from ssl_zoo import build, by_hand

    build.check_signatures(cfg, resolved)
    if meeting is None:
        by_hand.check(cfg)


def _train_job(cfg: DictConfig, meeting: Meeting | None = None) -> tuple[int, float | None]:
    from ssl_zoo import training

    return training.train(cfg, meeting)


def _evaluate_job(cfg: DictConfig, meeting: Meeting | None = None) -> tuple[int, None]:
    from ssl_zoo.callbacks.checkpoint import Terminated
    from ssl_zoo.evaluation.ranks import evaluate

    try:
        return evaluate(cfg, meeting), None
    except Terminated as error:  # a protocol that trains
        print(error, file=sys.stderr)
        return error.status, None


def _pseudo_label(argv: list[str]) -> int:
    """``evaluate.py protocol=pseudo_labels`` with the protocol's own keys as plain words."""
    own = config.load(["protocol=pseudo_labels"], "evaluate").protocol
    words = [f"protocol.{word}" if word.partition("=")[0] in own else word for word in argv]
    return evaluate(["protocol=pseudo_labels", *words])


def _preview(argv: list[str]) -> int:
    from ssl_zoo.report.views import preview

    cfg = config.load(argv)
    _check_training(cfg)
    print(preview(cfg))
    return 0


def _export(argv: list[str]) -> int:
    from ssl_zoo.export import export

    given = dict(word.partition("=")[::2] for word in argv)
    known = ("run", "format", "out", "trust")
    unknown = [key for key in given if key not in known]
    if unknown or "run" not in given:
        hint = nearest(unknown[0], known) if unknown else "run=RUN_FOLDER is missing"
        raise ConfigError(
            f"ssl-zoo export run=RUN format=torchvision|timm|safetensors [out=FILE] [trust=[PACKAGE]]: {hint}"
        )
    trust = [name for name in given.get("trust", "").strip("[]").split(",") if name]
    print(export(given["run"], given.get("format", "safetensors"), given.get("out"), trust))
    return 0


def _pack(argv: list[str]) -> int:
    from ssl_zoo.data.image import pack

    if not argv:
        print(pack.HELP)
        return 0
    options, overrides = pack.parse(argv)
    cfg = config.load(overrides)
    _check_training(cfg)
    data = cfg.data
    if "image_size" not in data:
        raise ConfigError(f"ssl-zoo pack writes images, and data._target_={data._target_} has none")
    splits = hydra.utils.instantiate(data.source)(
        root=data.root, download=data.download, image_size=data.image_size, channels=data.channels
    )
    for line in getattr(splits.train, "decisions", ()):
        print(line)
    if options.chunk is not None:
        from ssl_zoo.data.image.stream import write_splits

        write_splits(splits, options.out, options.chunk)
        use = words.setting("data.root", options.out)
        print(f"{options.out}: use it with data=stream {use}, or the URL it is copied to")
        return 0
    print(pack.pack(splits, options, data.source._target_, data.root, pack.Progress()))
    return 0


def _report(argv: list[str]) -> int:
    """``NAME RUN [key=value ...]``; the folder of a run may have an equals sign in its name."""
    from ssl_zoo.report.study import declared
    from ssl_zoo.signatures import argument_problems, locate

    usage = f"ssl-zoo report {'|'.join(REPORTS)}|EXPERIMENT RUN [key=value ...]"
    name = argv[0] if argv else ""
    studies = [] if name in REPORTS else declared.names()
    if name not in (*REPORTS, *studies):
        raise ConfigError(f"{usage}: which picture? {nearest(name, [*REPORTS, *studies])}")
    if len(argv) < 2:
        raise ConfigError(f"{usage}: RUN is missing, a run folder or a checkpoint; of an experiment, a sweep's folder")
    draw = locate(REPORTS.get(name, STUDY))
    given = OmegaConf.to_container(OmegaConf.from_dotlist(argv[2:]))
    assert isinstance(given, dict)
    options = {"run": argv[1], **{str(key): value for key, value in given.items()}}
    if name in studies:
        options["name"] = name
    wrong = list(argument_problems(draw, options, f"report {name}", partial=False))
    if wrong:
        raise ConfigError("\n".join(wrong))
    print(draw(**options))
    return 0


def _bench(argv: list[str]) -> int:
    from ssl_zoo.benchmarks.suite import main

    return main(argv)


def _doctor(argv: list[str]) -> int:
    from ssl_zoo.doctor.command import main

    return main(argv)


def _methods(argv: list[str]) -> int:
    from ssl_zoo.report import methods

    return methods.main(argv)


def _experiments(argv: list[str]) -> int:
    """``[NAME]`` prints what there is; ``out=PAGE.md`` renews the tables of that page of the documentation."""
    from ssl_zoo.report import experiments, pages

    named = [word for word in argv if not word.startswith("out=")]
    if len(argv) > 1 or "=" in "".join(named):
        raise ConfigError(f"ssl-zoo experiments {' '.join(argv)}: wanted one word at most, a name or out=PAGE.md")
    if named or not argv:
        experiments.show(*named)
        return 0
    out = Path(argv[0].removeprefix("out="))
    pages.write(out, experiments.TABLES)
    print(out)
    return 0
