"""Where started processes meet: who is there, what rank 0 tells the others, and who has gone.

A store (``torch.distributed.TCPStore``) connects them before anything is known of the run. Only rank 0 reads the
command; what it decides, or the status with which all end, goes through the store to the others, and only then is the
process group of the run opened, with the backends and the patience that the configuration asks for.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ssl_zoo import distributed
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranks import Ranks, listed

PATIENCE = 600.0  # seconds for all to come, where nothing else is said
HANGS = 1800.0  # seconds without an answer, likewise
STEP = 0.05  # seconds between two looks
GRACE = 30.0  # seconds that the others wait for rank 0's verdict beyond its patience
SHOWN = 10  # processes that a message names
FAREWELL = 5.0  # seconds in which all that live say that a collective has failed
OF_COLLECTIVES = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)
TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)


class Present(NamedTuple):
    """What a process says of itself when it arrives."""

    host: str
    node: str
    local_rank: int


class Meeting:
    """All processes of a run, seen from one of them.

    Args:
        ranks: This process.
        store: What connects them.
        present: All of them, by rank.
    """

    def __init__(self, ranks: Ranks, store: Any, present: list[Present]) -> None:
        self.ranks = ranks
        self.store = store
        self.present = present

    @property
    def is_main(self) -> bool:
        return self.ranks.rank == 0

    @property
    def devices(self) -> int:
        """Processes of a node."""
        return Counter(one.node for one in self.present)[self.present[0].node]

    @property
    def nodes(self) -> int:
        return len({one.node for one in self.present})

    @property
    def node(self) -> int:
        """The number of this process's node, in the order of ranks."""
        return list(dict.fromkeys(one.node for one in self.present)).index(self.ranks.node)

    def tell(self, word: Any) -> None:
        """Say to the other processes what they wait for in :meth:`hear`; only the first word counts.

        Returns when all have heard it, or after some seconds: without this process the store may be gone.
        """
        self.store.compare_set("word", "", json.dumps(word))
        _waited(self.store, [f"heard/{rank}" for rank in range(1, self.ranks.world)], FAREWELL)

    def hear(self) -> Any:
        """Wait for rank 0's word, however long it builds.

        Raises:
            ConfigError: Rank 0 ended without one.
        """
        try:
            while _waited(self.store, ["word"], FAREWELL):
                pass
            word = json.loads(self.store.get("word"))
            self.store.set(f"heard/{self.ranks.rank}", "")
            return word
        except RuntimeError:  # the store was rank 0's
            raise ConfigError(f"{self._name(0)} ended before the run began; its own error is the cause") from None

    def says_first(self, sentence: str) -> bool:
        """Whether no other process has said this: of what all find wrong one tells."""
        try:
            return self.store.add(f"said/{sentence}", 1) == 1
        except RuntimeError:  # the store was rank 0's, which has said what it found, unless it was killed
            return self._name(0) in sentence

    @contextmanager
    def group(self, device: torch.device, patience: float) -> Iterator[None]:
        """The process group of the run; after it each process is on its own.

        Args:
            device: Of this process.
            patience: Seconds after which a collective that is not answered fails.

        Raises:
            ConfigError: If another process is gone, or does not answer; the message says which.
        """
        with self._named(patience):
            self._open(device, patience)
            yield
            distributed.leave()

    def _open(self, device: torch.device, patience: float) -> None:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = dist.PrefixStore("group", self.store)
        rank, world = self.ranks.rank, self.ranks.world
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=patience))

    @contextmanager
    def _named(self, patience: float) -> Iterator[None]:
        """Turn what a collective raises when a process is gone, or hangs, into a sentence that names it."""
        try:
            yield
        except RuntimeError as error:
            if not OF_COLLECTIVES.search(str(error)):
                raise
            absent = self._absent()
            if absent is None:
                raise
            hang = TIMED_OUT.search(str(error))
            how = f"has not answered for {patience:g} s (trainer.collective_timeout): it hangs"
            told = how if hang else "ended while the others went on; its own error is the cause"
            raise ConfigError(f"{absent} {told}") from error

    def _absent(self) -> str | None:
        """Who does not say within some seconds that a collective has failed; None: all do."""
        left = [f"failed/{rank}" for rank in range(self.ranks.world)]
        end = time.monotonic() + FAREWELL
        try:
            self.store.set(f"failed/{self.ranks.rank}", "")
            while left and time.monotonic() < end:
                left = _waited(self.store, left, STEP)
        except RuntimeError:  # the store was rank 0's, which has gone; what it had said before still counts
            left = left[:1] if left[0] == "failed/0" else left
        return ", ".join(self._name(_rank(key)) for key in left) or None

    def _name(self, rank: int) -> str:
        return f"process {rank} of {self.ranks.world} ({self.present[rank].host})"


