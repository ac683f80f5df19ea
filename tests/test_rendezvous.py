"""Processes that meet: all come, some do not, some go; with threads, and with real processes where one must die."""

from __future__ import annotations

import re
import socket
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo import rendezvous
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranks import Ranks
from ssl_zoo.rendezvous import Meeting
from tests import patience


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ranks(world: int, each: int = 1) -> list[Ranks]:
    port = free_port()
    return [Ranks(i, world, i % each, str(i // each), "127.0.0.1", port, "srun") for i in range(world)]


def meet(found: list[Ranks], seconds: float = 60, then: Callable[[Meeting], Any] = lambda met: met) -> list[Any]:
    """What each gets, or the sentence with which it ends."""

    def one(rank: Ranks) -> Any:
        try:
            return then(rendezvous.meet(rank, seconds))
        except ConfigError as error:
            return str(error)

    with ThreadPoolExecutor(len(found)) as pool:
        return list(pool.map(one, found))


def test_all_come_and_hear_what_rank_0_decides() -> None:
    def then(meeting: Meeting) -> tuple[Any, ...]:
        if meeting.is_main:
            meeting.tell({"config": "a: 1"})
            meeting.tell(1)  # too late: they train
        return meeting.devices, meeting.nodes, meeting.node, None if meeting.is_main else meeting.hear()

    heard = {"config": "a: 1"}
    assert meet(ranks(4, each=2), then=then) == [(2, 2, 0, None), (2, 2, 0, heard), (2, 2, 1, heard), (2, 2, 1, heard)]


def test_what_all_say_one_says_first() -> None:
    def then(meeting: Meeting) -> tuple[bool, bool]:
        said = meeting.says_first("wrong, all of it"), meeting.says_first(f"wrong on {meeting.ranks.rank}")
        meeting.tell(0) if meeting.is_main else meeting.hear()  # the store is rank 0's: it stays until all have asked
        return said

    said = meet(ranks(3), then=then)
    assert sorted(first for first, _ in said) == [False, False, True] and all(own for _, own in said)


def test_who_has_not_come_is_named_on_all_that_have() -> None:
    found = ranks(4)
    wanted = (f"processes 1 and 3 of 4 have not come to 127.0.0.1:{found[0].port} within 1 s "
              "(trainer.rendezvous_timeout; started by srun); see what became of them, and whether that address can be "
              "reached from their hosts")  # fmt: skip
    assert meet([found[0], found[2]], 1) == [wanted, wanted]


def test_without_rank_0_the_others_say_so() -> None:
    (told,) = meet(ranks(2)[1:], 1)
    assert told.startswith("process 0 of 2 has not come to 127.0.0.1:")


def test_nodes_with_different_numbers_of_processes() -> None:
    found = ranks(3, each=2)
    told = meet(found)
    assert told == ["the nodes have different numbers of processes (2 on node 0, 1 on node 1); start equally many on "
                    "each"] * 3  # fmt: skip


def test_two_processes_of_one_place() -> None:
    found = [rank._replace(node="alpha", local_rank=0) for rank in ranks(2)]
    assert meet(found) == [
        "several processes say that they are LOCAL_RANK=0 of node alpha; number those of a node from 0 on, and give "
        "nodes with one host name different NODE_RANKs"
    ] * 2  # fmt: skip


def test_a_port_that_another_program_has() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=re.escape(
            f"MASTER_PORT={port}: the processes cannot meet at 127.0.0.1:{port} (another program of this host has that "
            "port); set MASTER_PORT to a free port, the same for all"
        )):  # fmt: skip
            rendezvous.meet(ranks(2)[0]._replace(port=port), 5)


SCRIPT = """
    import os, sys, time, torch
    from ssl_zoo import rendezvous
    from ssl_zoo.distributed import all_reduce_sum_
    from ssl_zoo.errors import ConfigError
    from ssl_zoo.ranks import Ranks
    torch.set_num_threads(1)
    rank, port, ends = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    meeting = rendezvous.meet(Ranks(rank, 3, rank, "0", "127.0.0.1", port, "srun"), 120)
    try:
        if ends == "before" and rank == 0:
            os._exit(3)
        if ends == "before":
            meeting.hear()
        with meeting.group(torch.device("cpu"), 3.0):
            for step in range(3):
                x = torch.ones(1 << 19)
                if step == 1 and rank == 1:
                    os._exit(3) if ends == "dies" else time.sleep(60) if ends == "hangs" else None
                all_reduce_sum_(x)
            print("sum", x[0].item())
    except ConfigError as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
"""


def three(tmp_path: Path, ends: str, until: tuple[int, ...]) -> dict[int, str]:
    """What three processes print, of which number 1 (or 0, before all) ends in some way."""
    (tmp_path / "rank.py").write_text(textwrap.dedent(SCRIPT))
    port = str(free_port())
    with ThreadPoolExecutor(3) as pool:
        command = [sys.executable, str(tmp_path / "rank.py")]
        jobs = {i: pool.submit(patience.run, [*command, str(i), port, ends], 120) for i in range(3)}
        return {i: jobs[i].result().stdout.strip() for i in until}


ENDED = "process {} of 3 ({}) ended {}; its own error is the cause"
HANGS = "process 1 of 3 ({}) has not answered for 3 s (trainer.collective_timeout): it hangs"
HOST = socket.gethostname()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "who", "wanted"),
    [
        ("well", (0, 2), "sum 3.0"),
        ("dies", (0, 2), ENDED.format(1, HOST, "while the others went on")),
        ("hangs", (0, 2), HANGS.format(HOST)),
        ("before", (1, 2), ENDED.format(0, HOST, "before the run began")),
    ],
)
def test_who_has_gone_is_named(tmp_path: Path, ends: str, who: tuple[int, ...], wanted: str) -> None:
    assert three(tmp_path, ends, who) == dict.fromkeys(who, wanted)
