"""iBOT: both losses with their centres over whole steps, block and random masks, heads, and the masked embedding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.backbones.base import Tokens
from ssl_zoo.backbones.image import vit
from ssl_zoo.data.batch import Batch
from ssl_zoo.methods.ibot import IBOT
from ssl_zoo.modules.masking.block import RatioMasks
from ssl_zoo.modules.token_head import TokenHead
from ssl_zoo.optim.schedules import Constant, Progress, Warmup, value
from tests.golden.checks.masks import CHOICE, Draws, Recorder, attempts_of, draw_blocks, split
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, double_or_single, fill, no_recipe, plain, steps_of


class Given(Identity):
    """Tokens ``[..., 1 + N, F]`` in place of an image: a student's and a teacher's ``[B, 2, 1 + N, F]``, or one class
    token ``[B, F]``, for the student."""

    teacher = False
    net = None

    @property
    def mask_features(self) -> int:
        return self.out_features

    def require_tokens(self, by: str, dropping: bool = False) -> None:
        """A recorded network has them."""

    def __deepcopy__(self, memo: Any) -> Given:
        copy = Given(self.out_features)
        copy.teacher = True
        return copy

    def forward_tokens(self, view: Tensor, mask: Any = None, mask_token: Any = None) -> Tokens:
        tokens = view[:, int(self.teacher)]
        used = 0.0 if mask_token is None else 0.0 * mask_token.sum()
        return Tokens(tokens[:, 0] + used, tokens[:, 1:], (1, tokens.shape[1] - 1))


class Scores(Identity):
    """A head that was run already."""

    patch_features: int

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.patch_features = width

    def patches(self, x: Tensor) -> Tensor:
        return x

    def tied(self) -> Scores:
        return self


def joined(cls: np.ndarray, patches: np.ndarray) -> Tensor:
    """Class tokens ``[2B, F]`` and patches ``[2B, N, F]`` as ``[2B, 1 + N, F]``."""
    return torch.tensor(np.concatenate([cls[:, None], patches], axis=1))


def halves(student: Tensor, teacher: Tensor) -> list[Tensor]:
    """Two views ``[B, 2, 1 + N, F]`` of which :class:`Given` makes the tokens."""
    return [view.clone() for view in torch.stack([student, teacher], 1).chunk(2)]


def temperature(start: float, end: float, epochs: int) -> Warmup:
    return Warmup(Constant(end), start=start, warmup_epochs=epochs, per_epoch=True, style="linspace")


def method_of(h: Any, **others: Any) -> IBOT:
    method = IBOT(
        Given(h["out_dim"]),
        no_recipe(),
        Scores,
        RatioMasks(),
        temperature=h["student_temp"],
        teacher_temperature=temperature(h["warmup_teacher_temp"], h["teacher_temp"], h["warmup_epochs"]),
        patch_temperature=temperature(h["warmup_teacher_patch_temp"], h["teacher_patch_temp"], h["warmup_epochs"]),
        centre_momentum=h["center_momentum"],
        patch_centre_momentum=h["center_momentum2"],
        class_weight=h["lambda1"],
        patch_weight=h["lambda2"],
        mask_start=h["pred_start_epoch"],
        **others,
    )
    method.progress = Progress(0, h["nepochs"], 1)
    return method


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    method = method_of(h).to(double_or_single(arrays["student_cls_step1"])).train()
    temperatures = (("teacher_temp", method.teacher_temperature, 0),
                    ("teacher_patch_temp", method.patch_temperature, h["pred_start_epoch"]))  # fmt: skip
    for name, rates, start in temperatures:
        found = []
        for epoch in range(h["nepochs"]):
            progress = Progress(epoch, h["nepochs"], 1)
            found.append(value(rates, progress.since(start)))
        close(np.array(found), arrays[f"{name}_schedule"], f"{name}_schedule")
    for t in steps_of(arrays, "loss_step{}"):
        student = joined(arrays[f"student_cls_step{t}"], arrays[f"student_patch_step{t}"])
        teacher = joined(arrays[f"teacher_cls_step{t}"], arrays[f"teacher_patch_step{t}"])
        locals_ = torch.tensor(arrays[f"student_local_cls_step{t}"]) if h["local_crops"] else None
        views = halves(student, teacher) + list(() if locals_ is None else locals_.chunk(h["local_crops"]))
        views = [view.clone().requires_grad_() for view in views]
        masks = torch.tensor(arrays[f"masks_step{t}"]).flatten(2).flatten(0, 1)
        method.draw_masks = lambda *_, masks=masks: masks  # type: ignore[method-assign,misc]
        method.progress = Progress(h["epochs_used"][t - 1], h["nepochs"], 1)
        out = method.training_loss(Batch(views, torch.arange(h["batch"]), None, None))
        out["loss"].backward()
        method.on_after_backward()
        for name, ours in (("loss", "loss"), ("cls", "class"), ("patch", "patch")):
            close(out[ours], arrays[f"{name}_step{t}"], f"{name} of step {t}")
        gradient = torch.cat([view.grad[:, 0] for view in views[:2]])  # type: ignore[index]
        close(gradient[:, 0], arrays[f"grad_student_cls_step{t}"], f"gradient of class tokens, step {t}")
        close(gradient[:, 1:], arrays[f"grad_student_patch_step{t}"], f"gradient of patches, step {t}")
        if locals_ is not None:
            gradient = torch.cat([view.grad for view in views[2:]])  # type: ignore[misc]
            close(gradient, arrays[f"grad_student_local_cls_step{t}"], f"gradient of local crops, step {t}")
        close(method.centre.value, arrays[f"center_step{t}"], f"centre after step {t}")
        close(method.patch_centre.value[None], arrays[f"center2_step{t}"], f"centre of patches after step {t}")


# Masks


def lists(h: Any) -> tuple[list[float], list[float]]:
    ratios, spreads = ([x] if isinstance(x, (int, float)) else list(x) for x in (h["pred_ratio"], h["pred_ratio_var"]))
    return ratios, spreads * len(ratios) if len(spreads) < len(ratios) else spreads


def before_start(h: Any) -> bool:
    return h["epoch"] is not None and h["epoch"] < h["pred_start_epoch"]


def draw_mask(source: Recorder, h: Any) -> Draws:
    """What the authors' loader draws for one mask."""
    ratios, spreads = lists(h)
    if before_start(h):
        return []
    pairs = zip(ratios, spreads, strict=True)
    found = [source.uniform(ratio - spread, ratio + spread) if spread > 0 else ratio for ratio, spread in pairs]
    ratio = source.choice(found) if isinstance(h["pred_ratio"], list) and len(found) > 1 else found[0]
    aspects = h["aspect"]
    if h["pred_shape"] == "block":
        target, smallest = ratio * h["grid"] * h["grid"], (h["grid"] // 3) ** 2
        draw_blocks(source, h["grid"], target, smallest, np.inf, aspects)
    return source.taken()


def recorded(h: Any, draws: Sequence[Draws], orders: np.random.RandomState) -> RecordedRNG:
    """The draws of several masks, as rows of a batch with one crop."""
    ratios, spreads = lists(h)
    numbers, choices, blocks = [], [], []
    for rows in draws:
        drawn = sum(spread > 0 for spread in spreads) if rows else 0
        taken = iter(rows[:drawn])
        found = [next(taken) if spread > 0 and drawn else (0, 0.0, 1.0, 0.5) for spread in spreads]
        numbers.append([(value - low) / (high - low) for _, low, high, value in found])
        chosen = bool(rows[drawn:]) and rows[drawn][0] == CHOICE
        values = [row[3] if spread > 0 else ratio for row, ratio, spread in zip(found, ratios, spreads, strict=True)]
        choices.append(values.index(rows[drawn][3]) if chosen else 0)
        blocks.append(rows[drawn + chosen :])
    shared = {("blocks", 0): attempts_of(blocks)(0)[:, None]}
    order = [orders.permutation(h["grid"] ** 2) for _ in draws] if h["pred_shape"] == "rand" else []
    draw = {
        "ratio": torch.tensor(numbers, dtype=torch.float64)[:, None],
        "choice": torch.tensor(choices)[:, None],
        "order0": torch.tensor(np.array(order)),
        **shared,
    }
    return RecordedRNG(sample={"masks": draw})


def ours(h: Any, draws: Sequence[Draws], orders: np.random.RandomState) -> Tensor:
    """``[M, grid, grid]``, by the method, with a crop for each mask."""
    shape = {"block": "block", "rand": "random"}[h["pred_shape"]]
    masks = RatioMasks(*lists(h), shape, aspect_ratio=tuple(h["aspect"]))
    method = IBOT(Given(4), no_recipe(), Scores, lambda rng, crops, rows, grid: masks(rng, 1, rows, grid),
                  mask_start=h["pred_start_epoch"])  # fmt: skip
    method.progress = Progress(h["pred_start_epoch"] if h["epoch"] is None else h["epoch"], 1000, 1)
    grid = (h["grid"], h["grid"])
    if before_start(h):  # nothing was drawn: any numbers will do
        method.masks = lambda *_: torch.ones(len(draws), h["grid"] ** 2, dtype=torch.bool)
    return method.draw_masks(recorded(h, draws, orders), len(draws), grid).view(-1, *grid)


def check_masks(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    source, orders = Recorder(h["seed"]), np.random.RandomState(h["seed"])
    draws = split(arrays)
    again = [draw_mask(source, h) for _ in draws]  # the seed gives what was recorded, and what follows it
    assert again == draws, "the recorded draws are not those of the seed in the order of the notes"
    close(ours(h, draws, orders), arrays["masks"], "masks")
    described = case["arrays"]["stats_mean_ratio"]["meaning"]
    further = int(re.findall(r"over (\d+) further", described)[0])
    share = ours(h, [draw_mask(source, h) for _ in range(further)], orders).flatten(1).double().mean(1)
    for name, found in (
        ("mean_ratio", share.mean()),
        ("std_ratio", share.std(correction=0)),
        ("max_ratio", share.max()),
        ("frac_empty", (share == 0).double().mean()),
    ):
        close(found, arrays[f"stats_{name}"], f"{name} of {further} masks")


# Networks


def check_head(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    hidden = [h["hidden_dim"]] * (h["nlayers"] - 1)
    head = TokenHead(
        h["in_dim"], hidden, h["bottleneck_dim"], h["out_dim"],
        norm={None: "none", "bn": "batch", "ln": "layer"}[h["norm"]],
        shared=h["shared_head"], patch_features=None if h["shared_head"] else h["patch_out_dim"],
    ).to(double_or_single(arrays["x"]))  # fmt: skip
    values = plain(arrays, "param.")
    assert {name.removeprefix("param.") for name in values} == set(dict(head.named_parameters()))
    fill(head, {name.removeprefix("param."): array for name, array in values.items()})
    x = torch.tensor(arrays["x"]).requires_grad_()
    cls, patches = head(x[:, 0]), head.patches(x[:, 1:])
    (cls.square().sum() + 2 * patches.square().sum()).backward()
    close(cls, arrays["cls_out"], "class scores")
    close(patches, arrays["patch_out"], "patch scores")
    close(x.grad, arrays["grad_x_of_probe"], "gradient")
    close(head(torch.tensor(arrays["x_2d"])), arrays["out_2d"], "class scores of features")


def check_embedding(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    backbone = vit(
        "vit_tiny_patch16_224", image_size=h["img"], patch_size=h["patch"], embed_dim=h["dim"], depth=h["depth"],
        num_heads=h["heads"], mlp_ratio=h["mlp_ratio"],
    )  # fmt: skip
    assert all(norm.eps == h["eps"] for norm in backbone.modules() if isinstance(norm, nn.LayerNorm))
    values = {name.removeprefix("param."): array for name, array in plain(arrays, "param.").items()}
    token = torch.tensor(values.pop("masked_embed"))
    fill(backbone, {f"net.{name}": array for name, array in values.items()})
    mask = torch.tensor(arrays["mask"]).flatten(1)
    tokens = backbone.forward_tokens(torch.tensor(arrays["x"]), mask=mask, mask_token=token)
    assert tokens.cls is not None
    close(torch.cat([tokens.cls[:, None], tokens.patches], 1), arrays["tokens"], "tokens")


CHECKS = {
    "ibot": {
        "loss*": check_loss,
        "*masks*": check_masks,
        "before_start*": check_masks,
        "head*": check_head,
        "masked_embedding*": check_embedding,
    }
}
