"""The command: meet the other processes if there are any, examine, and let process 0 tell what was found."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from ssl_zoo import build, config, distributed, ranks, rendezvous
from ssl_zoo.data.decoders import auto_workers
from ssl_zoo.doctor import group, host, training
from ssl_zoo.doctor.findings import Finding, fault, merged, report, verdict
from ssl_zoo.doctor.training import Batch
from ssl_zoo.errors import ConfigError
from ssl_zoo.rendezvous import Meeting

OPTIONS = {"out": "outputs", "patience": "60"}
TYPICAL = Batch(2 * 64 * 3 * 224 * 224, 5)  # 64 samples of a process, two views of 224 pixels, where no data is named


class Asked(NamedTuple):
    """What the words ask for."""

    cfg: DictConfig
    reads: bool  # whether they name data
    refused: list[Finding]  # why a training with them would not start


class Place(NamedTuple):
    """Where a process is."""

    host: str
    processes: int  # of its node
    by: str  # who started it; nothing: it is alone


class Seen(NamedTuple):
    """What a process tells the others; of the findings those of the first process of a host count."""

    place: Place
    gpu: bool  # whether it has one of its own
    versions: dict[str, str]
    findings: list[Finding]


def main(argv: Sequence[str]) -> int:
    """``ssl-zoo doctor [out=FOLDER] [patience=SECONDS] [words of a training]``; 1 if something must be changed.

    Every process of a group runs it; all end with the same status, and process 0 alone prints.

    Raises:
        ConfigError: For a wrong word.
    """
    start = training.age()
    given = {**OPTIONS, **dict(word.split("=", 1) for word in argv if word.partition("=")[0] in OPTIONS)}
    words = [word for word in argv if word.partition("=")[0] not in OPTIONS]
    found = ranks.find(os.environ)
    asked = _asked(words, alone=found is None)
    patience = _seconds(given["patience"])
    try:
        meeting = None if found is None else rendezvous.meet(found, patience)
        device = _device(asked.cfg, meeting)
        with nullcontext() if meeting is None else meeting.group(device, patience):
            findings = _examine(asked, Path(given["out"]), device, meeting, start)
    except ConfigError as error:
        if found is None:
            raise
        findings = [fault("processes", "not all have come, or stayed", str(error))]
    if found is None or found.rank == 0:
        print("\n".join([*report(findings), "", *verdict(findings)]), flush=True)
    elif len(findings) == 1:
        print(f"process {found.rank} of {found.world}: {findings[0].fix}", file=sys.stderr)  # process 0 may be gone
    return int(any(one.fault for one in findings))


def _seconds(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ConfigError(f"patience={word}: wanted seconds") from None


def _asked(words: Sequence[str], alone: bool) -> Asked:
    """Compose and check; of several processes one whose host lacks the data goes on without it."""
    try:
        cfg = config.load(list(words))
        config.quick_check(cfg)
        build.check_signatures(cfg)
    except ConfigError as error:
        if alone:
            raise
        rest = [word for word in words if word == "trainer=cpu"]  # all must compute on the same kind of device
        return Asked(config.load(rest), False, [fault("words", "a training with them is refused", str(error))])
    return Asked(cfg, any(word.startswith(("data=", "data.", "experiment=")) for word in words), [])


def _device(cfg: DictConfig, meeting: Meeting | None) -> torch.device:
    """Of this process: a GPU of its own, for NCCL refuses two processes on one, or the CPU."""
    local_rank, processes = (0, 1) if meeting is None else (meeting.ranks.local_rank, meeting.devices)
    if host.device(cfg.trainer.accelerator) == "cpu" or processes > torch.cuda.device_count():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _examine(asked: Asked, out: Path, device: torch.device, meeting: Meeting | None, start: float) -> list[Finding]:
    """All findings, in the order of the report; every process measures the same things at the same time."""
    place = _place(meeting)
    data, problems = _data(asked, place.processes)
    seen = Seen(place, device.type == "cuda", host.versions(), [*_of_host(asked.cfg, place, data), *problems])
    everyone = distributed.gather_lists([seen])
    findings = _of_hosts(everyone)
    if not all(one.gpu for one in everyone):
        device = torch.device("cpu")
    if meeting is not None:
        findings += _of_group(device, len({one.place.host for one in everyone}))
    if distributed.is_main():  # it alone writes the run
        findings.append(host.disk(out))
    if data is not None and not any(one.name in ("words", "data") for other in everyone for one in other.findings):
        findings.append(_loader(data, device, place.processes))
    findings += _first_steps(device, start)
    return distributed.broadcast_object(findings)


def _place(meeting: Meeting | None) -> Place:
    if meeting is None:
        return Place(socket.gethostname(), 1, "")
    return Place(socket.gethostname(), meeting.devices, meeting.ranks.by)


def _data(asked: Asked, processes: int) -> tuple[Any, list[Finding]]:
    """The data that was asked for; None and why, if this host cannot use it."""
    if not asked.reads:
        return None, asked.refused
    try:
        return training.build_data(asked.cfg, processes), []
    except ConfigError as error:
        return None, [fault("data", "a training cannot use it", str(error))]


def _of_host(cfg: DictConfig, place: Place, data: Any) -> list[Finding]:
    if data is None:
        batch, workers = TYPICAL, auto_workers("auto", False, place.processes, host.allowed_cores())
    else:
        batch, workers = training.one_batch(data), data.train_dataloader().workers
    return [
        host.devices(cfg.trainer.accelerator, place.processes),
        host.cores(place.by),
        host.shared_memory(batch.bytes, workers, place.processes),
        host.open_files(workers, batch.tensors),
    ]


def _of_hosts(everyone: Sequence[Seen]) -> list[Finding]:
    first = {one.place.host: one for one in reversed(everyone)}
    hosts = {name: first[name] for name in dict.fromkeys(one.place.host for one in everyone)}
    told = f"one, on {everyone[0].place.host}"
    if len(everyone) > 1:
        names = ", ".join(list(hosts)[:8]) + (", ..." if len(hosts) > 8 else "")
        told = f"{len(everyone)} on {len(hosts)} host{'s' * (len(hosts) > 1)} ({names}), started by "
        told += everyone[0].place.by
    return [
        Finding("processes", told),
        host.same_versions({name: one.versions for name, one in hosts.items()}),
        *host.same_kind({name: one.gpu for name, one in hosts.items()}),
        *merged({name: one.findings for name, one in hosts.items()}),
    ]


def _of_group(device: torch.device, hosts: int) -> list[Finding]:
    error = max(distributed.gather_lists([group.gradient_error(device)]))
    reduced = group.judge_all_reduce(*group.all_reduce(device), distributed.world_size(), hosts, device.type)
    return [reduced, group.judge_gradient(error)]


def _loader(data: Any, device: torch.device, processes: int) -> Finding:
    """All processes read at once, as in a training."""
    where = data.describe(device, processes)
    distributed.barrier()
    try:
        found: tuple[float, float] | str = training.read(data)
    except ConfigError as error:
        found = str(error)
    all_found = distributed.gather_lists([found])
    problems = [one for one in all_found if isinstance(one, str)]
    if problems:
        return fault("loader", "reading failed", problems[0])
    return training.judge_loader(max(one[0] for one in all_found), sum(one[1] for one in all_found), where)


def _first_steps(device: torch.device, start: float) -> list[Finding]:
    found = training.first_steps(device, start)
    sums = distributed.gather_lists([found.weights])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    first = training.judge_first(found, load, os.cpu_count() or 1)
    return [first, *([group.judge_weights(sums)] if len(sums) > 1 else [])]
