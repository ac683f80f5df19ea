"""Colorization: bins of the gamut, the counted prior, what the encoder sees, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo import cli, config
from ssl_zoo.augmentations.image.colorspace import lab_to_rgb, rgb_to_lab
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.build import build_data, build_method, check_signatures
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.colorization import rarity
from ssl_zoo.modules.color_bins import gamut_bins, square_bins, square_index
from ssl_zoo.modules.color_prior import ColorPrior, prior_problem
from tests.helpers import TINY, info, tiny_batch, tiny_config, tiny_method

VIEWS = [[1, 16, 16], [2, 16, 16]]
SIGGRAPH = ["method.form=siggraph17"]


def touched(points: int) -> set[tuple[int, ...]]:
    """Corners of the cells of 10 x 10 that the faces of the RGB cube touch: the rim of the gamut is among them."""
    side = torch.linspace(0, 1, points, dtype=torch.float64)
    u, v = side.repeat_interleave(points), side.repeat(points)
    ends = [torch.full_like(u, end) for end in (0.0, 1.0)]
    faces = [torch.stack([*(u, v)[:k], end, *(u, v)[k:]], 1) for k in range(3) for end in ends]
    ab = rgb_to_lab(torch.cat(faces)[:, :, None, None])[:, 1:, 0, 0]
    cells = (ab / 10).floor().long().unique(dim=0)
    return {tuple(10 * (c + n) for c, n in zip(cell, corner, strict=True))
            for cell in cells.tolist() for corner in itertools.product((0, 1), repeat=2)}  # fmt: skip


def test_the_bins_are_those_around_the_gamut_and_four_of_the_authors():
    bins = {tuple(int(x) for x in row) for row in gamut_bins().tolist()}
    corners = touched(257)
    assert len(bins) == 313 and len(corners) == 309
    assert bins - corners == {(40, 90), (100, -90), (100, -10), (100, 0)} and not corners - bins


def test_square_bins_are_numbered_as_they_lie():
    centres = square_bins()
    assert centres.shape == (529, 2)
    assert torch.equal(square_index(centres.T.view(1, 2, 23, 23)).flatten(), torch.arange(529))


def test_colours_come_back_from_lab():
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(x)), x, atol=1e-5, rtol=0)


def test_the_prior_counts_each_batch_before_it_weighs_it_and_keeps_it_after_the_gradient():
    prior = ColorPrior(3)
    wanted = rarity(torch.tensor([0.75, 0.25, 0.0]))
    torch.testing.assert_close(prior.weights(torch.tensor([3.0, 1.0, 0.0]), 0.5), wanted)
    assert prior.counts.tolist() == [0, 0, 0]
    prior.commit()
    prior.weights(torch.tensor([0.0, 0.0, 4.0]), 0.5)
    prior.commit()
    assert prior.counts.tolist() == [3, 1, 4]
    prior.tell(torch.tensor([0.5, 0.25, 0.25]))
    prior.weights(torch.tensor([0.0, 9.0, 0.0]), 0.5)
    prior.commit()
    assert prior.counts.tolist() == [0.5, 0.25, 0.25]


def test_grey_images_teach_nothing_in_either_form():
    for words in ([], SIGGRAPH):
        method, batch = tiny_method("colorization", words).eval(), tiny_batch(VIEWS)
        batch.views[1] = torch.where(torch.arange(8).view(-1, 1, 1, 1) < 4, batch.views[1], 0.01)
        batch.views[0].requires_grad_()
        method.training_loss(batch)["loss"].backward()
        moved = batch.views[0].grad.flatten(1).abs().amax(1)
        assert (moved[:4] > 0).all() and (moved[4:] == 0).all()


def test_the_regression_sends_no_gradient_into_the_encoder():
    method, batch = tiny_method("colorization", SIGGRAPH), tiny_batch(VIEWS)
    method.training_loss(batch)["numbers"].backward()
    trained = {name for name, p in method.named_parameters() if p.grad is not None}
    assert trained and all(name.startswith("decoder.regression.") for name in trained)


def test_targets_are_pixels_at_a_stride_and_no_finer_than_the_map():
    for stride, side in ((4, 4), (2, 8), (16, 4)):  # resnet8's last map of 16 pixels is 4 x 4
        method = tiny_method("colorization", [f"method.stride={stride}"])
        assert method.paint(torch.zeros(2, 1, 16, 16))[1].shape == (2, 313, side, side)


def test_both_views_are_of_one_crop():
    cfg = config.load([*TINY, "method=colorization", "data.source.samples=16", "trainer=cpu"])
    data = build_data(cfg)
    raw = next(iter(data.train_dataloader()))
    light, colour = data.on_after_batch_transfer(raw, 0).views
    (first, _) = config.plain(cfg)["augmentation"]["views"]
    first["ops"][-1]["image/lab"].pop("keep")
    (lab,), _ = ViewPipeline([first], None)(raw.samples, Draw(stream_key(cfg.seed, "train", 0), torch.arange(8)))
    assert light.shape == (8, 1, 16, 16) and colour.shape == (8, 2, 16, 16)
    torch.testing.assert_close(torch.cat([light, colour], 1), lab)


@pytest.mark.parametrize(("words", "message"), [
    (["augmentation=simclr/small"], r"wanted two views of one crop, which end in image/lab .*; these keep \[None\]"),
    (["augmentation.views.1.tie=null"], "these are not tied to the first: image/random_resized_crop, image/flip"),
    (["method.prior=nowhere.npy"], r"method.prior=nowhere.npy cannot be read .*wanted a .npy file of 313 shares"),
    (["method.form=eccv"], "method.form='eccv'"),
])  # fmt: skip
def test_wrong_settings_are_refused_before_anything_is_built(words, message):
    with pytest.raises(ConfigError, match=message):
        check_signatures(config.load([*TINY, "method=colorization", *words]))


def test_priors_of_another_size_and_images_without_colour_are_refused(tmp_path):
    np.save(tmp_path / "prior.npy", np.ones(529))
    assert "holds float64 of shape [529]; wanted 313 shares" in prior_problem(str(tmp_path / "prior.npy"), 313)
    assert prior_problem(str(tmp_path / "prior.npy"), 529) is None
    grey = image_info(samples=64, classes=4, image_size=16, channels=1, batch_size=8)
    with pytest.raises(ConfigError, match="learns colours, and images have 1 channels; wanted data.channels=3"):
        build_method(tiny_config("colorization"), grey)
    with pytest.raises(ConfigError, match=r"got a view of shape \[1, 1, 16, 16\], wanted \[B, 3, H, W\]; set backb"):
        build_method(tiny_config("colorization", ["backbone.in_channels=3"]), info())


def test_a_run_is_judged_exported_and_painted_from_the_command_line(tmp_path: Path, capsys):
    prior = tmp_path / "prior.npy"
    np.save(prior, np.linspace(1, 2, 313))
    words = [*TINY, "backbone.width=4", "method.decoder.width=8", f"method.prior={prior}", "trainer.max_epochs=1",
             "data.source.samples=32", "data.source.val_samples=16", "trainer=cpu", "logger=csv"]  # fmt: skip
    run = tmp_path / "run"
    assert cli.train(["method=colorization", *words, f"hydra.run.dir={run}"]) == 0
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state["prior.counts"].double(), torch.linspace(1, 2, 313).double() / (1.5 * 313))
    prior.unlink()  # who judges need not have it
    for protocol in ("knn", "linear"):
        assert cli.evaluate([f"checkpoint={run}", f"protocol={protocol}", "device=cpu"]) == 0
        assert json.loads((run / "evaluation" / f"{protocol}.json").read_text())["features"] == 16
    assert cli.entry(["export", f"run={run}"]) == 0
    card = json.loads(next(run.glob("export/*.json")).read_text())
    assert card["preprocessing"]["input"].startswith("[B, 1, H, W]")
    assert card["preprocessing"]["ops"][-1]["image/lab"]["keep"] == [0]
    assert cli.entry(["report", "reconstruction", str(run), "images=2"]) == 0
    with Image.open(run / "reconstruction.png") as picture:
        assert picture.size[0] > picture.size[1]  # three columns, two rows
