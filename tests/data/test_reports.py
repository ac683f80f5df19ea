"""What operations say of a view reaches the method wherever they ran."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.decoders import STREAM
from tests.data.helpers import batches, files, pictures

KEYS = {f"{view}/image/{name}" for view in (0, 1) for name in ("random_resized_crop/box", "flip/flipped")}


@pytest.mark.parametrize("where", ["device", "worker"])
@pytest.mark.parametrize("workers", [0, 1])
def test_boxes_and_flips_reach_the_batch(tmp_path: Path, where: str, workers: int) -> None:
    pictures(tmp_path / "a", 8, size=(20, 24))
    data = files(tmp_path, where=where, workers=workers)
    (batch,) = batches(data, 1)
    data.teardown("fit")
    assert set(batch.extra) == KEYS
    draw = Draw(stream_key(data.seed, STREAM, 0), batch.rng.slot)
    for position, view in enumerate(data.views.views):
        box = view.ops[0].boxes(view.draw_of(0, draw), 20, 24)
        assert torch.equal(batch.extra[f"{position}/image/random_resized_crop/box"], box)
        flipped = view.ops[1].flipped(view.draw_of(1, draw))
        assert torch.equal(batch.extra[f"{position}/image/flip/flipped"], flipped)
