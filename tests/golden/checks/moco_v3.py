"""MoCo v3: the loss on one and two processes, whole steps with LARS and the moving average, and fixed positions."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.methods.moco_v3 import MoCoV3
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.lars import LARS
from ssl_zoo.optim.schedules import Cosine, Progress, WarmupCosine, value
from tests.golden.checks.moco import DTYPES, Vectors, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, fill, no_recipe, numpy_of, plain, recipe, steps_of
from tests.helpers import train_step


class Half(Identity):
    """One half of the recorded columns: queries, then keys."""

    def __init__(self, width: int, which: int) -> None:
        super().__init__(width)
        self.which = which

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(2, dim=1)[self.which]


def worlds_of(arrays: Values, prefix: str) -> dict[str, int]:
    """Recorded worlds and their sizes."""
    found = [re.match(rf"{prefix}/(world\d+)/(?:.*/)?rank(\d+)/", key) for key in arrays]
    sizes: dict[str, int] = {}
    for match in filter(None, found):
        sizes[match[1]] = max(sizes.get(match[1], 0), int(match[2]) + 1)
    return sizes


# The loss


def replay_loss(temperature: float, views: list[Tensor]) -> dict[str, np.ndarray]:
    """Losses of this rank, and gradients of its raw queries; ``views``: ``[N, 2 D]``, queries beside keys."""
    width = views[0].shape[1] // 2
    method = MoCoV3(Half(width, 0), no_recipe(), Identity, Identity, temperature)
    method.teacher = Half(width, 1)
    batch = batch_of(views)
    x = batch.views = [view.clone().requires_grad_() for view in batch.views]
    out = {"loss": (loss := method.training_loss(batch)["loss"])}
    loss.backward()
    out |= {f"grad_q{v}": view.grad[:, :width] for v, view in enumerate(x, start=1)}
    keys = [view[:, width:] for view in views]  # of all ranks, as gathered
    q = [method.backbone(view) for view in x]
    out |= {"loss_q1k2": method.contrast(q[0], keys[1]), "loss_q2k1": method.contrast(q[1], keys[0])}
    return numpy_of(out)


def check_feature(document: Any, arrays: Values, pools: Any) -> None:
    temperature = document["hyperparameters"]["temperature"]
    for world, size in worlds_of(arrays, "in/feature").items():
        for precision in precisions(arrays):
            names = [[f"in/feature/{world}/rank{r}/{{}}{v}" for r in range(size)] for v in (1, 2)]
            views = [
                torch.tensor(np.concatenate([np.hstack([arrays[n.format(x)] for x in "qk"]) for n in rows]))
                for rows in names
            ]
            views = [view.to(DTYPES[precision]) for view in views]
            one = replay_loss(temperature, views)
            ranks = pools(size).run(replay_loss, temperature, views) if size > 1 else [one]
            for r, out in enumerate(ranks):
                for name, found in out.items():
                    key = f"{precision}/feature/{world}/rank{r}/{name}"
                    close(found, arrays[key], key, exact_of(arrays, key))
            key = f"{precision}/feature/{world}/mean_loss"
            if key in arrays:
                close(one["loss"], arrays[key], f"{key}, one process", exact_of(arrays, key))
                rows = [f"{precision}/feature/{world}/rank{r}/grad_q{{}}" for r in range(size)]
                for v in (1, 2):
                    joined = np.concatenate([arrays[name.format(v)] for name in rows]) / size
                    close(one[f"grad_q{v}"], joined, f"gradient of q{v}, {world} in one process")


# Whole steps


def ours(name: str) -> str:
    for theirs, mine in (
        ("base_encoder.fc.", "projector."),
        ("momentum_encoder.fc.", "teacher.net.1."),
        ("base_encoder.", "backbone."),
        ("momentum_encoder.", "teacher.net.0."),
    ):
        if name.startswith(theirs):
            return mine + name.removeprefix(theirs)
    return name


def method_of(h: Any, start: dict[str, np.ndarray]) -> MoCoV3:
    head = partial(MLP, hidden=[h["mlp_dim"]], out_features=h["dim"], bias=False)
    schedule = h["schedule"]
    assert h["base_lr"] == schedule["lr"]
    lr = WarmupCosine(schedule["lr"], warmup_epochs=schedule["warmup_epochs"])
    excluded = {"excluded": {"ndim_at_most": 1, "weight_decay": 0.0, "adapt": False}}
    recipes = {
        "lars": recipe(LARS, excluded, lr=lr, momentum=0.9, weight_decay=h["weight_decay"], trust=h["lars_trust"]),
        "adamw": recipe(torch.optim.AdamW, lr=lr, weight_decay=h["weight_decay"]),  # main_moco.py: torch's defaults
    }
    method = MoCoV3(
        Vectors({name.removeprefix("base_encoder."): array for name, array in start.items()}),
        recipes[h["optimizer"]],
        projector=partial(head, last_norm="batch_no_affine"),
        predictor=head,
        temperature=h["temperature"],
        momentum=Cosine(schedule["moco_m"], 1.0),
    )
    fill(method, {ours(name): array for name, array in start.items()})
    method.teacher.net.load_state_dict(nn.Sequential(method.backbone, method.projector).state_dict())
    return method


def replay(
    h: Any, start: dict[str, np.ndarray], steps: list[list[np.ndarray]], precision: str, group: int
) -> list[dict[str, np.ndarray]]:
    """Losses, gradients, rates and the whole state after each step, under our names."""
    method = method_of(h, start).to(DTYPES[precision]).train()
    convert(method, group)
    method.bind(len(steps[0][0]))
    n = 4  # steps per epoch: the recorded positions are multiples of a quarter
    outs = []
    for epoch, views in zip(h["epoch_positions"], steps, strict=True):
        assert epoch * n == round(epoch * n)
        method.progress = Progress(round(epoch * n), h["schedule"]["epochs"] * n, n)
        rates = {"lr": method.bound.lr(method.progress), "momentum": value(method.momentum, method.progress)}
        out = train_step(method, batch_of([torch.tensor(view).to(DTYPES[precision]) for view in views]))
        gradients = {f"grad/{name}": gradient for name, gradient in out["gradients"].items()}
        scalars = {name: torch.tensor(rate, dtype=torch.float64) for name, rate in rates.items()}
        outs.append(numpy_of({"loss": out["loss"], **scalars, **gradients, **method.state_dict()}))
    return outs


def check_net(document: Any, arrays: Values, pools: Any) -> None:
    h = document["hyperparameters"]
    prefix = "init/net/param/"
    start = {name.removeprefix(prefix): array for name, array in plain(arrays, prefix).items()}
    for world, size in worlds_of(arrays, "in/net").items():
        for precision in precisions(arrays):
            steps = [
                [
                    np.concatenate([arrays[f"in/net/{world}/step{t}/rank{r}/view{v}"] for r in range(size)])
                    for v in (1, 2)
                ]
                for t in steps_of(arrays, f"in/net/{world}/step{{}}/")
            ]
            task = (h, start, steps, precision, len(steps[0][0]) // size)
            one = replay(*task)
            ranks = pools(size).run(replay, *task) if size > 1 else [one]
            compare_net(arrays, f"{precision}/net/{world}/", one, ranks)


def compare_net(arrays: Values, prefix: str, one: Any, ranks: list[Any]) -> None:
    """What a rank has of its own with that rank, the mean of its losses and everything else with one process too."""
    losses: dict[int, list[np.ndarray]] = {}
    for key in [key for key in arrays if key.startswith(prefix)]:
        found = re.fullmatch(prefix + r"(?:state_after_)?step(\d+)/(?:rank(\d+)/)?(?:buffer/)?(.+)", key)
        assert found, key
        t, rank, name = int(found[1]) - 1, found[2], found[3].replace("grad_avg/", "grad/")
        name = f"grad/{ours(name[5:])}" if name.startswith("grad/") else ours(name)
        if rank is not None:
            losses.setdefault(t, []).append(arrays[key])
        for out in [one, *ranks] if rank is None else [ranks[int(rank)]]:
            close(out[t][name], arrays[key], key, exact_of(arrays, key))
    for t, values in losses.items():
        mean = np.mean(values, axis=0).astype(values[0].dtype)
        close(one[t]["loss"], mean, f"{prefix}loss of step {t + 1} in one process")


def check_positions(document: Any, arrays: Values) -> None:
    wanted = arrays["f32/sincos/pos_embed"]
    side = round((wanted.shape[1] - 1) ** 0.5)
    positions = sincos_positions((side, side), wanted.shape[2])
    close(torch.cat([torch.zeros(1, 1, wanted.shape[2]), positions], 1), wanted, "positions")


CHECKS = {"mocov3": {"feature*": check_feature, "net*": check_net, "sincos*": check_positions}}
