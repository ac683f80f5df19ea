"""One test for every case of every file under ``--goldens DIR``, and for every field under ``--recipes DIR``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.golden.cases import discover
from tests.golden.device import everything_on
from tests.golden.recipes.recorded import BESIDE, recorded_in
from tests.pool import GlooPool

SHOWN = 15  # one recipe of so many is compared in `make test`, all of them in `make test-all`


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        folder = metafunc.config.getoption("goldens")
        cases = discover(folder)
        if not cases:
            raise pytest.UsageError(f"--goldens {folder}: no recorded case (a .json file beside a .npz file) is in it")
        metafunc.parametrize("case", cases, ids=str)
    if "together" in metafunc.fixturenames:
        shared = [case for case in discover(metafunc.config.getoption("goldens")) if not case.has_its_own_entry]
        files = [list(group) for _, group in groupby(shared, key=lambda case: case.file)]
        metafunc.parametrize("together", files, ids=[group[0].file.stem for group in files])
    if "recorded" in metafunc.fixturenames:
        _every_field(metafunc, metafunc.config.getoption("recipes"))


def _every_field(metafunc: pytest.Metafunc, folder: Path) -> None:
    """Nothing is composed here: only the files are read."""
    runs = recorded_in(folder)
    if not runs:
        raise pytest.UsageError(f"--recipes {folder}: no recorded recipe (METHOD__RUN.json) is in it")
    marks = [[] if i % SHOWN == 0 else [pytest.mark.slow] for i in range(len(runs))]
    if "name" not in metafunc.fixturenames:
        every = [pytest.param(run, marks=mark, id=str(run)) for run, mark in zip(runs, marks, strict=True)]
        metafunc.parametrize("recorded", every)
        return
    fields = [
        pytest.param(run, name, marks=mark, id=f"{run}-{name}")
        for run, mark in zip(runs, marks, strict=True)
        for name in (*BESIDE, *run.fields)
    ]
    metafunc.parametrize(("recorded", "name"), fields)


@pytest.fixture
def recipes(request: pytest.FixtureRequest) -> Path:
    """The folder of recorded recipes."""
    return Path(request.config.getoption("recipes"))


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
