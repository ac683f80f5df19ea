"""benchmarks/gpu.py without a GPU: its arithmetic by hand-made numbers, its sections at sizes of no meaning."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import gpu, gpu_agreement, gpu_rows, gpu_speed, gpu_waits
from ssl_zoo.augmentations.captured import CapturedViews
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.batch import Batch, RawBatch
from tests import patience

CPU = torch.device("cpu")
TINY = gpu_rows.Setting(CPU, tiny=True)
KEYS = {"name", "value", "unit", "peer", "peer_value", "ratio", "bar", "ok"}
HANGS, FAILS = "import time; time.sleep(60)", "raise SystemExit(3)"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(gpu.TINY, raising=False)


@pytest.mark.parametrize(
    ("value", "bar", "met"),
    [(0.08, "<= 0.08", True), (0.081, "<= 0.08", False), (3500, ">= 3500", True), (3499, ">= 3500", False),
     (None, "<= 1", False)],
)  # fmt: skip
def test_a_bar_is_judged_by_its_sign(value: float | None, bar: str, met: bool) -> None:
    assert gpu_rows.judge(value, bar) is met


def test_a_bar_of_another_sign_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bar='< 3': wanted '<= NUMBER' or '>= NUMBER'"):
        gpu_rows.judge(2, "< 3")


def test_a_row_has_the_ratio_to_its_peer_and_no_infinity() -> None:
    entry = gpu_rows.row("x", 1742.0, "samples/s", ">= 3500", peer="published", peer_value=871.0)
    assert (entry["ratio"], entry["ok"], entry.keys()) == (2.0, False, KEYS)
    assert gpu_rows.row("x", 1.0, "s")["ok"] is None
    lost = gpu_rows.row("x", math.inf, "s", "<= 4", note="three steps")
    assert (lost["value"], lost["ok"], lost["note"]) == (None, False, "not finite; three steps")


def test_kernels_that_overlap_count_once() -> None:
    assert gpu_speed.covered([(5, 7), (0, 2), (1, 3), (1, 2)]) == 5
    assert gpu_speed.covered([(0, 2), (1, 3), (5, 7)], since=2.5) == 2.5
    # [0, 16] without its first quarter: [4, 8] and [10, 16] of 12.
    assert gpu_speed.busy_share([(0, 8), (10, 16)]) == pytest.approx(10 / 12)


def test_rows_stand_in_the_file_before_the_next_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[gpu_rows.Row]:
        yield gpu_rows.row("first", 1.0, "s", "<= 2")
        assert [entry["name"] for entry in json.loads(out.read_text())] == ["first"]
        yield gpu_rows.row("second", 3.0, "s", "<= 2")
        raise RuntimeError("out of memory")

    out = Path("gpu.json")
    out.write_text("[]")
    with pytest.raises(RuntimeError, match="out of memory"):
        gpu_rows.keep(out, rows())
    assert [entry["ok"] for entry in json.loads(out.read_text())] == [True, False]
    printed = capsys.readouterr().out.splitlines()
    assert "met" in printed[0] and "MISSED" in printed[1]


def test_without_a_gpu_it_says_so_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    said = "torch finds no CUDA device here; nothing was run, every figure is unmeasured\n"
    assert capsys.readouterr().out.endswith(said)
    assert not Path("gpu.json").exists()


def test_sections_without_time_are_skipped_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.run_all(Path("gpu.json"), [["environment"], ["host_waits"]], tiny=True, budget=gpu.LEAST - 1)
    rows = json.loads(Path("gpu.json").read_text())
    assert [(entry["name"], entry["ok"]) for entry in rows] == [
        ("section/environment", False),
        ("section/host_waits", False),
    ]
    assert all(entry["note"].startswith("skipped: ") for entry in rows)
    assert "0 of 2 bars met" in capsys.readouterr().out


def test_a_section_that_hangs_is_ended_and_one_that_fails_is_named() -> None:
    failing, hanging = (subprocess.Popen([sys.executable, "-c", code]) for code in (FAILS, HANGS))
    assert gpu.together({"failing": failing, "hanging": hanging}, 2) == {
        "failing": "ended with exit code 3; its error stands above",
        "hanging": "stopped: no time was left for it; what it had printed by then stands",
    }
    assert hanging.poll() is not None


@pytest.mark.slow
def test_sections_side_by_side_keep_all_rows_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    out, code = Path("gpu.json"), (
        "import sys; from pathlib import Path; from ssl_zoo.benchmarks.gpu_rows import keep, row;"
        "keep(Path('gpu.json'), (row(f'{sys.argv[1]}/{i}', i, 's') for i in range(200)))"
    )
    monkeypatch.setattr(gpu, "begin", lambda name, *_: subprocess.Popen([sys.executable, "-c", code, name]))
    gpu.run_all(out, [["a", "b"]], tiny=True)
    names = [entry["name"] for entry in json.loads(out.read_text())]
    assert sorted(names) == sorted(f"{name}/{i}" for name in "ab" for i in range(200))
    assert [path.name for path in Path.cwd().iterdir()] == ["gpu.json"]


def test_every_section_has_its_turn_once() -> None:
    assert sorted(name for names in gpu.ROUNDS for name in names) == sorted(gpu.SECTIONS)


def test_the_place_of_a_wait_is_a_line_of_the_library() -> None:
    draw = Draw(stream_key(0, "train", 0), torch.arange(2))
    with pytest.raises(ValueError, match="high is 0") as caught:
        draw.integers("x", 0)
    assert gpu_agreement.place(caught.value).startswith("ssl_zoo/augmentations/rng.py:")
    with pytest.raises(ZeroDivisionError) as foreign:
        print(1 / 0)
    assert gpu_agreement.place(foreign.value).startswith("test_gpu.py:")


def test_only_waiting_is_caught() -> None:
    with gpu_waits.refused(CPU) as found:
        raise RuntimeError("called a synchronizing CUDA operation")
    assert len(found) == 1 and found[0].startswith("test_gpu.py:")
    with pytest.raises(RuntimeError, match="out of memory"), gpu_waits.refused(CPU):
        raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA GeForce RTX 4090", None)]
)
def test_the_peak_is_that_of_the_device(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert gpu_speed.peak_of(torch.device("cuda", 0)) == peak
    assert gpu_speed.peak_of(CPU) is None


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 5)

    def training_loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": sum(self.layer(view.flatten(1)).sum() for view in batch.views)}  # type: ignore[dict-item]


def test_operations_are_counted_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, data = gpu_speed.prepare(gpu_speed.VIT.tiny(), compiled=False)
    monkeypatch.setattr(gpu_agreement.build, "build_method", lambda *_: OneLayer())
    # Two views of 8 rows; the layer's product and the gradient of its weights, two operations each.
    assert gpu_speed.count_flops(cfg, data, CPU) == 2 * 2 * 2 * 8 * (3 * 16 * 16) * 5


@pytest.mark.parametrize("work", [gpu_speed.VIT, gpu_speed.CIFAR], ids=["one epoch", "epochs"])
@pytest.mark.slow
def test_a_workload_is_trained_timed_and_profiled(work: gpu_speed.Workload) -> None:
    rows = {entry["name"].split("/")[1]: entry for entry in gpu_speed.speed(work, False, TINY)}
    measured = {"samples_per_s", "views_per_s", "augmentation_share", "device_busy", "device_busy_profiled",
                "matrix_rate", "first_step"}  # fmt: skip
    assert measured | {"peak_memory", "matrix_share"} | ({"epoch_seconds"} if work.samples else set()) == rows.keys()
    assert all(rows[name]["value"] > 0 for name in measured)
    assert rows["peak_memory"]["value"] is None and rows["matrix_share"]["value"] is None
    assert rows["views_per_s"]["value"] == pytest.approx(2 * rows["samples_per_s"]["value"])
    assert rows["augmentation_share"]["value"] < 1 and rows["device_busy_profiled"]["value"] <= 1
    if work.samples:   # three steps of 8 rows an epoch
        assert rows["epoch_seconds"]["value"] == pytest.approx(24 / rows["samples_per_s"]["value"])
    assert list(Path.cwd().iterdir()) == [], "training wrote something"


def test_the_clock_times_the_views_of_the_timed_steps_only() -> None:
    work = gpu_speed.CIFAR.tiny()
    cfg, data = gpu_speed.prepare(work, compiled=False)
    clock = gpu_speed.Clock(work, CPU)
    gpu_speed.fit(cfg, gpu_agreement.build.build_method(cfg, data.info), data, clock)
    assert len(clock.views) == work.steps[1]
    assert clock.share == pytest.approx(sum(b - a for a, b in clock.views) / (clock.seconds * work.steps[1]), rel=0.05)
    assert data.train.fetch(torch.arange(24)).shape == (24, 3, 20, 20)


def test_a_profiler_that_saw_nothing_costs_only_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_speed.Clock, "intervals", lambda clock: [])
    rows = {entry["name"].split("/")[1]: entry for entry in gpu_speed.speed(gpu_speed.CIFAR, False, TINY)}
    assert rows["epoch_seconds"]["value"] > 0
    assert (rows["device_busy"]["value"], rows["device_busy"]["ok"]) == (None, False)
    assert rows["device_busy_profiled"]["note"] == "unmeasured: the profiler saw nothing of the device"


def test_a_graph_that_replays_the_batch_before_misses_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    call, kept = CapturedViews.__call__, {}

    def stale(views: CapturedViews, *args: Any) -> Any:
        made = call(views, *args)
        before = kept.get(views, made)
        kept[views] = made
        return before

    monkeypatch.setattr(CapturedViews, "__call__", stale)
    graphs = next(row for row in gpu_agreement.views(TINY) if row["name"] == "views_of_graphs")
    assert graphs["value"] > 1000 and graphs["ok"] is False


@pytest.mark.slow
def test_a_device_that_computes_something_else_misses_its_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(raw: RawBatch, device: torch.device) -> RawBatch:
        raw = copy(raw)
        raw.slot += 1   # another slot draws other numbers
        return raw

    monkeypatch.setattr(RawBatch, "to", other)
    graphs, views = gpu_agreement.views(TINY)
    assert views["value"] > 0.1 and views["ok"] is False
    assert (graphs["name"], graphs["value"], graphs["ok"]) == ("views_of_graphs", 0, True)
    built: list[Any] = []
    ready = gpu_agreement.ready

    def drifting(*args: Any) -> Any:
        method = ready(*args)
        built.append(method)
        if len(built) % 2 == 0:
            with torch.no_grad():
                next(method.parameters()).mul_(1.5).add_(0.1)
        return method

    monkeypatch.setattr(gpu_agreement, "ready", drifting)
    assert [entry["ok"] for entry in gpu_agreement.losses_agree(TINY)] == [False, False]


def test_a_method_that_fails_is_a_row_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = gpu_agreement.ready

    def failing(cfg: Any, *rest: Any) -> Any:
        if cfg.method._target_.endswith("SimCLR"):
            torch.zeros(2) + torch.zeros(3)
        return ready(cfg, *rest)

    monkeypatch.setattr(gpu_agreement, "ready", failing)
    first, second = gpu_agreement.losses_agree(TINY)
    assert (first["value"], first["ok"]) == (None, False) and first["note"].startswith("RuntimeError at test_gpu.py:")
    assert (second["value"], second["ok"]) == (0.0, True)


@pytest.mark.slow
def test_a_method_that_the_images_do_not_suit_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    check = gpu_agreement.build.check_signatures

    def picky(cfg: Any) -> None:
        if cfg.method._target_.endswith("SimCLR"):
            raise gpu_agreement.ConfigError("method SimCLR wants graphs\nand more")
        check(cfg)

    monkeypatch.setattr(gpu_agreement.build, "check_signatures", picky)
    first, second = gpu_agreement.losses_agree(TINY)
    assert (first["value"], first["ok"], first["note"]) == (None, None, "not run: method SimCLR wants graphs")
    assert (second["value"], second["ok"]) == (0.0, True)


@pytest.mark.slow
def test_agreement_and_waiting_are_looked_at_for_draws_views_and_methods() -> None:
    kinds = ("uniform", "normal", "integers", "permutation")
    wanted = [*(f"random_numbers/{kind}" for kind in kinds), "host_waits/simclr", "host_waits/moco_v2"]
    rows = [*gpu_agreement.random_numbers(TINY), *gpu_waits.host_waits(TINY)]
    assert [entry["name"] for entry in rows] == [*wanted, "host_waits_of_views"]
    assert [entry["value"] for entry in rows] == [0] * 7


@pytest.mark.slow
def test_the_whole_script_runs_section_by_section() -> None:
    command = [sys.executable, gpu.__file__, "--tiny"]
    done = patience.run(command, 400)
    assert done.returncode == 0, done.stderr
    rows = json.loads(Path("gpu.json").read_text())
    incomplete = [entry for entry in rows if entry["name"].startswith("section/")]
    assert incomplete == [], done.stderr[-2000:]
    assert all(KEYS <= entry.keys() and entry["ok"] is None and entry["bar"] is None for entry in rows)
    names = {entry["name"].split("/")[0] for entry in rows}
    works = (gpu_speed.VIT, gpu_speed.RESNET50, gpu_speed.CIFAR)
    modes = {"eager": works, "compiled": works[:2], "graphs": works[2:]}
    assert {f"{work.name}_{mode}" for mode, some in modes.items() for work in some} <= names
    agreement = {"random_numbers", "views_of_graphs", "views_cpu_gpu", "losses_cpu_gpu", "host_waits_of_views"}
    assert {"environment", *agreement} <= names
