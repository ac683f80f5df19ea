"""Mean and deviation of each band, measured once."""

from functools import partial

import numpy as np
import pytest
import tifffile
import torch

from ssl_zoo.data.image.arrays import Arrays
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.statistics import measure, normalization
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from tests.data.deep import GDAL_NODATA, images
from tests.data.helpers import augmentation


def test_they_are_those_of_all_pixels_of_each_band():
    stored = torch.randint(0, 256, (20, 5, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found, n = measure(Arrays(stored, None, None))
    x = stored.double() / 255
    assert n == 20
    np.testing.assert_allclose(found["mean"], x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["std"], x.permute(1, 0, 2, 3).flatten(1).std(1, correction=0), rtol=1e-5)
    deep = Arrays((stored.int() * 16).to(torch.uint16), None, None, white=4080)
    assert measure(deep) == (found, 20)


def test_no_data_and_the_files_that_cannot_be_read_are_left_out(tmp_path):
    for i in range(4):
        pixels = np.full((8, 8), 10.0 + i, np.float32)
        pixels[:4] = -9999
        tifffile.imwrite(tmp_path / f"{i}.tif", pixels, extratags=[GDAL_NODATA])
    (tmp_path / "x.tif").write_bytes(b"II*\0broken")
    source = folder(str(tmp_path), 1, 8, cache=False, range=(0, 20)).train
    found, n = measure(source)
    assert n == 4 and found["mean"] == [0.575]
    assert found["std"] == [pytest.approx(np.std([0.5, 0.55, 0.6, 0.65]), rel=1e-5)]


def test_a_band_of_one_value_is_not_divided_by_nothing():
    stored = torch.zeros(3, 2, 4, 4, dtype=torch.uint8)
    stored[:, 1] = torch.arange(16, dtype=torch.uint8).view(4, 4)
    found, _ = measure(Arrays(stored, None, None))
    assert found["mean"][0] == 0 and found["std"][0] == 1 and found["std"][1] > 0


def test_numbers_of_colour_give_way_to_measured_ones_and_others_stay():
    five = Arrays(torch.randint(0, 256, (8, 5, 6, 6), dtype=torch.uint8), None, None)
    colour, one = {"mean": [0.4] * 3, "std": [0.2] * 3}, {"mean": [0.5], "std": [0.5]}
    assert normalization(None, five, 5) == (None, False, []) and normalization(one, five, 5) == (one, False, [])
    found = normalization(colour, five, 5)
    assert found.measured and len(found.numbers["mean"]) == 5
    assert "because those of the views are of colour" in found.told[0]
    asked = normalization("measured", five, 5)
    assert asked.numbers == found.numbers and "because" not in asked.told[0] and "and 1 more bands" in asked.told[0]
    with pytest.raises(ConfigError, match="augmentation.normalize='mesured': wanted .* measured or null"):
        normalization("mesured", five, 5)


def test_views_are_normalised_by_what_was_measured(tmp_path):
    root = images(tmp_path, "5 bands")
    options = {**augmentation(), "normalize": "measured"}
    data = ImageData(partial(folder, cache=False), 8, 48, 5, options, root=str(root), workers=0)
    assert data.resolved(torch.device("cpu"))["augmentation.normalize"] == data.normalization.numbers
    assert any(line.startswith("normalised by mean and deviation of 16 images") for line in data.decisions)
    views = torch.cat([view for view, _, _ in data.train_eval_loader()])
    assert views.mean((0, 2, 3)).abs().max() < 0.15 and (views.std((0, 2, 3)) - 1).abs().max() < 0.15
    again = ImageData(partial(folder, cache=False), 8, 48, 5, {**options, "normalize": data.normalization.numbers},
                       root=str(root), workers=0)  # fmt: skip
    assert torch.equal(torch.cat([view for view, _, _ in again.train_eval_loader()]), views)


def test_an_array_that_nothing_says_the_range_of_is_refused():
    with pytest.raises(ConfigError, match=r"hold values from -1 to 2, wanted floats in \[0, 1\]"):
        Arrays(torch.tensor([-1.0, 2.0]).view(1, 1, 1, 2), None, None)
    with pytest.raises(ConfigError, match="wanted .* of torch.uint8, torch.uint16, or floats"):
        Arrays(torch.zeros(1, 1, 2, 2, dtype=torch.int32), None, None)
    with pytest.raises(ConfigError, match="white=255: wanted a value from 256 to 65,535"):
        Arrays(torch.zeros(1, 1, 2, 2, dtype=torch.uint16), None, None, white=255)
    assert Splits(Arrays(torch.zeros(1, 7, 2, 2), None, None), None).train.channels == 7
