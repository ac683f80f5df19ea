"""DINO: loss and centre on one and two processes, head, whole steps, transformer with attention, schedules, kNN."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.image.tiny import vit_mini
from ssl_zoo.backbones.image.vision_transformer import bicubic_positions
from ssl_zoo.knn import knn_scores, knn_top1
from ssl_zoo.methods.dino import DINO
from ssl_zoo.modules.dino_head import DINOHead
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.optim.lars import LARS
from ssl_zoo.optim.schedules import Constant, Cosine, Progress, Warmup, WarmupCosine
from ssl_zoo.report.attention import class_attention, mass_mask, upsampled
from tests.golden.compare import close
from tests.golden.harness import (
    Identity,
    Recorded,
    Values,
    batch_of,
    double_or_single,
    fill,
    no_recipe,
    numpy_of,
    plain,
    recipe,
    steps_of,
)
from tests.helpers import train_step

# Loss and centre


class Half(Identity):
    """The student's recorded scores, or the teacher's beside them."""

    teacher = False

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(2, dim=1)[int(self.teacher)]


def temperatures(h: Any) -> Any:
    return Warmup(
        start=h.get("warmup_teacher_temp", h["teacher_temp"]),
        after=Constant(h["teacher_temp"]),
        warmup_epochs=h.get("warmup_teacher_temp_epochs", 0),
        style="linspace",
        per_epoch=True,
    )


def replay_loss(h: Any, centre: np.ndarray, steps: list[list[np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Losses, gradients of the student's scores and centres of this rank; a view is ``[N, 2 K]``: student | teacher."""
    width = steps[0][0].shape[1] // 2
    method = DINO(
        Half(width), no_recipe(), Identity, h["student_temp"], temperatures(h), centre_momentum=h["center_momentum"]
    )
    method.teacher.net.teacher = True
    method.to(double_or_single(centre))
    fill(method, {"centre.value": centre})
    outs = []
    for views, epoch in zip(steps, h.get("epochs_used", [0] * len(steps)), strict=True):
        method.progress = Progress(epoch, h.get("nepochs", 1), steps_per_epoch=1)
        batch = batch_of([torch.tensor(view) for view in views])
        x = batch.views = [view.requires_grad_() for view in batch.views]
        loss = method.training_loss(batch)["loss"]
        loss.backward()
        before = method.centre.value.clone()
        method.on_after_backward()
        assert not torch.equal(before, method.centre.value)
        grad = torch.stack([view.grad[:, :width] for view in x])  # [V, B, K]
        outs.append(numpy_of({"loss": loss, "grad": grad, "centre": method.centre.value}))
    return outs


def views_of(student: np.ndarray, teacher: np.ndarray, crops: int, rows: int) -> list[np.ndarray]:
    """Crop-major rows of one rank as views; the teacher has none for local crops."""
    s = student.reshape(crops, rows, student.shape[1])
    t = teacher.reshape(2, rows, teacher.shape[1])
    return [np.hstack([s[v], t[v] if v < 2 else np.zeros_like(s[v])]) for v in range(crops)]


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    schedule = temperatures(h)
    found = [schedule(Progress(epoch, h["nepochs"], 1)) for epoch in range(h["nepochs"])]
    close(found, arrays["teacher_temp_schedule"], "teacher temperatures")
    steps = steps_of(arrays, "student_step{}")
    crops = 2 + h["local_crops"]
    views = [views_of(arrays[f"student_step{t}"], arrays[f"teacher_step{t}"], crops, h["batch"]) for t in steps]
    for t, out in enumerate(replay_loss(h, arrays["center0"], views), start=1):
        close(out["loss"], arrays[f"loss_step{t}"], f"loss of step {t}")
        wanted = arrays[f"grad_student_step{t}"]
        close(out["grad"].reshape(wanted.shape), wanted, f"gradient of step {t}")
        close(out["centre"], arrays[f"center_step{t}"], f"centre after step {t}")


def check_loss_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    world, crops = h["world_size"], 2 + h["local_crops"]
    steps = steps_of(arrays, "student_rank0_step{}")
    names = [[(f"student_rank{r}_step{t}", f"teacher_rank{r}_step{t}") for r in range(world)] for t in steps]
    ranks = [[views_of(arrays[s], arrays[t], crops, h["batch_per_rank"]) for s, t in row] for row in names]
    views = [[np.concatenate(view) for view in zip(*row, strict=True)] for row in ranks]  # of the global batch
    centre = np.zeros_like(arrays["center_step1"])
    results, one = pools(world).run(replay_loss, h, centre, views), replay_loss(h, centre, views)
    for t in steps:
        losses = [arrays[f"loss_rank{r}_step{t}"] for r in range(world)]
        close(one[t - 1]["loss"], np.mean(losses), f"loss of one process, step {t}")
        width = arrays[f"center_step{t}"].shape[1]
        gradients = [arrays[f"grad_rank{r}_step{t}"].reshape(crops, -1, width) for r in range(world)]
        close(one[t - 1]["grad"], np.concatenate(gradients, 1) / world, f"gradient of one process, step {t}")
        for r in range(world):
            close(results[r][t - 1]["loss"], losses[r], f"loss of rank {r}, step {t}")
            close(results[r][t - 1]["grad"], gradients[r], f"gradient of rank {r}, step {t}")
        for out in [*(result[t - 1] for result in results), one[t - 1]]:
            close(out["centre"], arrays[f"center_step{t}"], f"centre after step {t}")


