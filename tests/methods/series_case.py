"""Tiny methods on drawn series, as the command line builds them, and their batches on any number of processes."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo import build, config
from ssl_zoo.augmentations.rng import BatchRNG, Draw, stream_key
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.schedules import Progress
from tests.helpers import over_ranks, train_step

ROWS = 8
TINY = ["data=synthetic_series", f"data.batch_size={ROWS}", "data.source.samples=32", "data.source.length=24"]
BACKBONES = {
    "ts2vec_encoder": ["backbone.width=8", "backbone.features=8", "backbone.depth=2"],
    "ts_tcc_encoder": ["backbone.widths=[4,8]", "backbone.features=8"],
}
HEADS = {"ts_tcc": ["method.timesteps=3", "method.hidden=8", "method.depth=1", "method.mlp=8"]}


def made(name: str, *extra: str) -> tuple[Method, Any]:
    """Method and data, in float64 and bound."""
    words = [f"method={name}", *TINY, *extra]
    backbone = config.load(words).backbone["_target_"].rpartition(".")[2]
    cfg = config.load([*words, *BACKBONES[backbone], *HEADS.get(name, [])])
    config.quick_check(cfg)
    build.check_signatures(cfg)
    data = build.build_data(cfg)
    method = build.build_method(cfg, data.info).to(torch.float64)
    method.progress = Progress(step=2, total=10, steps_per_epoch=4)
    method.bind(ROWS)
    return method.train(), data


def batch_of(data: Any, step: int) -> Batch:
    """This process's rows of global batch ``step``."""
    share = ROWS // world_size()
    slots = torch.arange(rank() * share, (rank() + 1) * share) + step * ROWS
    index = slots % len(data.train)
    series = data.train.fetch(index).double()
    views, _ = data.views(series, Draw(stream_key(0, "train", 0), slots))
    return Batch(views, index, None, BatchRNG(0, 0, step, slots))


def steps(name: str, count: int = 2, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Losses, gradients of the first step, and the state after the last one."""
    method, data = made(name, *extra)
    for group in method.bound.optimizer.param_groups:
        group["eps"] = 1e-4  # Adam divides rounding by rounding otherwise
    outs = []
    for step in range(count):
        torch.manual_seed(step)
        outs.append(train_step(method, batch_of(data, step)))
    return over_ranks(method, outs)
