"""What a host has: versions, devices, cores, shared memory, open files, the disk of the runs.

What is measured and how it is judged are separate functions, so that every fault can be shown without having it.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from importlib import metadata
from pathlib import Path

import torch

import ssl_zoo
from ssl_zoo import machine
from ssl_zoo.doctor.findings import Finding, amount, fault, short

SHARED = Path("/dev/shm")  # where worker processes leave their batches
PREFETCHED = 2  # batches that a worker makes ahead, PyTorch's own number
FILES = 512  # that a training has open without workers: libraries, sockets, logs
BLOCK, BLOCKS, SECONDS = 1 << 20, 256, 3.0  # of the test of the disk
SLOW_DISK = 50e6  # bytes a second below which saving is worth a word
CHECKPOINT = 300e6  # bytes of a ResNet-50's with its optimizer, for comparison


def versions() -> dict[str, str]:
    """Of what two hosts must have alike."""
    found = {"ssl_zoo": ssl_zoo.__version__, "python": platform.python_version(), "torch": torch.__version__,
             "lightning": metadata.version("pytorch-lightning")}  # fmt: skip
    if torch.version.cuda is not None:
        found["CUDA"] = torch.version.cuda
        found["cuDNN"] = str(torch.backends.cudnn.version())
        if torch.distributed.is_available() and torch.distributed.is_nccl_available():
            found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    return found


def same_versions(by_host: dict[str, dict[str, str]]) -> Finding:
    (first, wanted), *others = by_host.items()
    for host, found in others:
        for name in [*wanted, *(set(found) - set(wanted))]:
            if wanted.get(name) != found.get(name):
                told = f"{name} {wanted.get(name, 'is missing')} on {first}, {found.get(name, 'missing')} on {host}"
                return fault("versions", told, "install the same on all hosts, or one environment that all see")
    return Finding("versions", ", ".join(f"{name} {version}" for name, version in wanted.items()))


def device(wanted: str) -> str:
    """``cuda`` or ``cpu``, as ``trainer.accelerator`` asks."""
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def devices(wanted: str, processes: int, hardware: int | None = None) -> Finding:
    """What the processes of this host compute on.

    Args:
        wanted: ``trainer.accelerator``.
        processes: Of this host.
        hardware: NVIDIA's devices that the system shows; None: look.
    """
    shown = len(list(Path("/dev").glob("nvidia[0-9]*"))) if hardware is None else hardware
    if device(wanted) == "cpu":
        if wanted in ("gpu", "cuda") or shown and wanted != "cpu":
            why = "is built without CUDA" if torch.version.cuda is None else "finds none"
            told = f"{shown or 'no'} NVIDIA device{'s' * (shown != 1)}, and torch {torch.__version__} {why}"
            return fault("devices", told, _GPU_FIX[why])
        return Finding("devices", f"CPU, {os.cpu_count()} cores, {amount(machine.memory())} of memory")
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return gpus([f"{one.name} ({amount(one.total_memory)})" for one in properties], processes)


_GPU_FIX = {
    "is built without CUDA": "install a torch that is built for CUDA (https://pytorch.org/get-started), "
    "or say trainer=cpu",
    "finds none": "see that the driver works (nvidia-smi), that CUDA_VISIBLE_DEVICES is not empty, and that "
    "the job asks for GPUs (Slurm: --gpus-per-node=N; Docker: --gpus all)",
}


def same_kind(by_host: dict[str, bool]) -> list[Finding]:
    """A fault if only some hosts have a GPU for each of their processes."""
    if len(set(by_host.values())) == 1:
        return []
    have, lack = ([host for host, usable in by_host.items() if usable == wanted] for wanted in (True, False))
    told = f"a GPU for every process on {', '.join(have)}, not on {', '.join(lack)}; the rest was examined on CPUs"
    return [fault("devices", told, "leave those hosts out, or see there what nvidia-smi says")]


def gpus(names: list[str], processes: int) -> Finding:
    """Judge the numbers of both."""
    alike = len(set(names)) == 1
    told = f"{len(names)} x {names[0]}" if alike else ", ".join(names)
    if processes > len(names):
        return fault(
            "devices", f"{told} for {processes} processes",
            f"start one process a GPU, {len(names)} on this host; under Slurm let every process see all GPUs of its "
            "node (--gpus-per-node=N without --gpus-per-task, or --gpu-bind=none)",
        )  # fmt: skip
    if processes < len(names):
        return Finding(
            "devices", f"{told} for {processes} process{'es' * (processes > 1)}",
            f"use them all: trainer=ddp starts {len(names)} processes here; so does torchrun "
            f"--nproc-per-node={len(names)}, and srun --ntasks-per-node={len(names)}",
        )  # fmt: skip
    return Finding("devices", told)


def cores(by: str) -> Finding:
    """That this process may use."""
    return judge_cores(allowed_cores(), os.cpu_count() or 1, by)


def allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def judge_cores(allowed: int, there: int, by: str) -> Finding:
    told = f"{allowed} of {there} for a process"
    if allowed == 1 < there and by == "srun":
        return Finding("cores", told, "srun gives a process one core unless it is asked: --cpus-per-task=N, for the "
                                      "workers that read the data too")  # fmt: skip
    return Finding("cores", told)


def shared_memory(batch: int, workers: int, processes: int, where: Path = SHARED) -> Finding:
    """What is free where workers leave their batches, against what they need.

    Args:
        batch: Bytes of a batch of one process.
        workers: Of one process.
        processes: Of this host.
        where: Folder of the shared memory.
    """
    if not where.is_dir():
        return Finding("shared memory", f"this system has no {where}; PyTorch takes files in its place")
    return judge_shared(shutil.disk_usage(where).free, batch, workers, processes)


def judge_shared(free: int, batch: int, workers: int, processes: int) -> Finding:
    hands = workers * processes
    need = batch * hands * PREFETCHED + batch * processes  # and the one that is trained on
    if not hands:
        return Finding("shared memory", f"{amount(free)} free; no workers, so none is needed")
    told = f"{amount(free)} free; {hands} worker{'s' * (hands > 1)} x {PREFETCHED} batches of {amount(batch)} need "
    told += amount(need)
    if need <= free:
        return Finding("shared memory", told)
    fit = (free // processes // batch - 1) // PREFETCHED if batch * processes <= free else 0
    return fault(
        "shared memory", told,
        f"give more (Docker: --shm-size={-(-need * 5 // 4 // 10**9)}g, or --ipc=host; Kubernetes: an emptyDir with "
        f"medium: Memory at {SHARED}), or take data.workers={max(fit, 0)}, or a smaller data.batch_size",
    )  # fmt: skip


def open_files(workers: int, tensors: int) -> Finding:
    """The limit against what the batches of the workers want: each of their tensors is a file until it is freed."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return Finding("open files", "this system has no limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_open_files(soft, hard, FILES + workers * (8 + PREFETCHED * tensors))


