from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.pool import GlooPool


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "golden" / "data",
        metavar="DIR",
        help="folder of recorded cases that tests/golden checks, searched recursively (default: tests/golden/data)",
    )
    parser.addoption(
        "--recipes",
        type=Path,
        default=Path(__file__).parent / "golden" / "data" / "recipes",
        metavar="DIR",
        help="folder of recorded recipes that tests/golden compares (default: tests/golden/data/recipes)",
    )
    parser.addoption("--device", default="cpu", help="where tests/golden computes: cpu, cuda or cuda:N (default: cpu)")


@pytest.fixture(scope="session")
def pool(request: pytest.FixtureRequest) -> Iterator[GlooPool]:
    pool = GlooPool(2, request.config.getoption("device"))
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    yield
    assert torch.get_default_dtype() == torch.float32, "a test left another default dtype behind"
