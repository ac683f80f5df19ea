"""Sockets between ranks, with threads in the place of processes."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import neighbours
from ssl_zoo.neighbours import Neighbours

WORLD = 3


def everywhere(function: Callable[[int], Any], world: int = WORLD) -> list[Any]:
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(function, range(world)))


def meet(world: int = WORLD, told: Callable[[int, Any], Any] = lambda rank, item: item) -> list[Neighbours | None]:
    """Every rank's end; ``told`` is what reaches the others of what a rank tells."""
    items: list[Any] = [None] * world
    all_are_here = threading.Barrier(world)

    def tell(rank: int, item: Any) -> list[Any]:
        items[rank] = told(rank, item)
        all_are_here.wait(300)
        found = list(items)
        all_are_here.wait(300)
        return found

    return everywhere(lambda rank: Neighbours.meet(rank, world, lambda item: tell(rank, item)), world)


@pytest.fixture
def ends() -> Iterator[list[Neighbours]]:
    ends = meet()
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 3, 64), torch.float32),
        ((), torch.int64),
        ((5,), torch.bool),
        ((2, 0, 3), torch.float32),
        ((700, 40), torch.float64),  # 224,000 bytes: four pieces
        ((3, 11), torch.bfloat16),
    ],
)
def test_every_rank_has_the_tensors_of_all_in_their_order(
    ends: list[Neighbours], shape: tuple[int, ...], kind: torch.dtype
) -> None:
    given = [torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(rank)).to(kind) for rank in range(3)]
    for out in everywhere(lambda rank: ends[rank].gather(given[rank])):
        assert out.dtype == kind
        assert torch.equal(out, torch.stack(given))


def test_rows_that_do_not_lie_side_by_side(ends: list[Neighbours]) -> None:
    given = torch.arange(24.0).view(3, 2, 4)
    outs = everywhere(lambda rank: ends[rank].gather(given[rank].T))
    assert all(torch.equal(out, given.transpose(1, 2)) for out in outs)


def test_a_rank_that_is_far_ahead_loses_nothing(ends: list[Neighbours]) -> None:
    def many(rank: int) -> list[float]:
        return [ends[rank].gather(torch.tensor(float(10 * step + rank))).sum().item() for step in range(500)]

    assert everywhere(many) == [[30.0 * step + 3 for step in range(500)]] * 3


def test_the_end_of_a_process_is_an_error_with_its_name(ends: list[Neighbours]) -> None:
    ends[1].close()
    for rank in (0, 2):
        with pytest.raises(RuntimeError, match="process 1 ended while the others went on; its own error is the cause"):
            ends[rank].gather(torch.zeros(2))


def test_silence_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "PATIENCE", 0.06)
    ends = meet()
    with pytest.raises(RuntimeError, match=r"process 0 has sent nothing for 0 minutes: it hangs"):
        ends[2].gather(torch.zeros(2))
    for end in ends:
        end.close()


def test_where_one_cannot_reach_another_nobody_has_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = meet(told=lambda rank, item: f"/nowhere/{rank}" if rank == 0 and isinstance(item, str) else item)
    assert elsewhere == [None] * WORLD
    (tmp_path / ("a" * 120)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("a" * 120)))
    assert meet() == [None] * WORLD
    monkeypatch.delattr(socket, "AF_UNIX")
    assert meet() == [None] * WORLD


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ends = meet()
    held = [peer for end in ends for peer in end.sockets.values()]
    assert list(tmp_path.iterdir()) == []
    assert len(held) == WORLD * (WORLD - 1)
    del ends
    assert all(peer.fileno() == -1 for peer in held)
