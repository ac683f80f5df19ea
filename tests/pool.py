"""Two gloo processes that live as long as the test run: starting them once costs what one test would."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.golden.device import everything_on


def _serve(rank: int, world: int, port: int, device: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    everything_on(device)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    while (task := pipe.recv()) is not None:
        function, args = task
        try:
            pipe.send((True, function(*args)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


class GlooPool:
    """``world`` processes, whose tensors lie on ``device`` where nothing else is said."""

    def __init__(self, world: int = 2, device: str = "cpu") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = mp.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, port, device, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(*args)`` on every rank; its results in the order of ranks."""
        for pipe in self.pipes:
            pipe.send((function, args))
        results = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(120):
                raise TimeoutError(f"rank {rank} has not answered within 120 s")
            results.append(pipe.recv())
        failures = [text for good, text in results if not good]
        assert not failures, "\n".join(failures)
        return [result for _, result in results]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