def meet(found: Ranks, patience: float) -> Meeting:
    """Wait until all processes are there.

    Args:
        found: This process.
        patience: Seconds.

    Raises:
        ConfigError: If some do not come, with their numbers; or if nodes have different numbers of processes.
    """
    store = dist.PrefixStore(f"ssl_zoo/{found.attempt}", _store(found, patience))
    here = Present(socket.gethostname(), found.node, found.local_rank)
    try:
        store.set(f"here/{found.rank}", json.dumps(here))
        if found.rank == 0:
            left = _waited(store, [f"here/{rank}" for rank in range(found.world)], patience)
            verdict = _missing(left, found, patience) if left else _problem(store, found.world)
            store.set("verdict", verdict)
            _waited(store, [f"told/{rank}" for rank in range(1, found.world) if f"here/{rank}" not in left], FAREWELL)
        else:
            if _waited(store, ["verdict"], patience + GRACE):
                raise ConfigError(_missing(["here/0"], found, patience))
            verdict = store.get("verdict").decode()
            store.set(f"told/{found.rank}", "")
    except RuntimeError:
        raise ConfigError(f"process 0 of {found.world} at {found.address}:{found.port} is gone; its own error is the "
                          "cause") from None  # fmt: skip
    if verdict:
        raise ConfigError(verdict)
    return Meeting(found, store, _present(store, found.world))


def _store(found: Ranks, patience: float) -> Any:
    """Connect to where all meet; rank 0 opens it, unless the launcher has."""
    opens = found.rank == 0 and not found.hosted
    if not opens and not _answers(found.address, found.port, patience):
        raise ConfigError(_missing(["here/0"], found, patience))
    try:
        return dist.TCPStore(found.address, found.port, is_master=opens, wait_for_workers=False,
                             timeout=timedelta(seconds=patience))  # fmt: skip
    except RuntimeError as error:
        taken = "EADDRINUSE" in str(error)
        why = "another program of this host has that port" if taken else str(error).splitlines()[0]
        raise ConfigError(
            f"MASTER_PORT={found.port}: the processes cannot meet at {found.address}:{found.port} ({why}); "
            "set MASTER_PORT to a free port, the same for all"
        ) from None


def _answers(address: str, port: int, patience: float) -> bool:
    """Whether somebody listens there within the time; asked with a bare socket, for the store's own tries are loud."""
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((address, port), timeout=max(1.0, min(10.0, patience))).close()
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(2 * STEP)


def _present(store: Any, world: int) -> list[Present]:
    return [Present(*json.loads(store.get(f"here/{rank}"))) for rank in range(world)]


def _problem(store: Any, world: int) -> str:
    """What is wrong with those who are there; nothing: all is well."""
    present = _present(store, world)
    counts = Counter(one.node for one in present)
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{n} on node {node}" for node, n in sorted(counts.items()))
        return f"the nodes have different numbers of processes ({told}); start equally many on each"
    same = [place for place, n in Counter((one.node, one.local_rank) for one in present).items() if n > 1]
    if same:
        return (f"several processes say that they are LOCAL_RANK={same[0][1]} of node {same[0][0]}; number those of a "
                "node from 0 on, and give nodes with one host name different NODE_RANKs")  # fmt: skip
    return ""


def _missing(left: list[str], found: Ranks, patience: float) -> str:
    numbers = [str(_rank(key)) for key in left]
    many = len(numbers) > 1
    told = listed(numbers) if len(numbers) <= SHOWN else f"{', '.join(numbers[:SHOWN])} and {len(numbers) - SHOWN} more"
    return (
        f"{'processes' if many else 'process'} {told} of {found.world} {'have' if many else 'has'} not come to "
        f"{found.address}:{found.port} within {patience:.0f} s (trainer.rendezvous_timeout; started by {found.by}); "
        "see what became of them, and whether that address can be reached from their hosts"
    )


def _rank(key: str) -> int:
    return int(key.rpartition("/")[2])


def _waited(store: Any, keys: list[str], patience: float) -> list[str]:
    """The keys that nobody has set when the time is over; none as soon as all are."""
    end, left = time.monotonic() + patience, keys
    while True:
        left = [key for key in left if not store.check([key])]
        if not left or time.monotonic() >= end:
            return left
        time.sleep(STEP)
