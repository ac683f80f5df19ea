"""What a user types, in a process of its own: exit status, words, files."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_zoo import cli
from tests import patience

ROOT = Path(__file__).parents[2]
TINY = [
    "data=synthetic", "data.source.samples=48", "data.source.val_samples=16", "data.image_size=16", "data.batch_size=8",
    "backbone.width=4", "method.projector.hidden=[8]", "method.projector.out_features=8", "trainer.max_epochs=2",
    "trainer.log_every=1", "trainer=cpu", "report=false", "logger=csv",
]  # fmt: skip


def run(script: str, *argv: str, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(ROOT / script), *argv]
    return patience.run(command, cwd=cwd, env=environment)


def train(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run("train.py", *TINY, *argv, cwd=cwd)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.rglob("last.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    state = {key: value for key, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)}
    probe = next(state for name, state in checkpoint["callbacks"].items() if name.startswith("OnlineProbe"))
    return {**state, **{f"probe {key}": v for key, v in flat(probe).items()}}


def flat(node: object, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(node, torch.Tensor):
        return {path: node}
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return {key: value for name, item in items for key, value in flat(item, f"{path}.{name}").items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_wrong_words_end_with_one_message_and_no_folder(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("train.py", "method=bylo", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: method=bylo: there is no such method; did you mean 'byol'?\n"
    assert list(tmp_path.iterdir()) == []
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of a core
    assert took < 8  # 4 s


@pytest.mark.parametrize(
    "command", ["methods", "experiments", "preview", "export", "report", "bench", "pack", "pseudo-label"]
)
def test_every_command_says_what_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.entry([command, "--help"]) == 0
    assert capsys.readouterr() == (f"{cli.COMMANDS[command]}\n", "")


def test_the_run_folder_is_hydras_to_choose(tmp_path: Path) -> None:
    done = train("run_dir=here", cwd=tmp_path)
    assert done.returncode == 1
    assert "run_dir=here: it is filled in when the run starts; choose the folder with hydra.run.dir=here" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_problem_found_while_building_leaves_no_folder(tmp_path: Path) -> None:
    done = train("method=moco_v2", "method.queue_size=100", "batch_norm.group=4", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "queue size 100 is not a multiple of the 8 rows" in done.stderr and "try 96" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "moco_v2"])
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, method: str, signal_name: str) -> None:
    own = [f"method={method}", "trainer.checkpoint_every=2", "trainer.accumulate=2"]
    own += ["method.queue_size=16", "batch_norm.group=2"] if method == "moco_v2" else []
    whole = train(*own, "hydra.run.dir=a/whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    cut = ["hydra.run.dir=b/cut", "resume=auto"]
    for step in (3, 6, 8):  # in the middle and at the end of an epoch, on and off a checkpoint
        kill = f"+callbacks.kill={{_target_: tests.cli.kill.Kill, step: {step}, signal_name: {signal_name}}}"
        done = train(*own, *cut, kill, cwd=tmp_path)
        assert done.returncode == (-9 if signal_name == "SIGKILL" else 143), done.stderr
    done = train(*own, *cut, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("a/whole", "b/cut")]
    for column in ("step", "epoch", "train/loss", "probe/top1", "knn/top1"):
        assert [row[column] for row in rows[0]] == [row[column] for row in rows[1]], column
    assert rows[0][0]["step"] == "0" and float(rows[0][0]["knn/top1"]) >= 0
    again = train(*own, *cut, cwd=tmp_path)
    assert again.returncode == 0 and "is finished already" in again.stdout


@pytest.mark.slow
def test_resume_never_continues_another_run(tmp_path: Path) -> None:
    assert train("hydra.run.dir=runs/a", "trainer.max_epochs=1", cwd=tmp_path).returncode == 0
    done = train("hydra.run.dir=runs/b", "resume=auto", "trainer.max_epochs=1", "seed=1", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "runs/b/checkpoints/last.ckpt").is_file()
    done = train("hydra.run.dir=runs/c", "resume=auto", "trainer.max_epochs=1", "seed=1", cwd=tmp_path)
    assert "runs/b is finished already" in done.stdout and not (tmp_path / "runs/c").exists()


@pytest.mark.slow
def test_the_observers_change_nothing(tmp_path: Path) -> None:
    states = []
    for callbacks in ("default", "none"):
        done = train(f"callbacks={callbacks}", f"hydra.run.dir={callbacks}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (file,) = (tmp_path / callbacks).rglob("last.ckpt")
        states.append(torch.load(file, weights_only=True)["state_dict"])
    assert_same(*states)


@pytest.mark.slow
def test_a_sweep_with_two_processes_each(tmp_path: Path) -> None:
    sweep = ["-m", "method=simclr,byol", "report=true", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = train(*sweep, "hydra.sweep.dir=sweep", "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sweep").rglob("last.ckpt"))) == 2
    assert len(list((tmp_path / "sweep").rglob("summary.json"))) == 2 and done.stdout.count("raw pixels") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    for name, extra in {"one": [], "two": ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]}.items():
        done = train(f"hydra.run.dir={name}", "trainer.precision=64-true", *extra, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key in one:
        if not key.startswith("probe"):
            torch.testing.assert_close(two[key], one[key], rtol=1e-7, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
def test_an_unlabelled_folder_trains_without_probes(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures/deep").mkdir(parents=True)
    for i in range(16):
        Image.new("RGB", (40 + i, 30), (i * 15, 100, 200)).save(tmp_path / f"pictures/deep/{i}.png")
    (tmp_path / "pictures/words.png").write_text("not a picture")
    argv = ["data=folder", "data.root=pictures", "data.image_size=16", "data.batch_size=8", "backbone.width=4"]
    argv += ["trainer.max_epochs=1", "trainer=cpu", "logger=csv", "hydra.run.dir=run", "data.workers=2"]
    done = run("train.py", *argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count("words.png") == 1, said
    assert "online_probe is off" in said
    assert (tmp_path / "run/views.png").is_file() and (tmp_path / "run/curves.png").is_file()


@pytest.mark.slow
def test_the_first_job_shows_what_labels_are_saved(tmp_path: Path) -> None:
    done = run("train.py", "experiment=digits_quick", "hydra.run.dir=run", "trainer=cpu", cwd=tmp_path)
    assert done.returncode == 0 and "few_labels.png" in done.stdout, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    trained, pixels = (summary[name] for name in ("SimCLR", "raw pixels"))
    gains = [trained["few_labels"][n]["mean"] - pixels["few_labels"][n]["mean"] for n in ("1", "5", "10")]
    # 24, 9 and 4 points with one thread; another number of threads rounds otherwise and ends near.
    assert gains[0] > 12 and gains[1] > 4 and gains[2] > 1 and trained["linear"] > pixels["linear"] - 0.5


@pytest.mark.parametrize("words, job", [
    ([], "train.py experiment=digits_quick"), (["ARGS=method=byol seed=1"], "train.py method=byol seed=1"),
])  # fmt: skip
def test_make_train_trains_the_first_job_or_what_is_given(words: list[str], job: str) -> None:
    done = patience.run(["make", "--dry-run", "train", *words], cwd=ROOT, env={**os.environ, "VIRTUAL_ENV": "/nowhere"})
    assert done.stdout.splitlines()[-1].endswith(job), done.stdout + done.stderr


@pytest.mark.slow
def test_train_evaluate_export(tmp_path: Path) -> None:
    assert train("hydra.run.dir=run", "backbone=resnet18", "~backbone.width", cwd=tmp_path).returncode == 1
    argv = [word for word in TINY if not word.startswith("backbone")]
    done = run("train.py", *argv, "backbone=resnet18", "hydra.run.dir=run", "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for protocol in ("knn", "linear"):
        done = run("evaluate.py", "checkpoint=run", f"protocol={protocol}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"run/evaluation/{protocol}.json").is_file()
    done = run("evaluate.py", "checkpoint=nowhere.ckpt", cwd=tmp_path)
    assert done.returncode == 1 and "nowhere.ckpt: there is no such file" in done.stderr
