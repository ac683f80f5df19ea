import warnings
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.source import image_info
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.errors import ConfigError
from tests.data.helpers import augmentation, batches, files, memory, pictures


def test_info_is_of_the_subset_and_of_one_micro_batch():
    data = memory(batch_size=8, subset=20, accumulate=2)
    assert data.info == image_info(samples=20, classes=4, image_size=16, channels=3, batch_size=4)
    assert data.batch_size == 8
    index = torch.cat([batch.index for batch in batches(data)])
    assert int(index.max()) < 20


def test_a_batch_has_normalised_views_and_draws_of_its_slots():
    (batch, *_) = batches(memory())
    assert isinstance(batch, Batch) and len(batch.views) == 2
    assert all(view.shape == (8, 3, 16, 16) and view.dtype == torch.float32 for view in batch.views)
    assert -2.0 - 1e-6 <= float(batch.views[0].min()) and float(batch.views[0].max()) <= 2.0 + 1e-6
    assert batch.rng.slot.tolist() == list(range(8)) and batch.rng.sample("mask").uniform("m", 3).shape == (8, 3)
    assert batch.label.shape == batch.index.shape == (8,)


def test_evaluation_may_see_another_size():
    views = augmentation()
    views["eval"] = {"ops": ["image/resize"], "size": 24}
    data = ImageData(partial(synthetic, samples=8, val_samples=4), 4, 16, 3, views)
    view, *_ = next(iter(data.val_loader()))
    assert view.shape == (4, 3, 24, 24)


def test_other_batches_pass_untouched():
    data, other = memory(), [torch.ones(2)]
    assert data.on_after_batch_transfer(other, 0) is other


def test_held_out_samples_take_the_place_of_the_sets_own():
    data = memory(samples=40, val_fraction=0.25)
    assert (data.info.samples, data.val_loader().samples) == (30, 10)
    assert memory(samples=40).val_loader().samples == 10  # the set's own
    assert not set(data.train.positions.tolist()) & set(data.val.positions.tolist())


def test_where_is_a_rule_on_data_and_device(tmp_path):
    pictures(tmp_path, 8)
    assert memory().describe("cpu") == (
        "samples in memory, views in batches on cpu (auto: a CPU makes views of what lies in memory in batches)"
    )
    assert memory(where="worker", workers=0).describe("cuda") == (
        "views one by one in this process (augmentation.where=worker)"
    )
    large = files(tmp_path, workers=2)
    assert large.describe("cpu") == (
        "decoding and crops in 2 workers, the rest of the views in batches on cpu "
        "(auto: 16 px is at most 96, where a CPU is faster in batches)"
    )
    large.image_size = 224
    assert large.describe("cpu") == (
        "views one by one in 2 workers (auto: 224 px is more than 96, where a CPU is faster image by image)"
    )
    assert large.describe("cuda") == (
        "decoding and crops in 2 workers, the rest of the views in batches on cuda "
        "(auto: an accelerator always makes the views itself)"
    )
    large.where = "device"
    assert large.describe("cpu").endswith("in batches on cpu (augmentation.where=device)")


def test_where_is_kept_on_resume(tmp_path):
    pictures(tmp_path, 8)
    first = files(tmp_path)
    first.where = "worker"
    second = files(tmp_path)
    second.load_state_dict(first.state_dict())
    assert second.describe("cpu").startswith("views one by one in this process")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "devcie"}, ["augmentation.where=devcie", "did you mean 'device'?"]),
        ({"batch_size": 64}, ["30 samples, fewer than data.batch_size=64", "try data.batch_size=16"]),
        ({"accumulate": 3}, ["data.batch_size=8", "try data.batch_size=9"]),
        ({"subset": 31}, ["data.subset=31"]),
    ],
)
def test_wrong_options_fail_at_construction(options, words):
    with pytest.raises(ConfigError) as error:
        memory(**options)
    assert all(word in str(error.value) for word in words), error.value


def test_labels_of_an_unlabelled_set():
    with pytest.raises(ConfigError, match="data.labels=0.1: the training set has no labels; set data.labels=null"):
        ImageData(lambda **k: synthetic(k["image_size"], 3, classes=None), 8, 16, 3, augmentation(), labels=0.1)


def test_images_of_all_sizes_need_a_first_operation_that_cuts(tmp_path):
    pictures(tmp_path, 8)
    data = augmentation()
    data["views"][0]["ops"] = data["views"][0]["ops"][1:]
    from ssl_zoo.data.image.folder import folder

    with pytest.raises(ConfigError, match="augmentation.views: view 0, 1 does not begin with a crop or a resize"):
        ImageData(lambda **k: folder(**k, cache=False), 4, 16, 3, data, root=str(tmp_path))


class Stopped(Exception):
    pass


class Stop(Checkpoint):
    """Save and stop after so many micro-batches; a Lightning ``Checkpoint``, so that it runs after other callbacks."""

    def __init__(self, path, after: int | None) -> None:
        self.path = path
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(pl_module.seen) == self.after:
            trainer.save_checkpoint(self.path)
            raise Stopped


class Recorder(pl.LightningModule):
    """A model whose weights depend on every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        torch.nn.init.ones_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.seen: list[tuple[int, list[int]]] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    def training_step(self, batch, batch_idx):
        self.seen.append((self.trainer.current_epoch, batch.index.tolist()))
        return self.layer(batch.views[0].mean((2, 3))).square().mean()


def fit(data, path=None, stop=None, resume=None, accumulate=1):
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=3,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            accumulate_grad_batches=accumulate,
            callbacks=[Stop(path, stop)],
        )
        try:
            trainer.fit(model, datamodule=data, ckpt_path=resume)
        except Stopped:
            assert stop is not None
    return model


@pytest.fixture()
def quiet(caplog):
    caplog.set_level("ERROR", logger="pytorch_lightning")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_lightning_run_that_is_stopped_anywhere_and_resumed_is_the_whole_run(tmp_path, quiet, accumulate):
    whole = fit(memory(accumulate=accumulate), accumulate=accumulate)
    n = 9 * accumulate
    assert len(whole.seen) == n and [epoch for epoch, _ in whole.seen] == sorted([0, 1, 2] * (n // 3))
    for stop in range(accumulate, n, accumulate):
        path = tmp_path / f"{stop}.ckpt"
        first = fit(memory(accumulate=accumulate), path, stop, accumulate=accumulate)
        second = fit(memory(accumulate=accumulate), resume=path, accumulate=accumulate)
        assert first.seen + second.seen == whole.seen, stop
        assert torch.equal(second.layer.weight, whole.layer.weight)


def test_a_lightning_run_with_workers_resumes(tmp_path, quiet):
    root, path = tmp_path / "images", tmp_path / "stopped.ckpt"
    pictures(root, 12)
    whole = fit(files(root, batch_size=4, workers=1))
    first = fit(files(root, batch_size=4, workers=2), path, stop=4)
    second = fit(files(root, batch_size=4, workers=0), resume=path)
    assert first.seen + second.seen == whole.seen
    assert torch.equal(second.layer.weight, whole.layer.weight)


def test_a_second_fit_begins_at_the_first_epoch(quiet):
    data = memory()
    assert fit(data).seen == fit(data).seen
