"""One test for every case of every file under ``--goldens DIR``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.golden.cases import discover
from tests.golden.device import everything_on
from tests.pool import GlooPool


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        folder = metafunc.config.getoption("goldens")
        cases = discover(folder)
        if not cases:
            raise pytest.UsageError(f"--goldens {folder}: no recorded case (a .json file beside a .npz file) is in it")
        metafunc.parametrize("case", cases, ids=str)


@pytest.fixture(scope="session", autouse=True)
def device(request: pytest.FixtureRequest) -> None:
    """The recorded numbers and all that is computed from them lie on ``--device``, in the processes of a pool too."""
    everything_on(request.config.getoption("device"))


@pytest.fixture(scope="session")
def pools(request: pytest.FixtureRequest, device: None) -> Iterator[Callable[[int], GlooPool]]:
    """Pool of as many processes as a case was recorded on; the usual two are the pool of the whole test run."""
    others: dict[int, GlooPool] = {}

    def of(world: int) -> GlooPool:
        if world == 2:
            return request.getfixturevalue("pool")
        return others.setdefault(world, others.get(world) or GlooPool(world, request.config.getoption("device")))

    yield of
    for pool in others.values():
        pool.close()