# Head


def check_head(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    params = {ours(name.removeprefix("param.")): arrays[name] for name in arrays if name.startswith("param.")}
    head = DINOHead(
        h["in_dim"],
        [h["hidden_dim"]] * (max(h["nlayers"], 1) - 1),
        h["bottleneck_dim"],
        h["out_dim"],
        "batch" if h["use_bn"] else "none",
        h["norm_last_layer"],
    ).to(double_or_single(arrays["x"]))
    assert dict(head.named_parameters()).keys() == params.keys()
    fill(head, params)
    x = torch.tensor(arrays["x"]).requires_grad_()
    out = head(x)
    close(out, arrays["out"], "scores")
    (torch.arange(1, len(out) + 1) * out.square().sum(1)).sum().backward()
    close(x.grad, arrays["grad_x_of_probe"], "gradient of x")
    for name, p in head.named_parameters():
        key = f"grad.{theirs(name, h['nlayers'])}"
        assert (p.grad is not None) == (key in arrays), f"{key}: only one side trains it"
        if p.grad is None:
            continue
        if cancelled(head, name):  # exactly 0; what either side has is rounding
            assert max(p.grad.abs().max().item(), np.abs(arrays[key]).max()) < 1e-6 * x.grad.abs().max().item(), key
        else:
            close(p.grad, arrays[key], key)


def cancelled(head: DINOHead, name: str) -> bool:
    """Whether it is a bias that the batch norm behind it takes away again."""
    layers = list(head.mlp)
    pairs = [(f"mlp.{i}.bias", layer, behind) for i, (layer, behind) in enumerate(pairwise(layers))]
    return any(name == own and isinstance(a, nn.Linear) and isinstance(b, nn.BatchNorm1d) for own, a, b in pairs)


def ours(name: str) -> str:
    """The authors' head of one layer is that layer; ours is a list with one layer."""
    return name.replace("mlp.", "mlp.0.", 1) if name in ("mlp.weight", "mlp.bias") else name


def theirs(name: str, layers: int) -> str:
    return name.replace("mlp.0.", "mlp.", 1) if layers <= 1 else name


# Whole steps


class Recording(nn.Module):
    """The recording's backbone: ``LayerNorm(tanh(Linear(first numbers of a crop)))``."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.out_features = width

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.tanh(self.lin(x.flatten(1)[:, : self.lin.in_features])))


PARTS = {"student": ("backbone.", "projector."), "teacher": ("teacher.net.", "teacher_projector.net.")}


def renamed(name: str, who: str) -> str:
    """``backbone.lin.weight`` or ``head.mlp.0.weight`` of the student or teacher in our method."""
    backbone, head = PARTS[who]
    if name.startswith("head."):
        return head + ours(name.removeprefix("head."))
    return backbone + name.removeprefix("backbone.")


def method_of(h: Any, start: dict[str, np.ndarray], steps: int) -> DINO:
    """Ready for the first step of epoch ``h["epoch"]``; the rates of the steps before it were not recorded."""
    before = h["epoch"] * steps
    past = [0.0] * before
    lr, decay = Recorded((*past, *h["lr"])), Recorded((*past, *h["wd"]))
    rules: dict[str, Any] = {
        "biases_and_norms": {"ndim_at_most": 1, "weight_decay": 0.0},
        "last_layer": {"match": r"^projector\.last_layer", "frozen_until": {"epochs": h["freeze_last_layer_epochs"]}},
    }
    if h["optimizer"] == "lars":
        rules["biases_and_norms"]["adapt"] = False
    sizes = {name: start["head." + name].shape for name in ("last_layer.weight_v", "last_layer.weight_g")}
    weights = [array for name, array in sorted(start.items()) if name.startswith("head.mlp.") and array.ndim == 2]
    head = partial(
        DINOHead,
        hidden=[len(weight) for weight in weights[:-1]],
        bottleneck=sizes["last_layer.weight_v"][1],
        out_features=h["out_dim"],
        norm="batch" if any(name.startswith("head.mlp.1.") for name in start) else "none",
        norm_last_layer=h["norm_last_layer"],
    )
    optimizers = {name: make(h) for name, make in OPTIMIZERS.items()}
    method = DINO(
        Recording(h["in_dim"], h["feat_dim"]),
        recipe(optimizers[h["optimizer"]], rules, lr=lr, weight_decay=decay),
        head,
        h.get("student_temp", 0.1),
        h["teacher_temp"],
        momentum=Recorded((*past, *h["momentum"])),
    ).to(double_or_single(start["backbone.lin.weight"]))
    for who in PARTS:
        fill(method, {renamed(name, who): array for name, array in start.items()})
    method.bind(h["batch"])
    method.clip = Clip("per_tensor", h["clip_grad"]) if h["clip_grad"] else None
    method.progress = Progress(before, before + steps, steps)
    return method.train()


OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda h: partial(torch.optim.AdamW, betas=tuple(h["adamw"]["betas"]), eps=h["adamw"]["eps"]),
    "sgd": lambda h: partial(torch.optim.SGD, momentum=0.9),  # main_dino.py
    "lars": lambda h: LARS,
}


def check_train(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    start = {k.removeprefix("student0."): v for k, v in plain(arrays, "student0.").items()}
    steps = steps_of(arrays, "crop0_step{}")
    method = method_of(h, start, len(steps))
    for t in steps:
        crops = [torch.tensor(arrays[f"crop{v}_step{t}"]) for v in range(2 + h["local_crops"])]
        out = train_step(method, batch_of(crops))
        close(out["loss"], arrays[f"loss_step{t}"], f"loss of step {t}")
        state = method.state_dict()
        for who in PARTS:
            for name in plain(arrays, f"{who}{t}."):
                close(state[renamed(name.removeprefix(f"{who}{t}."), who)], arrays[name], name)
        if f"center{t}" in arrays:
            close(method.centre.value, arrays[f"center{t}"], f"centre after step {t}")


# Transformer


def check_vit(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    sizes = {name: h[name] for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
    norm = partial(nn.LayerNorm, eps=h["eps"])
    vit = vit_mini(3, h["img_size"], "standard", interpolation="dino", norm_layer=norm, **sizes)
    net: Any = vit.net
    vit.to(double_or_single(arrays["x"]))
    params = {name.removeprefix("param."): array for name, array in plain(arrays, "param.").items()}
    assert dict(net.named_parameters()).keys() == params.keys()
    fill(net, params)
    x, other = torch.tensor(arrays["x"]), torch.tensor(arrays["x_other_size"])
    with torch.no_grad():
        close(vit(x), arrays["out"], "class token")
        close(vit(other), arrays["out_other_size"], "class token of another size")
        grid = [side // h["patch_size"] for side in other.shape[2:]]
        found = bicubic_positions(net.pos_embed, net.patch_embed.grid_size, grid, 1)
        close(found, arrays["pos_embed_other_size"], "positions of another size")
        close(vit.forward_attention(x).weights, arrays["last_attention"], "attention of the last block")
        for name in plain(arrays, "intermediate_layer_-"):
            cls, patches, _ = vit.forward_tokens(x, layers=int(name.rpartition("-")[2]))
            assert cls is not None
            both = torch.cat([cls[:, None], patches], 1)
            close(both[..., : h["embed_dim"]], arrays[name], name)
        maps = class_attention(vit.forward_attention(other))[0]
    close(upsampled(maps, other.shape[2:]), arrays["viz_attention_maps"], "attention maps")
    kept = upsampled(mass_mask(maps, h.get("threshold", 0.6)), other.shape[2:])
    close(kept.to(maps.dtype), arrays["viz_threshold_masks"], "masks")


# Schedules and evaluation


def check_schedule(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    warmup: Any = {"warmup_epochs": h["warmup_epochs"], "start": h["start_warmup_value"], "style": "linspace"}
    rates: list[Any] = [WarmupCosine(h["base"], h["final"], **warmup)]
    rates += [] if h["warmup_epochs"] else [Cosine(h["base"], h["final"])]
    for rate in rates:
        assert h["length"] == h["epochs"] * h["iters_per_epoch"]
        run = partial(Progress, total=h["length"], steps_per_epoch=h["iters_per_epoch"])
        close([rate(run(step)) for step in arrays["steps"].tolist()], arrays["values"], type(rate).__name__)


def check_knn(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    query, bank = (F.normalize(torch.tensor(arrays[name]), dim=1) for name in ("test_x", "train_x"))
    labels, known = torch.tensor(arrays["test_y"]), torch.tensor(arrays["train_y"])
    top1 = knn_top1(query, labels, bank, known, h["num_classes"], h["k"], h["temperature"])
    close(top1, arrays["top1"], "top-1")
    scores = knn_scores(query, bank, known, h["num_classes"], [h["k"]], h["temperature"], 256)[h["k"]]
    # Classes without a vote tie: torch's sort, which the authors call, keeps their order, and topk does not.
    first = scores.sort(dim=1, descending=True, stable=True).indices[:, :5]
    close(100 * (first == labels[:, None]).any(1).double().mean(), arrays["top5"], "top-5")


CHECKS = {
    "dino": {
        "loss_world*": check_loss_world,
        "loss*": check_loss,
        "head*": check_head,
        "train*": check_train,
        "vit*": check_vit,
        "*_schedule*": check_schedule,
        "knn*": check_knn,
    }
}