def judge_open_files(soft: int, hard: int, need: int) -> Finding:
    if soft < 0 or soft >= need:  # -1: there is none
        return Finding("open files", f"{'any number' if soft < 0 else f'{soft:,}'} allowed, {need:,} wanted")
    way = f"ulimit -n {need}" if hard < 0 or hard >= need else f"ask the site for a hard limit of {need} (it is {hard})"
    return fault("open files", f"{soft:,} allowed, {need:,} wanted", f"{way}, before the training is started")


def disk(out: Path) -> Finding:
    """How fast the folder of the runs takes what is written; a file of some MB is made there and removed."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            block, written, began = os.urandom(BLOCK), 0, time.perf_counter()
            while written < BLOCKS * BLOCK and time.perf_counter() - began < SECONDS:
                written += file.write(block)
            file.flush()
            os.fsync(file.fileno())
            seconds = time.perf_counter() - began
    except OSError as error:
        return fault("disk", f"{there} cannot be written ({error.strerror})",
                     "write runs elsewhere (hydra.run.dir=FOLDER; here out=FOLDER), or free some space")  # fmt: skip
    return judge_disk(there, written / seconds, shutil.disk_usage(there).free)


def judge_disk(there: Path, speed: float, free: int) -> Finding:
    told = f"{there}: {amount(speed)}/s written, {amount(free)} free"
    if free < 4 * CHECKPOINT:  # the last, the best, and the one that is being written
        return fault("disk", told, f"free some space: a ResNet-50 keeps two checkpoints of {amount(CHECKPOINT)}")
    if speed < SLOW_DISK:
        return Finding(
            "disk",
            told,
            f"a checkpoint of {amount(CHECKPOINT)} (ResNet-50) takes "
            f"{short(CHECKPOINT / speed)}: write runs to a faster disk "
            "(hydra.run.dir=FOLDER), or save less often (trainer.checkpoint_every=N)",
        )
    return Finding("disk", told)
