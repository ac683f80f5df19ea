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


@pytest.fixture(scope="session")
def pool() -> Iterator[GlooPool]:
    pool = GlooPool(2)
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    yield
    assert torch.get_default_dtype() == torch.float32, "a test left another default dtype behind"
