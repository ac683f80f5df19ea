"""A damaged checkpoint is refused with a sentence, or the damage lay where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import runs
from ssl_zoo.backbones.weights import _content
from ssl_zoo.errors import ConfigError
from tests.fuzz.damage import damaged

FIXTURE = Path(__file__).parents[1] / "fixtures" / "ff847eb" / "simclr" / "checkpoints" / "last.ckpt"


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, tensors, their types and containers."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_equality_sees_a_bit() -> None:
    x, y = torch.zeros(4), torch.zeros(4)
    y[2] = 1e-45
    assert same({"a": [x]}, {"a": [torch.zeros(4)]}) and not same({"a": [x]}, {"a": [y]})


def test_damaged_checkpoints_are_refused_or_whole(tmp_path: Path, tried: Callable[[str], None]) -> None:
    content, whole, file = FIXTURE.read_bytes(), runs.read_checkpoint(FIXTURE), tmp_path / "x.ckpt"
    refused, count = 0, 200
    for seed in range(count):
        file.unlink(missing_ok=True)  # a file of its own each time: what was verified once is not verified again
        file.write_bytes(damaged(content, seed))
        try:
            found = runs.read_checkpoint(file)
        except ConfigError as error:
            assert str(error).startswith(f"checkpoint={file}: "), seed
            refused += 1
        else:
            assert same(found, whole), seed
    assert refused > 0.8 * count
    tried(f"{count} damaged checkpoints: {refused} refused, {count - refused} read to the last bit")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_weights_are_refused_or_tensors(suffix: str, tmp_path: Path, tried: Callable[[str], None]) -> None:
    from safetensors.torch import save_file

    state = {key: torch.randn(4, 5) for key in "abc"}
    file, refused = tmp_path / f"w{suffix}", 0
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    content = file.read_bytes()
    for seed in range(100):
        file.unlink()
        file.write_bytes(damaged(content, seed))
        try:
            assert all(isinstance(value, torch.Tensor) for value in _content(file, str(file)).values())
        except ConfigError as error:
            assert str(error).startswith(f"weights={file} "), seed
            refused += 1
    tried(f"100 damaged {suffix} files: {refused} refused")
