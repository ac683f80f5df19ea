"""The benchmarks measure what they say: order and medians by a fake clock, peers that compute the same, bars."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.benchmarks import augmentation, evaluation, losses, rows, suite, timing
from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.step import Interleaved
from ssl_zoo.cli import entry
from tests.benchmarks import children

KEYS = {"name", "value", "unit", "peer", "peer_value", "ratio", "bar", "ok"}
BARS = {
    "augment_32_vs_pil": ">= 7",
    "augment_32_vs_kornia": ">= 1.6",
    "loader_224_vs_lightly": ">= 1.2",
    "ntxent_time_vs_lightly": ">= 3",
    "ntxent_memory_vs_lightly": ">= 20",
    "step_vs_loop": "<= 1.03",
    "rng_share": "<= 0.05",
    "ema_vs_loop": ">= 3",
    "knn_vs_lightly": ">= 1.1",
    "extract_memory": "<= 1.3",
    "weak_scaling_2": ">= 0.93",
}


def bench(tmp_path: Path, *argv: str) -> list[dict[str, Any]]:
    out = tmp_path / "bench.json"
    assert entry(["bench", *argv, "quick=true", f"out={out}"]) == 0
    return json.loads(out.read_text())


# timing


def test_sides_alternate_and_the_first_round_is_not_timed():
    calls: list[str] = []
    now = iter([0, 9, 10, 19, 20, 21, 30, 35, 40, 42, 50, 57])  # warm-up: 9 and 9; A: 1, 2; B: 5, 7
    sides = [lambda: calls.append("a"), lambda: calls.append("b")]
    found = timing.alternate(sides, 2, lambda: calls.append("-"), clock=lambda: next(now))
    assert "".join(calls) == "a-b-" * 3
    assert found == [[1, 2], [5, 7]]


def test_a_row_holds_the_medians_and_their_ratio():
    row = rows.measure(Case("x", lambda run: Measured([3.0, 1.0, 2.0], [90.0, 4.0, 8.0]), "s", "p", bar=">= 4"))
    assert (row["value"], row["peer_value"], row["ratio"], row["ok"]) == (2.0, 8.0, 4.0, True)
    assert (row["range"], row["peer_range"], row["rounds"]) == ([1.0, 3.0], [4.0, 90.0], 3)


@pytest.mark.parametrize(
    ("unit", "bar", "ratio", "ok"),
    [
        ("s", ">= 2", 4.0, True),  # four times faster
        ("s", ">= 5", 4.0, False),
        ("s", "<= 0.3", 0.25, True),  # a quarter of the other
        ("s", "<= 0.2", 0.25, False),
        ("images/s", ">= 0.2", 0.25, True),  # of a rate, more is better
        ("images/s", ">= 0.3", 0.25, False),
        ("s", None, 4.0, None),
    ],
)
def test_the_sign_of_the_bar_says_what_the_ratio_is(unit: str, bar: str | None, ratio: float, ok: bool | None):
    row = rows.measure(Case("x", lambda run: Measured([2.0], [8.0]), unit, "p", bar=bar))
    assert (row["ratio"], row["ok"]) == (ratio, ok)


def test_quick_rows_are_not_judged():
    assert rows.measure(Case("x", lambda run: Measured([2.0], [1.0]), "s", "p", bar=">= 9"), quick=True)["ok"] is None


def test_a_row_without_its_peer_says_how_to_install_it():
    def both(run: Run) -> Measured:
        return run.race(lambda: None, lambda: pytest.fail("the peer was made"), rounds=1)

    row = rows.measure(Case("x", both, "s", "the other", needs="no_such_module", bar=">= 2"))
    assert (row["peer_value"], row["ratio"], row["ok"]) == (None, None, None)
    assert row["value"] > 0
    assert row["note"] == "no_such_module is not installed: pip install ssl_zoo[bench]"


def test_threads_are_set_for_a_row_and_put_back():
    held = torch.get_num_threads()
    row = rows.measure(Case("x", lambda run: Measured([torch.get_num_threads()]), "s", cores=3))
    assert (row["value"], row["threads"], torch.get_num_threads()) == (3, 3, held)


@pytest.mark.slow
def test_peak_memory_is_that_of_the_call_in_a_process_of_its_own():
    found = timing.in_child(timing.peak_memory, children.allocate, (300, 200), 1)
    assert 295 < found < 340


@pytest.mark.slow
def test_a_child_that_dies_is_told_with_its_exit_code():
    with pytest.raises(RuntimeError, match=r"dies\(\) ended with exit code 7 and no answer"):
        timing.in_child(children.dies)


def test_the_environment_has_versions_and_hardware():
    here = timing.environment()
    assert here["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert here["cores"] >= 1 and here["memory_gib"] > 0 and here["processor"]


# what is compared


@pytest.mark.parametrize("peer", [losses.lightly, losses.metric_learning])
def test_the_losses_that_are_timed_are_the_same(peer: Any):
    assert losses.step(losses.ours, 96)().item() == pytest.approx(losses.step(peer, 96)().item(), rel=1e-5)


def test_both_nearest_neighbours_say_the_same():
    ours, peer = evaluation.knn_ours(3000, 300, 50)(), evaluation.knn_lightly(3000, 300, 50)()
    assert (ours == peer).float().mean() >= 0.99  # the votes of two classes may tie
    assert len(ours.unique()) == evaluation.CLASSES


@pytest.mark.parametrize("peer", [augmentation.on_pil, augmentation.on_tensors, augmentation.on_kornia])
def test_every_library_makes_two_float_views_of_the_whole_batch(peer: Any):
    x = augmentation.images(8)
    for views in (augmentation.ours(x, "simclr")(), peer(x)()):
        assert [(view.shape, view.dtype) for view in views] == [((8, 3, 32, 32), torch.float32)] * 2
        assert not torch.equal(views[0], views[1])
        assert -0.2 <= views[0].min() < 0.5 < views[0].max() <= 1.2  # kornia keeps what bicubic weights overshoot


def test_our_recipe_is_the_one_that_the_others_get():
    ops = augmentation.pipeline("simclr").views[0].ops
    crop, flip, jitter, gray = ops
    brightness, contrast, saturation, hue = augmentation.JITTER
    assert tuple(crop.scale) == augmentation.SCALE and flip.p == 0.5
    assert jitter.ranges[:3] == [(1 - x, 1 + x) for x in (brightness, contrast, saturation)]
    assert jitter.ranges[3] == (-hue, hue)
    assert (jitter.p, gray.p) == (augmentation.JITTER_P, augmentation.GRAY_P)


def test_noted_draws_are_those_of_the_pipeline():
    x, calls = augmentation.images(8), []
    key = stream_key(0, "train", 0)
    views = augmentation.pipeline("simclr")
    noted, _ = views(x, augmentation.Noted(key, torch.arange(8), calls=calls))
    plain, _ = views(x, Draw(key, torch.arange(8)))
    assert all(torch.equal(a, b) for a, b in zip(noted, plain, strict=True))
    drawn = [call() for call in calls]
    numbers = [value for value in drawn if isinstance(value, torch.Tensor)]
    assert len(numbers) >= 2 * 6 and all(len(value) == 8 for value in numbers)  # crop, flip, jitter, gray of two views


def test_the_trainer_and_the_loop_take_turns():
    calls: list[str] = []
    stream = Interleaved([torch.tensor(1), torch.tensor(2)], 3, lambda batch: calls.append(f"loop {batch}"))  # type: ignore[list-item]
    for batch in stream:
        calls.append(f"trainer {batch}")
    assert calls == ["loop 1", "trainer 1", "loop 2", "trainer 2", "loop 1", "trainer 1"]
    assert len(stream) == len(stream.ours) == len(stream.peer) == 3


# the command


def test_every_bar_stands_in_one_row():
    every = [case for group in suite.cases().values() for case in group]
    assert {case.name: case.bar for case in every if case.bar} == BARS
    assert len({case.name for case in every}) == len(every)
    assert {"batch", "images", "views", "prototypes", "queue", "processes"} == {
        case.name.split("_")[1] for case in every if case.name.startswith("growth_")
    }


@pytest.mark.slow
def test_the_command_writes_rows_and_where_they_were_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = bench(tmp_path, "augment_32_vs_pil", "rng_share", "ema_vs_loop", "growth_queue_4096")
    assert [row["name"] for row in found] == [
        "augment_32_vs_pil",
        "rng_share",
        "ema_vs_loop",
        "growth_queue_4096",
    ]
    for row in found:
        assert row.keys() >= KEYS and row["ok"] is None and row["value"] > 0
    assert all(row["ratio"] > 0 for row in found[:3])
    assert found[3]["memory_mib"] >= 0 and found[3]["size"] == 4096 and found[3]["peer"] is None
    here = json.loads((tmp_path / "bench_meta.json").read_text())
    assert here["versions"]["ssl_zoo"]
    printed = capsys.readouterr().out
    assert "augment_32_vs_pil" in printed and "growth with queue" in printed and "bars are not judged" in printed


def test_a_failed_bar_is_the_exit_code_and_a_failed_row_keeps_the_others(tmp_path: Path, monkeypatch: Any):
    slow = Case("slow", lambda run: Measured([2.0], [1.0]), "s", "p", bar=">= 1")
    broken = Case("broken", lambda run: 1 / 0, "s")  # type: ignore[arg-type, return-value]
    out = tmp_path / "bench.json"
    monkeypatch.setattr(suite, "cases", lambda: {"file": [slow, broken]})
    assert suite.main(["slow", f"out={out}"]) == 1
    with pytest.raises(ZeroDivisionError):
        suite.main([f"out={out}"])
    assert [row["name"] for row in json.loads(out.read_text())] == ["slow"]


def test_rows_are_chosen_by_name_by_file_and_by_pattern():
    assert [case.name for case in suite.choose(["rng_share", "loader"])] == ["rng_share", "loader_224_vs_lightly"]
    assert len(suite.choose(["growth_queue_*"])) == 3
    assert len(suite.choose([])) == sum(len(group) for group in suite.cases().values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["augment_32_pil"], "ssl-zoo bench augment_32_pil: no such row or file; did you mean 'augment_32_vs_pil'?"),
        (["loaders"], "did you mean 'loader'?"),
        (["quik=true"], "ssl-zoo bench quik=true: there is no option 'quik'; did you mean 'quick'?"),
        (["quick=yes"], "quick=yes: wanted true or false"),
        (["root=nowhere"], "root=nowhere: there is no such folder; wanted one with JPEG files"),
        (["out=nowhere/x.json"], "out=nowhere/x.json: there is no folder nowhere; make it, or write elsewhere"),
    ],
)
def test_wrong_input_is_told_before_anything_is_measured(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(suite, "measure", lambda *_: pytest.fail("something was measured"))
    assert entry(["bench", *argv]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_command_in_quick_mode(tmp_path: Path):
    found = bench(tmp_path)
    assert [row["name"] for row in found] == [case.name for group in suite.cases().values() for case in group]
    assert all(row.keys() >= KEYS and row["ok"] is None for row in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", suite.FILES)
def test_a_file_runs_alone(name: str, tmp_path: Path):
    file = Path(str(suite.__file__)).parent / f"{name}.py"
    cases = suite.cases()[name]
    row = cases[len(cases) // 2].name  # not the first of growth, which starts three more processes
    command = [sys.executable, str(file), row, "quick=true", "out=x.json"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert [row["name"] for row in json.loads((tmp_path / "x.json").read_text())] == [row]
