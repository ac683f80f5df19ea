"""LooC: what its views share, and one space for each."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo import build, config
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_config, tiny_method

SIZES = [16] * 4


def test_each_key_view_but_the_first_keeps_one_augmentation_of_the_query():
    augmentation = config.plain(config.load(["method=looc", "data=synthetic"]))["augmentation"]
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pipeline = ViewPipeline(augmentation["views"], augmentation["normalize"])
    _, reports = pipeline(images, Draw(stream_key(0, "train", 0), torch.arange(64)))
    assert pipeline.counts == (4, 0)
    turns = [reports[f"{view}/image/rotate90/turns"] for view in range(4)]
    assert [bool((t == turns[0]).all()) for t in turns] == [True, False, False, True]
    flips = [reports[f"{view}/image/flip/flipped"] for view in range(4)]
    assert [bool((f == flips[0]).all()) for f in flips] == [True, False, False, False]
    colours = [{pipeline.views[view].draws[i] for i in (3, 4)} for view in range(4)]
    assert colours[2] == {(0, 3), (0, 4)} and colours[1] == {(1, 3), (1, 4)} and colours[3] == {(3, 3), (3, 4)}


def test_a_queue_holds_the_keys_of_its_view_in_its_space():
    method = tiny_method("looc")
    method.begin_micro_batch(first=True)
    batch = tiny_batch(SIZES)
    method.training_loss(batch)["loss"].backward()
    method.on_after_backward()
    teacher = method.teacher.net
    for space, queue in enumerate(method.queues):
        order = batch.rng.shared(f"shuffle{space}").permutation(8)
        h = teacher[0](batch.views[1 + space][order])[order.argsort()]
        keys = torch.nn.functional.normalize(teacher[1][space](h), dim=1)
        torch.testing.assert_close(queue.keys[:8], keys, rtol=1e-4, atol=1e-5)
        assert queue.pushed == 8


def test_evaluation_reads_the_backbone_or_all_spaces_side_by_side():
    view = tiny_batch(SIZES).views[0]
    assert tiny_method("looc").embed(view).shape == (8, 32)
    assert tiny_method("looc", ["method.concatenate=true"]).embed(view).shape == (8, 3 * 8)


def test_another_number_of_key_views_is_refused_before_the_start():
    words = r"method.spaces=2: augmentation.views gives 3 key views .* set method.spaces=3, or add or remove views"
    with pytest.raises(ConfigError, match=words):
        build.check_signatures(tiny_config("looc", ["method.spaces=2"]))
    build.check_signatures(tiny_config("looc"))
