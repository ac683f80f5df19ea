"""Sixteen bits, floats and any number of bands from the file to the network: workers, memory, two processes."""

import json
from functools import partial
from itertools import islice

import pytest
import torch

from ssl_zoo import build, config, resume, runs, trust
from ssl_zoo.data.image import pixel_range, statistics
from ssl_zoo.data.image.arrays import Arrays
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.source import image_info
from ssl_zoo.data.source import Splits
from ssl_zoo.distributed import world_size
from ssl_zoo.optim.schedules import Progress
from tests.data.deep import KINDS, images
from tests.data.helpers import augmentation, batches
from tests.helpers import ROWS, quickly, tiny_config, train_step
from tests.pool import GlooPool


def data_of(root, kind, where="device", workers=0, normalize="measured", batch_size=8):
    options = {**augmentation(where=where), "normalize": normalize}
    source = partial(folder, cache=False)
    return ImageData(source, batch_size, 16, KINDS[kind][0], options, root=str(root), workers=workers)


@pytest.mark.parametrize("kind", quickly(["12-bit PNG", "float with nodata", "13 bands"], ["13 bands"]))
def test_workers_and_the_device_make_the_same_views(tmp_path, kind):
    images(tmp_path, kind)
    cropped, finished = data_of(tmp_path, kind, workers=1), data_of(tmp_path, kind, "worker", workers=1)
    raws = [next(iter(data.train_dataloader())) for data in (cropped, finished)]
    assert [raw.finished for raw in raws] == [False, True]
    assert raws[0].samples[0].dtype == (torch.float32 if "float" in kind else torch.uint16)
    one, other = (data.on_after_batch_transfer(raw, 0) for data, raw in zip((cropped, finished), raws, strict=True))
    for data in (cropped, finished):
        data.teardown("fit")
    for x, y in zip(one.views, other.views, strict=True):
        assert x.dtype == torch.float32 and (x - y).abs().max() < 1e-4
        assert x[0, 0].unique().numel() > 150  # of 256 pixels: with 8 bits of a smooth image there are far fewer


def test_float_crops_of_workers_are_not_taken_for_finished_views(tmp_path):
    images(tmp_path, "float -1 to 1")
    data = data_of(tmp_path, "float -1 to 1", normalize={"mean": [0.5], "std": [0.25]})
    (batch,) = batches(data, 1)
    assert batch.views[0].min() < -1 and batch.views[0].max() > 1  # flipped and normalised: beyond [0, 1]


def test_half_precision_does_not_round_the_images_before_their_views(tmp_path):
    from pytorch_lightning.plugins.precision import HalfPrecision

    images(tmp_path, "float -1 to 1")
    for data in (data_of(tmp_path, "float -1 to 1"), data_of(tmp_path, "float -1 to 1", workers=1)):
        raw = next(iter(data.train_dataloader()))
        exact = data.on_after_batch_transfer(raw, 0)
        halved = data.on_after_batch_transfer(HalfPrecision("bf16-true").convert_input(raw), 0)
        data.teardown("fit")
        assert all(torch.equal(x, y) for x, y in zip(exact.views, halved.views, strict=True))


def test_images_in_memory_and_in_files_give_the_same_evaluation_views(tmp_path):
    images(tmp_path, "13 bands")
    data = data_of(tmp_path, "13 bands")
    stored = torch.stack([data.train.load(i) for i in range(len(data.train))])
    memory = Arrays(stored, None, None, white=data.white)
    options = {**augmentation(), "normalize": "measured"}
    inside = ImageData(lambda **_: Splits(memory, None), 8, 16, 13, options)
    assert inside.normalization.numbers == data.normalization.numbers
    one, other = (torch.cat([views for views, _, _ in d.train_eval_loader()]) for d in (data, inside))
    assert (one - other).abs().max() < 1e-3


def test_what_was_decided_stands_for_the_words_and_is_not_decided_again(tmp_path, monkeypatch):
    images(tmp_path, "float with nodata")
    words = ["method=simclr", "data=folder", f"data.root={tmp_path}", "data.channels=1", "data.batch_size=8"]
    cfg = config.load([*words, "data.image_size=16", "data.source.cache=false", "augmentation.normalize=measured"])
    config.quick_check(cfg)
    data = build.build_data(cfg)
    resolved = json.loads(json.dumps(resume._resolved(cfg, data)))
    assert {"data.source.range", "augmentation.normalize"} <= set(resolved)
    assert all(trust.is_resolved(path, item) for path, item in resolved.items())
    runs.apply(cfg, resolved)
    monkeypatch.setattr(pixel_range, "decide", lambda *_: pytest.fail("decided again"))
    monkeypatch.setattr(statistics, "measure", lambda *_: pytest.fail("measured again"))
    again = build.build_data(cfg)
    assert again.train.source.reader.range == data.train.source.reader.range
    assert again.normalization.numbers == data.normalization.numbers
    assert torch.equal(again.sample(0), data.sample(0))


def steps(root: str, kind: str) -> dict[str, torch.Tensor]:
    """Loss and weights after two float64 steps on this rank's share of the batches."""
    channels = KINDS[kind][0]
    cfg = tiny_config("simclr", [f"data.channels={channels}"])
    method = build.build_method(cfg, image_info(16, None, 16, channels, 8)).double()
    method.progress = Progress(step=2, total=10, steps_per_epoch=2)
    method.bind(ROWS)
    method.train()
    data, losses = data_of(root, kind), []
    for raw in islice(data.train_dataloader(), 2):
        batch = data.on_after_batch_transfer(raw, 0)
        batch.views = [view.double() for view in batch.views]
        losses.append(train_step(method, batch)["loss"])
    total = torch.stack(losses)
    if world_size() > 1:
        torch.distributed.all_reduce(total)
        total /= world_size()
    return {"losses": total, **{key: value for key, value in method.state_dict().items() if torch.is_tensor(value)}}


@pytest.mark.parametrize("kind", quickly(["float with nodata", "13 bands"], ["13 bands"]))
def test_two_processes_equal_one(tmp_path, kind, pool: GlooPool):
    images(tmp_path, kind)
    one = steps(str(tmp_path), kind)
    for two in pool.run(steps, str(tmp_path), kind):
        assert two.keys() == one.keys()
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-11, atol=1e-11, msg=lambda m, k=key: f"{k}: {m}")
