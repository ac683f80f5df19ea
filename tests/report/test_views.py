from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo.augmentations.image.views import Normalize, ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.sampler import order
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError
from ssl_zoo.report import views

CROP = {"image/random_resized_crop": {"scale": [0.2, 1.0]}}
TWO_AND_ONE = [{"count": 2, "size": 32, "ops": [CROP]}, {"size": 16, "kind": "local", "ops": [CROP]}]


def images(*sizes: tuple[int, int], channels: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (channels, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def test_normalisation_is_undone_and_clipped():
    x = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    normalize = Normalize({"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}, 3)
    assert torch.allclose(views.denormalize(normalize(x), normalize), x, atol=1e-6)
    assert views.denormalize(torch.full((3, 1, 1), 1.2), Normalize(None, 3)).max() == 1.0


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (2, (4, 5)), (3, (4, 5, 3)), (4, (4, 5, 3))])
def test_any_number_of_channels_makes_a_picture(channels: int, shape: tuple[int, ...]):
    x = torch.rand(channels, 4, 5)
    shown = views.picture(x)
    assert shown.shape == shape
    assert np.array_equal(shown[..., 0] if len(shape) == 3 else shown, x[0].numpy())


def test_the_views_are_those_of_the_first_training_batch():
    pipeline = ViewPipeline(TWO_AND_ONE, None)
    (image,) = images((40, 40))
    batch, _ = pipeline(image[None].expand(4, -1, -1, -1), Draw(stream_key(3, "train", 0), torch.arange(4)))
    shown = views._views(pipeline, image, seed=3, slot=2)
    # A worker's crop is rounded to whole grey levels, the batch's is not.
    assert max(float((one - many[2]).abs().max()) for one, many in zip(shown, batch, strict=True)) <= 2 / 255


def test_titles_name_kind_and_size():
    pipeline = ViewPipeline(TWO_AND_ONE, None)
    shown = views._views(pipeline, images((40, 40))[0], seed=0, slot=0)
    assert views._titles(pipeline, shown) == ["view 0, 32 px", "view 1, 32 px", "local 0, 16 px"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_different_sizes_make_one_picture(tmp_path: Path, channels: int):
    pipeline = ViewPipeline(TWO_AND_ONE, {"mean": [0.5], "std": [0.25]}, channels)
    before = torch.get_rng_state()
    path = views.save_views(
        pipeline, images((40, 30), (64, 64), (20, 50), channels=channels), tmp_path / "a" / "views.png", rows=2
    )
    assert torch.equal(torch.get_rng_state(), before), "drawing must not change what a run draws"
    assert path == tmp_path / "a" / "views.png"
    width, height = Image.open(path).size
    assert (width, height) == (510, 285)  # 4 columns and 2 rows of 125 pixels, and a line of titles


def test_no_images_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no image to draw"):
        views.save_views(ViewPipeline(TWO_AND_ONE, None), [], tmp_path / "views.png")


class Files:
    """Ten grey images, the broken ones unreadable."""

    damage_limit = 3

    def __init__(self, broken: Collection[int]) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def load(self, index: int, shrink: object = None) -> torch.Tensor:
        if index in self.broken:
            raise DamagedFile(f"{index}.png", "cut short")
        return torch.full((1, 4, 4), index, dtype=torch.uint8)


def test_the_images_are_the_first_of_the_run_and_damaged_ones_are_replaced():
    first = order(5, 0, 10)[:3].tolist()
    data = SimpleNamespace(first=lambda rows: order(5, 0, 10)[:rows].tolist(), train=Files(broken=[first[1]]))
    shown = [int(image[0, 0, 0]) for image in views.first_images(data, 3)]
    assert shown == [first[0], (first[1] + 1) % 10, first[2]]


def test_only_damaged_files_is_the_error_of_training():
    data = SimpleNamespace(first=lambda rows: list(range(rows)), train=Files(broken=range(10)))
    with pytest.raises(ConfigError, match=r"(?s)samples cannot be read.*cut short"):
        views.first_images(data, 3)


def test_dark_images_are_drawn_brighter_and_the_picture_says_so():
    dark = [[np.linspace(0, 0.2, 256).reshape(16, 16), np.full((16, 16), 0.1)] for _ in range(2)]
    figure = views.grid(dark, ["original", "view"], 9)
    assert figure.get_supxlabel() == "bands 0, 1 and 2 of 9 as red, green and blue, drawn 5.0 times as bright"
    cells = [axis.images[0].get_array() for axis in figure.axes]
    assert cells[0].max() == 1 and np.median(cells[0]) == pytest.approx(0.5, abs=0.01)
    assert np.allclose(cells[1], 0.5, atol=0.01)  # views by the same number as their originals
    figure = views.grid([[cell * 4 for cell in row] for row in dark], ["original", "view"], 3)
    assert figure.get_supxlabel() == "" and np.allclose(figure.axes[1].images[0].get_array(), 0.4)
