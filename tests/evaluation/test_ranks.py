"""Evaluation by two processes: the numbers of one, said and written by the main one alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_zoo import cli, config, distributed
from ssl_zoo.evaluation.ranks import evaluate
from ssl_zoo.evaluation.run import run
from tests.cli.commands import run as command
from tests.cli.commands import start
from tests.evaluation.test_finetune import DATA, INFO
from tests.helpers import quickly
from tests.methods.test_crd import written
from tests.pool import GlooPool

OWN = ("seconds", "checkpoint", "settings")  # of a single evaluation


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    written(tmp_path / "last.ckpt", "supervised", INFO, DATA)
    return tmp_path / "last.ckpt"


def stay() -> bool:
    """Of the pool, which is needed again."""
    distributed.barrier()
    return distributed.is_main()


def judged(checkpoint: Path, *words: str) -> dict[str, Any] | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "leave", stay)
        patch.setattr("ssl_zoo.modules.kmeans.world_size", lambda: 1)  # rank 0 judges alone
        patch.setattr("ssl_zoo.modules.kmeans.rank", lambda: 0)
        patch.setattr("ssl_zoo.modules.kmeans.gather", lambda x: x)
        patch.setattr("ssl_zoo.modules.kmeans.all_reduce_sum_", lambda x: x)
        found = run(config.load([f"checkpoint={checkpoint}", "device=cpu", *words], "evaluate"))
    return found and {key: value for key, value in found.items() if key not in OWN}


PROTOCOLS = {
    "knn": ["protocol.by_class=true"],
    "linear": ["protocol.sweep=[0.1,0.01]"],
    "clustering": ["protocol.redo=2"],
    "retrieval": ["protocol.gallery=train"],
    "verification": ["protocol.most=500"],
    "classifier": [],
}


@pytest.mark.parametrize("protocol", quickly(list(PROTOCOLS), ["knn", "linear"]))
def test_two_processes_judge_as_one(protocol: str, checkpoint: Path, pool: GlooPool, tmp_path: Path) -> None:
    words = [f"protocol={protocol}", *PROTOCOLS[protocol], f"output={tmp_path}/out.json"]
    cache = "cache=false"
    one = judged(checkpoint, *words, cache)
    (tmp_path / "out.json").unlink()
    main, other = pool.run(judged, checkpoint, *words, cache)
    assert main == one and other is None
    assert json.loads((tmp_path / "out.json").read_text())["protocol"] == protocol


def test_what_two_processes_kept_one_reads_and_the_other_way_round(
    checkpoint: Path, pool: GlooPool, tmp_path: Path
) -> None:
    folder = tmp_path / "evaluation" / "features"
    first = pool.run(judged, checkpoint, "protocol=knn")[0]
    kept = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(kept) == 2  # of training and validation set
    assert judged(checkpoint, "protocol=knn") == first
    assert pool.run(judged, checkpoint, "protocol=linear")[0] == judged(checkpoint, "protocol=linear")
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == kept


def guessed(checkpoint: Path, out: Path) -> Any:
    """Where this rank would write its guesses: each has a name of its own, and one file is written."""
    words = ["protocol=pseudo_labels", f"protocol.out={out}.{distributed.rank()}", "protocol.confidence=0.2"]
    return judged(checkpoint, *words, "data.labels=0.25")


def test_the_main_process_writes_the_guesses(checkpoint: Path, pool: GlooPool, tmp_path: Path) -> None:
    guessed(checkpoint, tmp_path / "one")
    pool.run(guessed, checkpoint, tmp_path / "two")
    assert sorted(file.name for file in tmp_path.glob("*.[01]")) == ["one.0", "two.0"]
    one, two = load_file(tmp_path / "one.0"), load_file(tmp_path / "two.0")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def refused(checkpoint: Path) -> str:
    try:
        judged(checkpoint, "protocol=finetune")
    except Exception as error:
        return str(error)
    return "nothing"


def test_fine_tuning_by_ranks_is_refused(checkpoint: Path, pool: GlooPool) -> None:
    wanted = "devices=2: fine-tuning starts its processes itself; wanted devices=1 and protocol.trainer.devices=2"
    assert pool.run(refused, checkpoint) == [wanted] * 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["devices=0"], "devices=0: wanted a whole number of at least 1, or -1 for all GPUs"),
        (["devices=two"], "devices='two': wanted a whole number of at least 1, or -1 for all GPUs"),
        (["devices=2", "device=cuda:1"], "devices=2: device=cuda:1 is one; wanted device=auto, cpu or cuda with it"),
        (["dtype=half"], "dtype=half: there are: float16, float32"),
        (["protocol=classifier", "dtype=float16"], "dtype=float16 is for protocols on features, and classifier is"),
    ],
)
def test_wrong_words_are_told_before_a_process_is_started(
    words: list[str], told: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.evaluate([f"checkpoint={checkpoint}", *words]) == 1
    assert f"error: {told}" in capsys.readouterr().err


def test_all_gpus_of_a_machine_without_any_is_one_process(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evaluate(config.load([f"checkpoint={checkpoint}", "devices=-1", "protocol=classifier"], "evaluate")) == 0


def test_features_in_half_precision_say_nearly_the_same(checkpoint: Path, tmp_path: Path) -> None:
    half, whole = (judged(checkpoint, "protocol=linear", f"dtype={dtype}") for dtype in ("float16", "float32"))
    assert half and whole and half["top1"] == pytest.approx(whole["top1"], abs=1.0)
    sizes = sorted(file.stat().st_size for file in (tmp_path / "evaluation" / "features").iterdir())
    assert len(sizes) == 4  # both kinds of both sets


@pytest.mark.slow
def test_the_command_with_two_devices(checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", f"checkpoint={checkpoint}", "device=cpu", "protocol=knn"]
    one, two = (command(*words, f"devices={n}", f"output={n}.json", "cache=false", cwd=tmp_path) for n in (1, 2))
    assert (one.code, two.code) == (0, 0), two
    assert one.out.replace("1.json", "2.json") == two.out and two.err == one.err
    found = [json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2)]
    assert found[0]["top1_by_k"] == found[1]["top1_by_k"]


@pytest.mark.slow
def test_two_processes_that_a_launcher_has_started_are_one_command(checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", "device=cpu", "protocol=knn", "cache=false"]
    one = command(*words, f"checkpoint={checkpoint}", "output=one.json", cwd=tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    other = tmp_path / "elsewhere"
    other.mkdir()
    words += [f"checkpoint={checkpoint.name}", "output=two.json"]
    running = [
        start(*words, cwd=cwd, RANK=str(rank), LOCAL_RANK=str(rank), **meet)
        for rank, cwd in enumerate((tmp_path, other))
    ]
    main, second = (process.wait() for process in running)
    assert (one.code, main.code, second.code) == (0, 0, 0), (main, second)
    assert main.out == one.out.replace("one.json", "two.json") and (second.out, second.err) == ("", "")
    found = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    assert found[0]["top1_by_k"] == found[1]["top1_by_k"]


@pytest.mark.slow
def test_what_ranks_find_wrong_is_told_once(checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", f"checkpoint={checkpoint}", "device=cpu", "devices=2", "cache=false"]
    done = command(*words, "data.labels=2.0", cwd=tmp_path)
    assert done.code == 1 and done.err.count("error: ") == 1 and "Traceback" not in done.err, done
    done = command(*words, "protocol=pseudo_labels", cwd=tmp_path)
    assert done.code == 1 and done.err.count("error: out is not given") == 1 and "Traceback" not in done.err, done
