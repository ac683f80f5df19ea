"""Each fault of a host, simulated, and the sentences that it gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_zoo.doctor import host
from ssl_zoo.doctor.findings import Finding, fault

GPU = "NVIDIA H200 (151 GB)"


def test_shared_memory_that_is_too_small() -> None:
    found = host.judge_shared(free=64_000_000, batch=19_300_000, workers=4, processes=2)
    assert found == fault(
        "shared memory",
        "64 MB free; 8 workers x 2 batches of 19.3 MB need 347 MB",
        "give more (Docker: --shm-size=1g, or --ipc=host; Kubernetes: an emptyDir with medium: Memory at /dev/shm), "
        "or take data.workers=0, or a smaller data.batch_size",
    )
    assert "data.workers=3," in host.judge_shared(64_000_000, 9_000_000, 16, 1).fix


def test_shared_memory_that_is_enough_or_not_needed() -> None:
    assert host.judge_shared(64_000_000, 1_000_000, 1, 1) == Finding(
        "shared memory", "64 MB free; 1 worker x 2 batches of 1 MB need 3 MB"
    )
    assert host.judge_shared(64_000_000, 0, 0, 2).text == "64 MB free; no workers, so none is needed"


def test_shared_memory_is_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda where: SimpleNamespace(free=7 if where == tmp_path else 0))
    assert host.shared_memory(4, 1, 1, tmp_path).text == "7 B free; 1 worker x 2 batches of 4 B need 12 B"
    assert host.shared_memory(4, 1, 1, tmp_path / "no").text.startswith("this system has no ")


def test_a_limit_of_open_files_that_is_too_low() -> None:
    assert host.judge_open_files(256, 4096, 812) == fault(
        "open files", "256 allowed, 812 wanted", "ulimit -n 812, before the training is started"
    )
    assert host.judge_open_files(256, 512, 812).fix == (
        "ask the site for a hard limit of 812 (it is 512), before the training is started"
    )
    assert host.judge_open_files(1024, 4096, 812) == Finding("open files", "1,024 allowed, 812 wanted")
    assert host.judge_open_files(-1, -1, 812).text == "any number allowed, 812 wanted"


def test_open_files_are_those_of_workers_and_their_tensors() -> None:
    assert host.open_files(workers=8, tensors=5).text.endswith(f" allowed, {512 + 8 * (8 + 2 * 5)} wanted")


def test_processes_and_gpus() -> None:
    assert host.gpus([GPU, GPU], 2) == Finding("devices", f"2 x {GPU}")
    assert host.gpus([GPU], 8) == fault(
        "devices", f"1 x {GPU} for 8 processes",
        "start one process a GPU, 1 on this host; under Slurm let every process see all GPUs of its node "
        "(--gpus-per-node=N without --gpus-per-task, or --gpu-bind=none)",
    )  # fmt: skip
    assert host.gpus([GPU] * 8, 1) == Finding(
        "devices", f"8 x {GPU} for 1 process",
        "use them all: trainer=ddp starts 8 processes here; so does torchrun --nproc-per-node=8, and srun "
        "--ntasks-per-node=8",
    )  # fmt: skip
    assert host.gpus([GPU, "NVIDIA L4 (24 GB)"], 2).text == f"{GPU}, NVIDIA L4 (24 GB)"


@pytest.mark.parametrize(
    "cuda, text, fix",
    [
        (None, "2 NVIDIA devices, and torch {} is built without CUDA", "install a torch that is built for CUDA"),
        ("13.0", "2 NVIDIA devices, and torch {} finds none", "see that the driver works (nvidia-smi)"),
    ],
)
def test_gpus_that_torch_does_not_see(cuda: Any, text: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = host.devices("auto", 1, hardware=2)
    assert found.fault and found.text == text.format(torch.__version__) and found.fix.startswith(fix)
    assert host.devices("gpu", 1, hardware=0).text == text.format(torch.__version__).replace("2", "no", 1)
    assert host.devices("cpu", 1, hardware=2).fix == ""
    assert host.devices("auto", 1, hardware=0).text.startswith("CPU, ")


def test_hosts_without_a_gpu_among_those_with() -> None:
    assert host.same_kind({"a": True, "b": True}) == host.same_kind({"a": False}) == []
    assert host.same_kind({"a": True, "b": False, "c": True}) == [
        fault(
            "devices", "a GPU for every process on a, c, not on b; the rest was examined on CPUs",
            "leave those hosts out, or see there what nvidia-smi says",
        )
    ]  # fmt: skip


def test_one_core_from_srun() -> None:
    assert host.judge_cores(1, 64, "srun") == Finding(
        "cores", "1 of 64 for a process",
        "srun gives a process one core unless it is asked: --cpus-per-task=N, for the workers that read the data too",
    )  # fmt: skip
    assert host.judge_cores(1, 1, "srun").fix == host.judge_cores(1, 64, "torchrun").fix == ""


def test_hosts_with_different_versions() -> None:
    one, other = {"torch": "2.6.0", "NCCL": "2.21"}, {"torch": "2.7.0", "NCCL": "2.21"}
    assert host.same_versions({"a": one, "b": one}) == Finding("versions", "torch 2.6.0, NCCL 2.21")
    assert host.same_versions({"a": one, "b": one, "c": other}) == fault(
        "versions", "torch 2.6.0 on a, 2.7.0 on c", "install the same on all hosts, or one environment that all see"
    )
    assert host.same_versions({"a": one, "b": {"torch": "2.6.0"}}).text == "NCCL 2.21 on a, missing on b"


def test_versions_name_what_a_report_needs() -> None:
    assert {"ssl_zoo", "python", "torch", "lightning"} <= set(host.versions())


def test_a_disk_that_is_full_slow_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.judge_disk(tmp_path, 812e6, 67 * 10**9) == Finding("disk", f"{tmp_path}: 812 MB/s written, 67 GB free")
    assert host.judge_disk(tmp_path, 812e6, 10**9) == fault(
        "disk", f"{tmp_path}: 812 MB/s written, 1 GB free",
        "free some space: a ResNet-50 keeps two checkpoints of 300 MB",
    )  # fmt: skip
    assert host.judge_disk(tmp_path, 10e6, 67 * 10**9).fix == (
        "a checkpoint of 300 MB (ResNet-50) takes 30 s: write runs to a faster disk (hydra.run.dir=FOLDER), or save "
        "less often (trainer.checkpoint_every=N)"
    )

    def refused(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(host.tempfile, "TemporaryFile", refused)
    assert host.disk(tmp_path / "outputs") == fault(
        "disk", f"{tmp_path} cannot be written (Permission denied)",
        "write runs elsewhere (hydra.run.dir=FOLDER; here out=FOLDER), or free some space",
    )  # fmt: skip


def test_the_test_of_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "BLOCKS", 2)
    assert host.disk(tmp_path / "runs" / "outputs").text.startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []
