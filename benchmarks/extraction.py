"""(h) Features of a whole data set: what it takes to extract them besides what they are."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_zoo import distributed, launch, machine, ranks, rendezvous
from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.timing import Peak
from ssl_zoo.features import extract
from ssl_zoo.rendezvous import PATIENCE

PIXELS, BATCH = 8, 256
RANK = "import sys; from ssl_zoo.benchmarks.extraction import rank; rank(*sys.argv[1:])"


class Noise:
    """A process's share of so many samples, made when it is read."""

    def __init__(self, samples: int) -> None:
        number, world = distributed.rank(), distributed.world_size()
        self.rows = torch.arange(number * samples // world, (number + 1) * samples // world)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for index in self.rows.split(BATCH):
            yield torch.rand(len(index), PIXELS), index % 10, index


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, width)


def rank(folder: str, samples: str, width: str) -> None:
    """One process: writes the growth of its memory and the size of its result, in MiB, into a file of the folder."""
    torch.set_num_threads(1)
    machine.keep_memory()
    found = ranks.of_variables(os.environ)  # None: alone
    net, device = Net(int(width)), torch.device("cpu")
    with nullcontext() if found is None else rendezvous.meet(found, PATIENCE).group(device, PATIENCE):
        extract(net, Noise(BATCH), device)  # what a first time brings: sockets, threads, kernels
        with Peak() as peak:
            result = extract(net, Noise(int(samples)), device)
        told = {"peak": peak.mib, "result": sum(part.nbytes for part in result) / 2**20}
        Path(folder, f"{distributed.rank()}.json").write_text(json.dumps(told))


def peaks(processes: int, samples: int, width: int) -> list[dict[str, float]]:
    """What each process that extracts with the others has told."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RANK, folder, str(samples), str(width)]
        if status := launch.start_here(command, processes, "cpu"):
            raise RuntimeError(f"a process that extracts features ended with {status}; its own error is above")
        return [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*.json"))]


def memory(run: Run) -> Measured:
    """The largest growth of any process, alone or of two, whose shares are not equal."""
    samples, width = run.pick((100_001, 512), (1_001, 16))
    found = {str(count): peaks(count, samples, width) for count in (1, 2)}
    highest = {count: max(told["peak"] for told in ranks) for count, ranks in found.items()}
    return Measured([max(highest.values())], [found["1"][0]["result"]], {"by_processes": highest})


CASES = [
    Case("extract_memory", memory, "MiB", "the result itself", bar="<= 1.3",
         note="peak of one process and of each of two (gloo) that extract 100,001 x 512 features"),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
