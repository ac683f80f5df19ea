from __future__ import annotations

import time

import torch

from ssl_zoo import build, config
from ssl_zoo.doctor import training
from ssl_zoo.doctor.findings import Finding
from ssl_zoo.doctor.training import First

TOLD = "17.3 s after the start (imports 16.3 s, building 940 ms, the step 96 ms; the second one 47 ms)"


def test_the_first_step_is_told_with_its_parts() -> None:
    assert training.judge_first(First(16.3, 0.94, 0.096, 0.047, 1.0), 2.0, 2) == Finding("first step", TOLD)


def test_slow_imports_and_a_busy_host_are_told_apart() -> None:
    found = First(40.0, 1.0, 1.0, 1.0, 1.0)
    assert training.judge_first(found, 1.0, 2).fix == (
        "imports take long, most often because the environment is on a shared disk: put it on a local one, or into a "
        "container"
    )
    assert training.judge_first(found, 9.04, 2).fix == (
        "other programs compute here (load average 9.0 on 2 cores): see which (top), or ask for a node of your own"
    )


def test_two_steps_are_taken_and_weights_summed() -> None:
    found, again = (training.first_steps(torch.device("cpu"), 1.5) for _ in range(2))
    assert found.start == 1.5 and min(found) > 0
    assert found.weights == again.weights


def test_the_age_of_this_process_grows() -> None:
    before = training.age()
    time.sleep(0.1)
    assert 0.05 < training.age() - before < 60


def test_a_batch_of_workers_is_measured_without_them() -> None:
    words = ["data=synthetic", "data.source.samples=32", "data.batch_size=8", "augmentation.where=worker"]
    data = training.build_data(config.load([*words, "data.workers=3", "data.image_size=16"]), 1)
    batch = training.one_batch(data)
    views = 2 * 8 * 3 * 16 * 16 * 4  # floats
    assert views <= batch.bytes < views + 1024 and batch.tensors >= 3
    assert data.train_dataloader().workers == 3


def test_data_in_memory_needs_no_workers() -> None:
    data = build.build_data(config.load(["data=synthetic", "data.source.samples=512", "data.image_size=16"]))
    assert training.one_batch(data) == (0, 0)
    first, rate = training.read(data, 0.05)
    assert 0 < first < 60 and rate > 0
    found = training.judge_loader(0.5, 1234.4, "in this process")
    assert found.text == "1,234 samples/s, the first batch after 500 ms; in this process" and not found.fix
