"""CPC: which frames are negatives, its three losses by hand, and images as sequences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ssl_zoo import build, config
from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.backbones.base import Frames
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.predictive_coding import batch_time_info_nce
from ssl_zoo.modules.negatives import other_sequence, uniform_negatives
from tests.helpers import tiny_batch, tiny_method
from tests.pool import GlooPool

INFO = DataInfo(64, None, 8, {"sample_rate": 8000, "channels": 1})
SMALL = ["data=synthetic_audio", "backbone.width=8", "backbone.context=6", "method.steps=3", "method.negatives=5"]


def draw(rows: int, first: int = 0) -> Draw:
    return Draw(stream_key(0, "test", 0), torch.arange(first, first + rows))


def method_of(*extra: str) -> Any:
    return build.build_method(config.load(["method=cpc", *SMALL, *extra]), INFO).double()


def batch_of(window: int = 800, rows: int = 8) -> Batch:
    """This process's rows of a global batch."""
    views = torch.randn(rows, 1, window, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    share = rows // world_size()
    slot = torch.arange(rank() * share, (rank() + 1) * share)
    return Batch([views[slot]], slot, None, BatchRNG(0, 0, 0, slot))


def test_negatives_are_uniform_over_batch_and_time_but_for_the_time_of_the_context() -> None:
    rows = uniform_negatives(draw(400), sequences=3, length=4, count=50, window=2)
    assert rows.shape == (400, 50, 2)
    for t in range(2):
        counts = torch.bincount(rows[:, :, t].flatten(), minlength=12).view(3, 4)
        assert not counts[:, t].any()
        others = counts[counts > 0]
        assert len(others) == 9 and (others - 20000 / 9).abs().max() < 250


def test_negatives_belong_to_samples_and_not_to_batches() -> None:
    whole = uniform_negatives(draw(6), 12, 5, 4, 2, each=2)
    assert torch.equal(uniform_negatives(draw(2, 4), 12, 5, 4, 2, each=2), whole[8:])


def test_another_sequence_is_never_the_own_one() -> None:
    own = torch.arange(3000) % 3
    found = other_sequence(draw(3000), own, 3)
    assert not (found == own).any() and torch.bincount(found).min() > 900
    with pytest.raises(ValueError, match="a batch of one sequence has no other one to compare it with"):
        other_sequence(draw(1), torch.zeros(1, dtype=torch.int64), 1)


def test_batch_time_info_nce_of_equal_pieces_is_the_log_of_their_number() -> None:
    x = torch.ones(3, 2, 4)
    losses, _ = batch_time_info_nce(x, torch.ones(3, 5, 4), 1)
    assert losses.tolist() == pytest.approx([math.log(15)] * 3, rel=1e-6)


def test_batch_time_info_nce_equals_loops() -> None:
    torch.manual_seed(0)
    p, t = torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    losses, hits = batch_time_info_nce(p, t, 2)
    for k in range(2):
        terms, right = [], []
        for b in range(2):
            scores = [float(p[k, b] @ t[i, n]) for i in range(2) for n in range(4)]
            terms.append(math.log(sum(map(math.exp, scores))) - scores[4 * k + b + 2])
            right.append(float(max(scores) == scores[4 * k + b + 2]))
        assert losses[k].item() == pytest.approx(sum(terms) / 2, rel=1e-12) and hits[k].item() == sum(right) / 2


@pytest.mark.parametrize(("variant", "chance"), [("sampled", 3 * math.log(6)), ("binary", math.log(2))])
def test_without_predictions_all_candidates_are_equally_likely(variant: str, chance: float) -> None:
    method = method_of(f"method.variant={variant}")
    for p in method.predictors.parameters():
        p.data.zero_()
    assert method.training_loss(batch_of())["loss"].item() == pytest.approx(chance, rel=1e-9)


def loss_and_gradients(variant: str) -> dict[str, torch.Tensor]:
    method = method_of(f"method.variant={variant}")
    out = method.training_loss(batch_of())
    out["loss"].backward()
    found = {"loss": out["loss"].detach().clone(), **{n: p.grad for n, p in method.named_parameters()}}
    for value in found.values() if world_size() > 1 else ():
        torch.distributed.all_reduce(value)
        value /= world_size()
    return found


@pytest.mark.parametrize("variant", ["sampled", "batch_time", "binary"])
def test_two_processes_equal_one(variant: str, pool: GlooPool) -> None:
    one = loss_and_gradients(variant)
    for two in pool.run(loss_and_gradients, variant):
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-10, atol=1e-12)


def test_columns_of_patches_are_sequences_whose_context_sees_no_row_below() -> None:
    method: Any = tiny_method("cpc", dtype=torch.float64)
    view = tiny_batch([(49, 4)], dtype=torch.float64).views[0]
    pooled, z, c = method.eval().frames(view)
    assert isinstance(method.frames(view), Frames) and z.shape == c.shape == (8 * 7, 6, 32) and pooled.shape == (8, 32)
    assert len(method.predictors) == 3
    grid = method.backbone(view[0, 7 * 3 + 2][None])  # row 3, column 2
    torch.testing.assert_close(z[2, 2], grid[0])
    changed = view.clone()
    changed[:, 7 * 4 :] = 0  # rows 4 and below
    again = method.frames(changed).context
    torch.testing.assert_close(again[:, :4], c[:, :4])
    assert not torch.allclose(again[:, 4], c[:, 4])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["backbone=audio_resnet8"],
            "CPC needs frames: backbone 'audio_resnet8' has no frames; these have: cpc",
        ),
        (["method.variant=best"], "method.variant"),
    ],
)
def test_what_cannot_be_built_is_a_sentence(words: list[str], message: str) -> None:
    small = [word for word in SMALL if not word.startswith("backbone.")] if "backbone=" in words[0] else SMALL
    with pytest.raises(ConfigError, match=message):
        build.build_method(config.load(["method=cpc", *small, *words]), INFO)


def test_windows_that_are_too_short_to_predict_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="method.steps=3: a view has 3 frames, and wanted are more than steps; lower"):
        method_of().training_loss(batch_of(320))
