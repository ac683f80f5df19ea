"""Sweeps as a user types them: the jobs, their check, searches with Optuna, jobs that fail here and elsewhere."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ssl_zoo import build, cli, composing, config, jobs, sweeps, words
from ssl_zoo.errors import ConfigError
from ssl_zoo.family import Family
from tests.cli.test_runs import TINY, run, train

MOCO = ["method=moco_v2", "batch_norm.group=4", "trainer.max_epochs=1"]  # whose queue has to fit the batch
SIZE = "queue size 100 is not a multiple of the 8 rows"


SEARCHED = (
    "an interval is searched, it has no list of values; add hydra/sweeper=optuna, or write range(START,STOP,STEP) or "
    "choice(A,B,...)"
)


def refused(*argv: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        sweeps.expand(list(argv))
    return str(caught.value).splitlines()


@pytest.mark.parametrize("argv", [
    ["method=simclr,byol", "seed=0,1", "data=digits"],
    ["seed=range(0,6,2)", "evaluate_every=range(3)",
     "method.temperature=range(0.1,0.4,0.1)"],
    ["method=glob(moco_*,exclude=moco_v1)", "seed=sort(3,1,2)", "seed=tag(a,choice(4,5))"],
    ["method=choice(byol,simclr)", "report=choice(true,false)", "data.root='a,b',c",
     "seed=sort(range(3),reverse=true)"],
    ["+new=1,2", "~recipe.source", "method.projector.hidden=[1],[2,3]", "seed=3"],
])  # fmt: skip
def test_the_jobs_are_those_of_hydras_own_sweeper(argv: list[str]) -> None:
    with composing.composer() as composer:
        parsed = OverridesParser.create(composer.loader).parse_overrides(argv)
        (wanted,) = BasicSweeper.split_arguments(parsed, None)
        found = sweeps.plan(argv, composer).jobs
    say = OverridesParser.create().parse_overrides
    assert [[(o.get_key_element(), o.value()) for o in say(job)] for job in found] == [
        [(o.get_key_element(), o.value()) for o in say(job)] for job in wanted
    ]


def test_shuffled_values_are_the_same_values() -> None:
    assert sorted(sweeps.expand(["seed=shuffle(range(5))"])) == [[f"seed={i}"] for i in range(5)]
    assert sorted(sweeps.expand(["seed=shuffle(4,3)"])) == [["seed=3"], ["seed=4"]]


@pytest.mark.parametrize("word, told", [
    ("seed=interval(0.1,1)", SEARCHED),
    ("seed=tag(log,interval(1,2))", SEARCHED),
    ("seed=glob(*)", "glob() chooses among the files of a group, and seed is none"),
    ("trainer=glob(x*)", "no trainer has such a name; there are: auto, cpu, ddp, fsdp, gpu"),
    ("seed=range(3,1)", "there is no value in it"),
    ("seed=range(1,3,0)", "a step of 0 never arrives"),
    ("seed=range(0,1000000)", "1000000 values, more than 100000; give a larger step"),
    ("seed=choice(choice(1,2),3)", "a choice holds values, not another choice, range or interval"),
    ("hydra.run.dir=a,b", "Hydra's own settings are the same for all jobs; for the value as it stands write "
     "'hydra.run.dir=\"a,b\"'"),
])  # fmt: skip
def test_what_a_list_of_jobs_cannot_be_made_of(word: str, told: str) -> None:
    assert refused(word) == [f"{word}: {told}"]


def test_a_sweep_that_is_too_large() -> None:
    wanted = "a sweep of 1000000 jobs, more than 100000; give fewer values, or search with hydra/sweeper=optuna"
    assert refused("seed=range(0,1000)", "evaluate_every=range(0,1000)") == [wanted]


def test_parameters_in_a_file_are_part_of_the_sweep() -> None:
    found = sweeps.expand(["experiment=byol_bn_ablation_tiny", "data.root=/x"])
    assert len(found) == 9 and len({tuple(job) for job in found}) == 9


PLUGINS = ("hydra/sweeper=optuna", "hydra/launcher=submitit_local")
NO_OPTUNA, NO_SUBMITIT = (bool(words._missing(choice)) for choice in PLUGINS)
optuna = pytest.mark.skipif(NO_OPTUNA, reason="needs the extra optuna")
submitit = pytest.mark.skipif(NO_SUBMITIT, reason="needs the extra slurm")
SEARCH = "hydra/sweeper=search"


@optuna
def test_a_search_is_checked_at_the_ends_of_each_interval_and_at_every_choice() -> None:
    argv = ["method.temperature=tag(log,interval(0.1,1))", "seed=range(1,10,4)", "method=choice(simclr,byol,dcl)"]
    assert [job[1:] for job in sweeps.expand([SEARCH, *argv])] == [
        ["method.temperature=0.1", "seed=1", "method=simclr"],
        ["method.temperature=1.0", "seed=1", "method=simclr"],
        ["method.temperature=0.1", "seed=9", "method=simclr"],
        ["method.temperature=0.1", "seed=1", "method=byol"],
        ["method.temperature=0.1", "seed=1", "method=dcl"],
    ]


@optuna
@pytest.mark.parametrize("word, told", [
    ("method=glob(*)", "this sweeper takes no glob(); write the names, method=choice(A,B,...)"),
    ("seed=interval(3,1)", "the interval ends before it begins; write interval(1,3)"),
    ("seed=tag(log,interval(0,1))", "on a logarithmic scale an interval begins above 0"),
    ("seed=range(3,1)", "this sweeper wants range(START,STOP,STEP) with START below STOP and STEP above 0"),
])  # fmt: skip
def test_what_cannot_be_searched(word: str, told: str) -> None:
    assert refused(SEARCH, word) == [f"{word}: {told}"]


def judged(*argv: str) -> list[str]:
    with composing.composer() as composer, pytest.raises(ConfigError) as caught:
        sweeps.check(sweeps.plan(list(argv), composer), composer, cli._check_training)
    return str(caught.value).splitlines()


def test_every_problem_of_every_job_is_told_once_with_the_jobs_that_have_it() -> None:
    assert judged("method=simclr,byol", "method.temperature=0.1,-1", "seed=1,2", "trainer.compile=graph") == [
        "trainer.compile=graph: wanted false, true, or graphs (4 of 8 jobs, the first is #0 method=simclr "
        "method.temperature=0.1 seed=1)",
        "method.temperature: method has no 'temperature'; there are: " + judged("method=byol", "method.t=1,2")[0]
        .partition("there are: ")[2] + " (4 of 8 jobs, the first is #4 method=byol method.temperature=0.1 seed=1)",
    ]
    assert judged("method=simclr,bylo", "seed=1") == [
        "method=bylo: there is no such method; did you mean 'byol'? (job #1 method=bylo)"
    ]
    assert judged("method=bylo", "seed=1,2") == ["method=bylo: there is no such method; did you mean 'byol'?"]
    assert judged("method.temperature=0.1,-1,0.2,-2") == [
        "method.temperature=-1: SimCLR wants a number above 0 (job #1 method.temperature=-1)",
        "method.temperature=-2: SimCLR wants a number above 0 (job #3 method.temperature=-2)",
    ]


@pytest.mark.slow
def test_the_members_of_a_family_are_what_hydra_composes() -> None:
    keys = {
        "seed": ["1", "2", "null"],
        "optimizer.values.lr.peak": ["0.1", "7", "0.1"],
        "data.image_size": ["16", "24"],
        "trainer.max_epochs": ["3", "5"],
        "data.root": ["x", "'${seed}'", "y"],
        "scale.stem": ["small", "standard"],
    }
    made = 0
    with composing.composer() as composer:
        families: list[Family] = []
        for values in itertools.product(*keys.values()):
            job = ["data=synthetic", *(f"{key}={value}" for key, value in zip(keys, values, strict=True))]
            overrides = [o for o in words.parse(job) if not composer.is_choice(o)]
            cfg = composer.load(job)
            families = families or [Family(cfg, overrides)]
            member = families[0].member(overrides)
            if member is not None:
                made += 1
                assert member[0] == composer.load(job)
                assert member[1] == OmegaConf.to_container(composer.load(job), resolve=True)
    assert made == 144 == math.prod(map(len, keys.values())) * 2 // 3  # a value that is a reference goes the long way


@pytest.mark.slow
def test_a_large_sweep_shares_what_its_jobs_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    compose = composing._compose
    loaded: list[list[str]] = []
    load = composing.Composer.load
    judged: list[int] = []

    def counted_compose(name: str, overrides: list[str], hydra: bool = False):
        composed.append(overrides)
        return compose(name, overrides, hydra)

    def counted_load(self: composing.Composer, argv: list[str]):
        loaded.append(argv)
        return load(self, argv)

    monkeypatch.setattr(composing, "_compose", counted_compose)
    monkeypatch.setattr(composing.Composer, "load", counted_load)
    with composing.composer() as composer:
        sweep = sweeps.plan([*TINY, "method=simclr,byol", "seed=range(0,500)"], composer)

        def judge(cfg, resolved) -> None:
            judged.append(cfg.seed)
            cli._check_training(cfg, resolved)

        sweeps.check(sweep, composer, judge)
    assert judged == [*range(500), *range(500)]
    assert len(composed) == 3 and len(loaded) == 2  # for Hydra's own settings, and once for each method
    assert sweep.added == ["hydra.sweeper.max_batch_size=1"]  # or Hydra composes all of them before the first


def test_a_resolved_configuration_is_judged_as_the_configuration_itself() -> None:
    cfg = config.load([*TINY, "method.temperature=-1", "trainer.log_every=0"])
    told = []
    for resolved in (None, config.plain(cfg)):
        with pytest.raises(ConfigError) as caught:
            build.check_signatures(cfg, resolved)
        told.append(str(caught.value))
    assert told[0] == told[1] and len(told[0].splitlines()) == 2


def test_the_objective_is_a_number_of_the_summary() -> None:
    numbers = {"probe/top1": 31, "knn/top1": 50.5, "train/loss": 2.0, "report": "made", "pixels": {"knn": 3}, "x": True}
    assert sweeps.objective_of(numbers, None) == 31.0
    assert sweeps.objective_of({"knn/top1": 50.5}, None) == 50.5
    assert sweeps.objective_of({"train/loss": 2.0}, None) is None
    assert sweeps.objective_of(numbers, "train/loss") == 2.0
    with pytest.raises(ConfigError) as caught:
        sweeps.objective_of(numbers, "xyz")
    assert str(caught.value) == (
        "objective=xyz: the run's summary.json has no such number; there are: knn/top1, probe/top1, train/loss"
    )


def test_the_line_about_failed_jobs() -> None:
    sweep = sweeps.Sweep([["seed=1"], ["seed=2"], ["seed=3"], ["seed=4"]], ["seed"], False, [])
    hows = ((0, ""), (1, "bad"), (1, "bad"))
    ended = [jobs.Ended(i, [f"seed={i}", "data=digits"], status, reason) for i, (status, reason) in enumerate(hows)]
    wanted = "2 of 4 jobs failed: #1 (seed=1), #2 (seed=2): bad; 1 did not run to their end"
    assert jobs.failures(ended, sweep) == wanted
    assert jobs.failures(ended[:1], sweep) is None


@pytest.mark.parametrize("argv", [
    ["--method=byol"], ["method", "byol"], ["-m", "seed=interval(1,2)"], ["-m", "method=glob(zz)"],
    ["hydra/sweeper=nevergrad", "-m", "seed=1,2"], ["data.root=/a(b)"], ["-m", "seed=1,x", "method.temperature=-1,0.1"],
])  # fmt: skip
def test_wrong_words_leave_no_folder(argv: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.train([*TINY, *argv]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_other_jobs_run_and_a_line_says_which_failed(tmp_path: Path) -> None:
    done = train("-m", *MOCO, "method.queue_size=16,100", "seed=1,2", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    start = "error: 2 of 4 jobs failed: #2 (method.queue_size=100 seed=1), #3 (method.queue_size=100 seed=2): "
    assert last.startswith(start) and SIZE in last
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 2


@pytest.mark.slow
def test_a_signal_ends_the_sweep(tmp_path: Path) -> None:
    kill = "+callbacks.kill={_target_: tests.cli.kill.Kill, step: 3, signal_name: SIGTERM}"
    done = train("-m", "seed=1,2", kill, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 143
    wanted = "error: 1 of 2 jobs failed: #0 (seed=1): exit status 143; 1 did not run to their end"
    assert done.stderr.splitlines()[-1] == wanted
    assert [path.name[0] for path in (tmp_path / "sweep").iterdir() if path.is_dir()] == ["0"]


@submitit
@pytest.mark.slow
def test_a_job_that_fails_elsewhere(tmp_path: Path) -> None:
    argv = ["-m", *MOCO, "method.queue_size=16,100", "hydra.sweep.dir=sweep", "hydra/launcher=submitit_local"]
    done = train(*argv, cwd=tmp_path)
    assert done.returncode == 1
    (last,) = done.stderr.splitlines()
    assert last.startswith("error: 1 of 2 jobs failed: #1 (method.queue_size=100): method: ") and SIZE in last
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 1
    assert not list((tmp_path / "sweep").glob(".jobs-*"))


@optuna
@pytest.mark.slow
def test_a_search_over_runs_of_two_processes_with_a_trial_that_fails(tmp_path: Path) -> None:
    argv = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=2", *MOCO]
    argv += ["method.queue_size=choice(16,100)", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = train(*argv, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 2 jobs failed: ") and "(method.queue_size=100): " in last and SIZE in last
    (summary,) = (tmp_path / "sweep").glob("*/summary.json")
    result = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    wanted = json.loads(summary.read_text())["probe/top1"]
    assert result["best_params"] == {"method.queue_size": 16} and result["best_value"] == pytest.approx(wanted)


@optuna
@pytest.mark.slow
def test_a_search_without_its_objective_fails_with_one_line(tmp_path: Path) -> None:
    argv = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    done = train(*argv, "seed=choice(1,2)", "objective=train/los", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "objective=train/los: the run's summary.json has no such number" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_run_folder_of_any_name(tmp_path: Path) -> None:
    name = "a(b)=x, it's"
    done = run("train.py", *TINY, "trainer.max_epochs=1", f'hydra.run.dir="{name}"', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "summary.json").is_file()
