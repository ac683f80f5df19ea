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
from tests.patience import is_in_time

SECONDS = 120  # of an idle machine, for an answer


def _serve(rank: int, world: int, port: int, device: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    everything_on(device)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    while (task := pipe.recv()) is not None:
        question, function, args = task
        try:
            pipe.send((question, True, function(*args)))
        except Exception:
            pipe.send((question, False, traceback.format_exc()))
    dist.destroy_process_group()


class GlooPool:
    """``world`` processes, whose tensors lie on ``device`` where nothing else is said.

    A question that is not answered in time ends the processes, which may still work on it or wait for each other; the
    next question starts new ones.
    """

    def __init__(self, world: int = 2, device: str = "cpu") -> None:
        self.world = world
        self.device = device
        self.questions = 0
        self.pipes: list[Any] = []
        self.processes: list[Any] = []

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = mp.get_context("spawn")
        for rank in range(self.world):
            ours, theirs = context.Pipe()
            arguments = (rank, self.world, port, self.device, theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that the end of the process ends the pipe
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any, seconds: float = SECONDS) -> list[Any]:
        """``function(*args)`` on every rank; its results in the order of ranks."""
        if not self.processes:
            self._start()
        self.questions += 1
        try:
            for pipe in self.pipes:
                pipe.send((self.questions, function, args))
            answers = [self._answer(rank, seconds) for rank in range(self.world)]
        except BaseException:
            self._kill()
            raise
        failures = [text for good, text in answers if not good]
        assert not failures, "\n".join(failures)
        return [result for _, result in answers]

    def _answer(self, rank: int, seconds: float) -> tuple[bool, Any]:
        if not is_in_time(self.pipes[rank].poll, seconds):
            raise TimeoutError(f"rank {rank} has not answered within {seconds} s")
        try:
            question, good, result = self.pipes[rank].recv()
        except EOFError:
            self.processes[rank].join(10)
            raise RuntimeError(f"rank {rank} ended with {self.processes[rank].exitcode} before it answered") from None
        assert question == self.questions, f"rank {rank} answers question {question}, asked was {self.questions}"
        return good, result

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()
        self.pipes, self.processes = [], []

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
        self._kill()
