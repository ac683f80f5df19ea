from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.pool import GlooPool


@pytest.fixture(scope="session")
def pool() -> Iterator[GlooPool]:
    pool = GlooPool(2)
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    yield
    assert torch.get_default_dtype() == torch.float32, "a test left another default dtype behind"
