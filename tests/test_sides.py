"""Images that are no squares: which sizes may be written, and that a run with them trains and evaluates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision.transforms.functional as TF

from ssl_zoo import bounds, build, config, worker
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import run
from ssl_zoo.sides import height_width, is_side, plain_side, square
from tests.augmentations.image_cases import draw, images
from tests.helpers import tiny_config
from tests.test_method_runs import RUN

RECTANGLE = ["data.image_size=[24,16]", "data.epoch_steps=3"]


@pytest.mark.parametrize("side", [0, -1, 2.0, True, "224", None, [4], [4, 4, 4], [4, 0], [4, "4"]])
def test_what_is_no_size_is_refused(side):
    assert not is_side(side) and plain_side(side) == side


def test_a_size_is_one_number_or_two():
    assert height_width(7) == (7, 7) and height_width([8, 4]) == (8, 4)
    assert plain_side([8, 4]) == (8, 4) and plain_side((5, 5)) == 5


def test_a_view_of_two_sides_is_resized_and_cut_as_torchvision_does():
    ops = [{"image/resize": {"interpolation": "bicubic"}}, {"image/random_crop_pad": {"padding": 3}}]
    x = images(4, 40, 30)
    (view,), reports = ViewPipeline([{"size": [24, 16], "ops": ops}], None)(x, draw(4))
    corner = next(value for name, value in reports.items() if name.endswith("corner"))
    padded = TF.pad(TF.resize(x, [24, 16], TF.InterpolationMode.BICUBIC).clamp(0, 1), [3])
    for i, (top, left) in enumerate(corner.tolist()):
        torch.testing.assert_close(view[i], padded[i, :, top : top + 24, left : left + 16])


def test_a_method_that_cuts_squares_says_so():
    with pytest.raises(ConfigError, match=r"works on square images, and data.image_size is \[24, 16\]; set .*=24"):
        square(image_info(64, 4, (24, 16), 3, 8))


def test_two_sides_in_a_checkpoint_are_read_and_bounded():
    said = {"samples": 64, "classes": 4, "image_size": [24, 16], "channels": 3, "batch_size": 8}
    assert bounds.data_info(said, "x.ckpt").image_size == (24, 16)
    for sides in ([24, 0], [24, 1 << 20], [24], "24"):
        with pytest.raises(ConfigError, match="data_info.image_size is"):
            bounds.data_info({**said, "image_size": sides}, "x.ckpt")
    assert bounds.number_problem("data.image_size.1", 1 << 20)


def test_a_network_may_be_built_for_another_size_than_the_data():
    cfg = tiny_config("simclr", ["backbone.image_size=24"])  # fine-tuning at another size does
    assert build.build_method(cfg, image_info(64, 4, 16, 3, 8)).backbone.image_size == 24


def test_a_run_on_rectangles_trains_and_is_evaluated(tmp_path: Path):
    spcl = ["method.k1=6", "method.k2=2", "method.min_samples=3"]
    cfg = tiny_config("spcl", [*RUN, *RECTANGLE, *spcl, "callbacks=none"])
    cfg.run_dir = str(tmp_path)
    worker.run(cfg, tmp_path)
    result = run(config.load([f"checkpoint={tmp_path}", "protocol=knn", "protocol.k=5"], "evaluate"))
    assert 0 <= result["top1"] <= 100
    method, read, checkpoint = build.load_method(tmp_path)
    assert checkpoint["global_step"] == 3 * cfg.trainer.max_epochs
    assert list(read.data.image_size) == [24, 16] and method.data_info.image_size == (24, 16)
