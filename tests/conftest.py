from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult
from PIL import Image

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


@pytest.fixture(scope="session", autouse=True)
def _files_are_read_once() -> Iterator[None]:
    """A process reads each file of ``conf/``, which no test changes, once: it composes hundreds of configurations."""
    inner = ConfigRepository.load_config
    read: dict[tuple[str, ...], ConfigResult | None] = {}

    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        sources = self.get_sources()
        if any(source.scheme() == "file" for source in sources):  # of a test's own
            return inner(self, config_path)
        key = (config_path, *(source.path for source in sources))
        if key not in read:
            read[key] = inner(self, config_path)
        return deepcopy(read[key])  # Hydra writes into it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_config)
        yield


@pytest.fixture(autouse=True)
def _what_a_process_has_in_common() -> Iterator[None]:
    pixels = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = pixels  # data.source.max_pixels is for a run, which has a process of its own
    assert torch.get_default_dtype() == torch.float32, "a test left another default dtype behind"
