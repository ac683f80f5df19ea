"""TS2Vec: its losses by hand, its crops, the mean of its weights, and what it refuses."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from ssl_zoo import build, config
from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.hierarchical_contrast import hierarchical_contrast, instance_contrast, temporal_contrast
from ssl_zoo.modules.masking.steps import kept_steps
from ssl_zoo.modules.series_cuts import at, centred, one_section, overlapping
from tests.helpers import train_step
from tests.methods.series_case import batch_of, made, steps
from tests.pool import GlooPool

NAN = float("nan")


def test_two_series_at_right_angles_meet_their_positive_and_two_negatives() -> None:
    z = torch.eye(2)[:, None]  # [2, 1, 2]: dot product 1 with the positive
    want = math.log(1 + 2 / math.e)
    assert instance_contrast(z, z, z, z, 0).item() == pytest.approx(want, abs=1e-6)
    assert hierarchical_contrast(z, z, z, z, 0, alpha=0.5).item() == pytest.approx(want / 2, abs=1e-6)


def test_two_steps_at_right_angles_do_too_and_one_series_or_step_has_nothing_to_compare() -> None:
    z = torch.eye(2)[None]  # [1, 2, 2]
    want = math.log(1 + 2 / math.e)
    assert temporal_contrast(z, z).item() == pytest.approx(want, abs=1e-6)
    assert instance_contrast(z, z, z, z, 0).item() == 0 and temporal_contrast(z[:, :1], z[:, :1]).item() == 0
    # Two scales: the steps, and their maximum, at which one series has nothing to compare.
    assert hierarchical_contrast(z, z, z, z, 0).item() == pytest.approx(want / 4, abs=1e-6)


def test_scales_are_halved_until_one_step_is_left() -> None:
    a, b = torch.randn(2, 3, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = [(a, b)]
    for width in (3, 1):
        levels.append(tuple(x[:, : 2 * width].unflatten(1, (width, 2)).amax(2) for x in levels[-1]))  # type: ignore[arg-type]
    terms = [0.3 * instance_contrast(x, y, x, y, 0) + 0.7 * temporal_contrast(x, y) for x, y in levels]
    assert hierarchical_contrast(a, b, a, b, 0, alpha=0.3).item() == pytest.approx(sum(terms).item() / 3, rel=1e-12)  # type: ignore[union-attr]


def test_the_crops_overlap_and_every_series_has_its_own_place() -> None:
    series = torch.arange(40.0).expand(64, -1)[..., None] + 100 * torch.arange(64.0)[:, None, None]
    seen = set()
    for micro in range(60):
        crops = overlapping(series, BatchRNG(0, 0, micro, torch.arange(64)), least=2)
        n = crops.overlap
        assert torch.equal(crops.first[:, -n:], crops.second[:, :n]) and n >= 2
        assert (crops.first.diff(dim=1) == 1).all() and (crops.second.diff(dim=1) == 1).all()
        places = crops.first[:, 0, 0] - 100 * torch.arange(64)
        length = crops.first.shape[1] + crops.second.shape[1] - n
        assert places.min() >= 0 and places.max() <= 40 - length
        assert length > 35 or len(places.unique()) > 1
        seen.add(n)
    assert len(seen) > 20


def test_short_series_are_centred_and_long_ones_cut() -> None:
    series = torch.tensor([[1.0, 2, 3, NAN, NAN, NAN], [NAN, 1, 2, 3, 4, NAN], [1, NAN, 3, 4, 5, 6]])[..., None]
    got = centred(series)[..., 0]
    assert got[0, 1:4].tolist() == [1, 2, 3] and got[0, [0, 4, 5]].isnan().all()
    assert torch.equal(got[1:].nan_to_num(9), series[1:, :, 0].nan_to_num(9))
    rng = BatchRNG(0, 0, 0, torch.arange(3))
    assert one_section(series, 4, rng) is series
    pieces = one_section(series, 3, rng)  # [3, 3, 1]; the first has one piece only
    assert pieces.shape == (3, 3, 1) and pieces[0].flatten().tolist() == [1, 2, 3]
    assert torch.equal(at(series, torch.tensor([[5, 0]] * 3))[2].flatten(), torch.tensor([6.0, 1.0]))


def test_masks() -> None:
    draw = BatchRNG(0, 0, 0, torch.arange(400)).sample("mask")
    kept = kept_steps("binomial", 50, draw)
    assert kept is not None and kept.float().mean().item() == pytest.approx(0.5, abs=0.02)
    runs = kept_steps("continuous", 50, draw)
    assert runs is not None and (~runs).sum(1).max() <= 25 and (~runs).sum(1).min() >= 5
    assert kept_steps("all", 50, draw) is None


def test_what_is_evaluated_is_the_mean_of_all_weights() -> None:
    method, data = made("ts2vec")
    method.progress = method.progress.__class__(0, 10, 4)
    seen = [deepcopy(method.backbone.state_dict())]
    for step in range(3):
        train_step(method, batch_of(data, step))
        seen.append(deepcopy(method.backbone.state_dict()))
    for name, value in method.encoder.state_dict().items():
        mean = torch.stack([state[name] for state in seen]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-12, atol=1e-12)
    view = data.train.fetch(torch.arange(4)).double()
    assert torch.equal(method.eval().embed(view), method.encoder(view)) and method.embed(view).shape == (4, 8)
    last, _ = made("ts2vec", "method.evaluate_student=true")
    assert last.encoder is last.backbone


@pytest.mark.parametrize("extra", [(), ("data.source.shortest=9", "method.longest=8", "method.mask=continuous")])
def test_two_processes_equal_one(extra: tuple[str, ...], pool: GlooPool) -> None:
    one = steps("ts2vec", 2, extra)
    assert one["losses"].isfinite().all()
    for two in pool.run(steps, "ts2vec", 2, extra):
        torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-9, atol=1e-9)
        for kind in ("gradients", "state"):
            assert two[kind].keys() == one[kind].keys()
            for key, value in one[kind].items():
                torch.testing.assert_close(two[kind][key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_the_command_line_takes_the_authors_recipe_and_the_whole_series() -> None:
    cfg = config.load(["method=ts2vec", "data=synthetic_series"])
    assert (cfg.data.batch_size, cfg.trainer.max_steps, cfg.trainer.max_epochs) == (8, 200, -1)
    assert config.plain(cfg)["augmentation"]["views"] == [{"ops": []}]
    assert cfg.optimizer["values"]["weight_decay"] == 0.01 and not cfg.optimizer.rules
    assert cfg.optimizer.optimizer["_target_"] == "torch.optim.AdamW"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone=ts_tcc_encoder"], "TS2Vec needs features of each step, and ts_tcc_encoder has none"),
        (["method.temporal_unit=5"], r"method.temporal_unit=5 wants series of at least 64 steps, .* have 24"),
    ],
)
def test_what_it_cannot_take(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made("ts2vec", *words)


def test_images_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="TS2Vec is for samples of the kind 'series'"):
        build.check_signatures(config.load(["method=ts2vec", "data=synthetic"]))
