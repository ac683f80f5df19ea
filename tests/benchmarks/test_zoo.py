"""The measured table: what is run, what is read, what is written."""

import json

import pytest

from ssl_zoo.benchmarks import zoo


def finished(folder, first, last, probe):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"probe/top1": probe, "seconds": 61.4}))
    (folder / "metrics.csv").write_text(f"step,knn/top1,train/loss\n0,{first},\n5,,1.5\n10,{last},\n")


def test_a_row_is_the_first_and_the_last_knn_of_a_finished_run(tmp_path):
    finished(tmp_path / "byol", 26.5, 30.25, 28.9)
    found = zoo.row(tmp_path / "byol")
    assert (found["kNN untrained"], found["kNN trained"], found["gain"]) == (26.5, 30.25, 3.75)
    assert zoo.row(tmp_path / "absent") is None
    assert zoo.markdown([found]).splitlines()[-1] == "| `byol` | 26.5 | 30.2 | +3.8 | 28.9 |  | 61 |"


def test_finished_runs_are_kept_and_the_table_and_the_picture_are_written(tmp_path, capsys):
    for name, last in (("byol", 30.0), ("simclr", 35.0)):
        finished(tmp_path / name, 26.0, last, None)
    assert zoo.main(["--methods", "byol,simclr", "--out", str(tmp_path)]) == 0
    assert [row["method"] for row in json.loads((tmp_path / "zoo.json").read_text())] == ["byol", "simclr"]
    assert (tmp_path / "zoo.png").read_bytes()[:4] == b"\x89PNG"
    assert "byol: finished" in capsys.readouterr().out


def test_an_unfinished_run_goes_on_from_its_checkpoint(tmp_path):
    given = zoo.arguments(["--methods", "byol", "--data", "digits", "--subset", "0", "--out", str(tmp_path), "seed=3"])
    words = zoo.command(given, "byol", tmp_path / "byol")
    assert words[-3:] == [f"hydra.run.dir={tmp_path / 'byol'}", "resume=null", "seed=3"]
    assert {"data=digits", "method=byol", "data.subset=null", "trainer.max_epochs=10"} <= set(words)
    (tmp_path / "byol" / "checkpoints").mkdir(parents=True)
    (tmp_path / "byol" / "checkpoints" / "last.ckpt").touch()
    assert f"resume={tmp_path / 'byol' / 'checkpoints' / 'last.ckpt'}" in zoo.command(given, "byol", tmp_path / "byol")


def test_a_name_that_is_no_method_is_refused_with_the_names(capsys):
    with pytest.raises(SystemExit):
        zoo.arguments(["--methods", "byol,simclar"])
    assert "there is no simclar; there are " in capsys.readouterr().err


@pytest.mark.slow
def test_two_methods_are_trained_side_by_side(tmp_path):
    tiny = ["data.image_size=16", "data.batch_size=16", "backbone.width=4"]
    words = ["--methods", "simclr,byol", "--data", "synthetic", "--subset", "64", "--epochs", "1", "--lanes", "2"]
    assert zoo.main([*words, "--out", str(tmp_path), *tiny]) == 0
    assert {row["method"] for row in json.loads((tmp_path / "zoo.json").read_text())} == {"simclr", "byol"}
