"""Exemplar-CNN: classes are images; the cost of many of them; what goes with which form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo import build, config
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.exemplar_cnn import ExemplarCNN
from tests.golden.harness import Identity, no_recipe
from tests.helpers import tiny_batch, tiny_method


def of(samples: int, width: int = 3, **options: object) -> ExemplarCNN:
    info = image_info(samples=samples, classes=None, image_size=1, channels=1, batch_size=4)
    return ExemplarCNN(Identity(width), no_recipe(), info, **options)  # type: ignore[arg-type]


def test_the_class_of_a_view_is_the_index_of_its_image() -> None:
    method, batch = tiny_method("exemplar_cnn"), tiny_batch([16, 16])
    found = method.training_loss(batch)
    h = method.passes(method.backbone, batch.views)
    wanted = torch.stack([F.cross_entropy(method.top(x), batch.index) for x in h]).mean()
    torch.testing.assert_close(found["loss"], wanted)
    assert method.top.out_features == 64 and method.uniform_loss == pytest.approx(math.log(64))


def test_more_views_of_an_image_are_more_samples_of_its_class() -> None:
    method = of(6).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([4, 1])
    together = method.training_loss(Batch(list(x), index, None, tiny_batch([16]).rng))["loss"]
    alone = [method.training_loss(Batch([view], index, None, tiny_batch([16]).rng))["loss"] for view in x]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_many_images_cost_much_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"a class for each of 50,001 images, 0\.0 GiB of weights and as many scores a "
                      r"view; data\.subset=25000 takes fewer images, and method\.loss=triplet costs the same"):
        of(50_001)
    assert of(50_001, loss="triplet").top is None


def test_what_does_not_go_together_is_told() -> None:
    with pytest.raises(ValueError, match="method.projector stands before triplets only; set it to null, or method"):
        of(6, projector=Identity)
    words = ["method=exemplar_cnn", "data=synthetic", "method.loss=triplet", "global_views=1"]
    with pytest.raises(ConfigError, match="method.loss=triplet compares views of a sample and augmentation.views give"):
        build.check_signatures(config.load(words))
    with pytest.raises(ConfigError, match="method.unit_axis=2"):
        build.check_signatures(config.load(["method=exemplar_cnn", "data=synthetic", "method.unit_axis=2"]))
