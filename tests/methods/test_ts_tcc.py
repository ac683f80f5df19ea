"""TS-TCC: its loss by hand, its two directions, one on any number of processes, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo import config
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.temporal_prediction import temporal_prediction
from ssl_zoo.modules.sequence_transformer import SequenceTransformer
from tests.methods.series_case import batch_of, made, steps
from tests.pool import GlooPool


def test_a_step_finds_its_own_prediction_among_two() -> None:
    z = torch.eye(2)[:, None]  # [2, 1, 2]
    assert temporal_prediction(z, z, 0).item() == pytest.approx(math.log(1 + 1 / math.e), abs=1e-6)
    half = temporal_prediction(z[1:], z, 1)
    assert half.item() == pytest.approx(math.log(1 + 1 / math.e), abs=1e-6)
    with pytest.raises(ValueError, match="rows 2 to 3 do not lie inside 2 predictions"):
        temporal_prediction(z[1:], z, 2)


def test_the_prediction_loss_equals_the_papers_written_as_loops() -> None:
    steps_, predictions = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for k in range(4):
        for i in range(3):
            scores = torch.stack([steps_[i, k] @ predictions[j, k] for j in range(3)])
            total -= math.log(scores.exp()[i] / scores.exp().sum())
    assert temporal_prediction(steps_, predictions, 0).item() == pytest.approx(total / 12, rel=1e-12)


def test_the_transformer_divides_scores_by_the_root_of_the_whole_width() -> None:
    net = SequenceTransformer(3, 8, depth=1, heads=2, hidden=4).double().eval()
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([net.c_token.expand(2, -1, -1), net.patch_to_embedding(x)], 1)
    attend = net.transformer.layers[0][0].fn  # type: ignore[index]
    normed = attend.norm(tokens)
    q, k, v = attend.fn.to_qkv(normed).chunk(3, 2)
    heads = [F.softmax(q[..., s] @ k[..., s].transpose(1, 2) / math.sqrt(8), 2) @ v[..., s]
             for s in (slice(0, 4), slice(4, 8))]  # fmt: skip
    want = tokens + attend.fn.to_out(torch.cat(heads, 2))
    torch.testing.assert_close(net.transformer.layers[0][0](tokens), want)  # type: ignore[index]
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8; try 6"):
        SequenceTransformer(3, 8, heads=3)


def test_each_direction_has_a_moment_of_its_own() -> None:
    method, data = made("ts_tcc", "method.dropout=0", "backbone.dropout=0", "data.source.length=64")
    found = set()
    for step in range(20):
        rng = batch_of(data, step).rng
        moments = [int(rng.shared(f"moment of the {n} view").integers("moment", 5)) for n in ("weak", "strong")]
        found.add(tuple(moments))
    assert len({a for a, _ in found}) > 3 and any(a != b for a, b in found)
    out = method.training_loss(batch_of(data, 0))
    total = out["temporal"] + 0.7 * out["contexts"]
    assert out["loss"].item() == pytest.approx(total.item(), rel=1e-12)
    assert out["features"].shape == (8, method.backbone.out_features)


def test_two_processes_equal_one(pool: GlooPool) -> None:
    one = steps("ts_tcc")
    assert one["losses"].isfinite().all()
    for two in pool.run(steps, "ts_tcc"):
        torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-9, atol=1e-9)
        for kind in ("gradients", "state"):
            assert two[kind].keys() == one[kind].keys()
            for key, value in one[kind].items():
                torch.testing.assert_close(two[kind][key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_the_command_line_takes_the_authors_views_network_and_optimizer() -> None:
    cfg = config.load(["method=ts_tcc", "data=ucr", "data.source.name=X"])
    assert cfg.augmentation.once and cfg.backbone["_target_"].endswith("ts_tcc_encoder")
    values = cfg.optimizer["values"]
    assert (values.lr, values.weight_decay, list(values.betas)) == (3e-4, 3e-4, [0.9, 0.99])
    assert cfg.trainer.max_epochs == 40 and cfg.optimizer.optimizer["_target_"] == "torch.optim.Adam"


def test_too_short_a_series_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"method.timesteps=3: of series of 8 steps ts_tcc_encoder makes 3, and one"):
        made("ts_tcc", "data.source.length=8")


def test_every_parameter_learns() -> None:
    method, data = made("ts_tcc")
    method.training_loss(batch_of(data, 0))["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []
