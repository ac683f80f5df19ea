"""Sockets between the processes of one host: how small tensors in main memory travel from rank to rank.

gloo hands every collective to threads of its own, which must first get a core from the threads that compute: 0.2 to
4 ms where all cores are busy. Through sockets it is 10 to 50 us, and a step exchanges some thirty of them.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 16  # bytes sent before reading: less than a socket holds, so that no rank waits for a reader that sends
PATIENCE = 30 * 60.0  # seconds of silence after which a rank is given up, as torch.distributed does


class Neighbours:
    """A socket to every other rank.

    Args:
        rank: Of this process.
        sockets: By the rank at the other end.
    """

    def __init__(self, rank: int, sockets: dict[int, socket.socket]) -> None:
        self.rank = rank
        self.sockets = sockets

    @classmethod
    def meet(cls, rank: int, world: int, tell: Callable[[Any], list[Any]]) -> Neighbours | None:
        """Connect all ranks: each calls the lower ones and is called by the higher ones.

        Args:
            rank: Of this process.
            world: Number of processes.
            tell: Collective that returns the items of all ranks, in their order.

        Returns:
            None, and that on every rank, if any two cannot reach each other: on several hosts, where the name of the
            temporary folder is too long for a socket's, or on a system without such sockets.
        """
        if not hasattr(socket, "AF_UNIX"):
            return None
        with tempfile.TemporaryDirectory(prefix="ssl-zoo-") as folder, socket.socket(socket.AF_UNIX) as listener:
            path = str(Path(folder) / "socket")
            try:
                listener.bind(path)
                listener.listen(world)
            except OSError:
                path = ""
            called = _call(tell(path)[:rank], rank)
            met = cls(rank, called or {})
            if not all(tell(path and called is not None)):
                met.close()
                return None
            for _ in range(rank + 1, world):
                peer, _ = listener.accept()
                peer.settimeout(PATIENCE)
                name = bytearray(4)
                _fill(memoryview(name), peer)
                met.sockets[int.from_bytes(name, "little")] = peer
            return met

    def gather(self, x: Tensor) -> Tensor:
        """``[W, *x.shape]``: the tensors of all ranks, of one shape and type, in the order of ranks.

        Raises:
            RuntimeError: A rank has ended, or says nothing for half an hour.
        """
        out = x.new_empty(len(self.sockets) + 1, *x.shape)
        out[self.rank] = x
        rows = out.view(len(out), x.numel()).view(torch.uint8).numpy()
        for begin in range(0, rows.shape[1], CHUNK):
            part = rows[:, begin : begin + CHUNK]
            for other, peer in self.sockets.items():
                with _named(other):
                    peer.sendall(part[self.rank])
            for other, peer in self.sockets.items():
                with _named(other):
                    _fill(memoryview(part[other]), peer)
        return out

    def close(self) -> None:
        for peer in self.sockets.values():
            peer.close()

    __del__ = close


def _call(paths: list[str], rank: int) -> dict[int, socket.socket] | None:
    """Sockets to the ranks that listen at ``paths``, which are told who calls; None if one cannot be reached."""
    sockets = {}
    try:
        for other, path in enumerate(paths):
            sockets[other] = peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(PATIENCE)
            peer.connect(path)
            peer.sendall(rank.to_bytes(4, "little"))
    except OSError:
        for peer in sockets.values():
            peer.close()
        return None
    return sockets


def _fill(place: memoryview, peer: socket.socket) -> None:
    while place:
        received = peer.recv_into(place)
        if not received:
            raise ConnectionResetError("end of the stream")
        place = place[received:]


@contextmanager
def _named(other: int) -> Iterator[None]:
    """What is wrong with a socket, as an error that names the process behind it."""
    try:
        yield
    except TimeoutError as error:
        raise RuntimeError(f"process {other} has sent nothing for {PATIENCE / 60:.0f} minutes: it hangs") from error
    except OSError as error:
        raise RuntimeError(f"process {other} ended while the others went on; its own error is the cause") from error
