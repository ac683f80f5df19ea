"""I-JEPA: masks from recorded draws, the loss, the two networks, and fixed positions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import RecordedDraw, RecordedRNG
from ssl_zoo.backbones.image import vit
from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.latent import latent_regression, latent_targets
from ssl_zoo.methods.ijepa import IJEPA
from ssl_zoo.modules.masking.multiblock import Blocks, MultiBlock, RandomPatches, shortest
from ssl_zoo.modules.token_predictor import TokenPredictor
from tests.golden.compare import close
from tests.golden.harness import Values, double_or_single, fill, no_recipe, plain

UNIFORM, INTEGER = 0, 1  # kinds of recorded draws


class Replay(RecordedDraw):
    """Gives recorded draws one after another, and checks that each is asked for as the authors asked."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__({})
        self.rows: Iterator[np.ndarray] = iter(rows)

    def child(self, name: Any, path: str | None = None) -> Replay:
        return self

    def uniform(self, name: Any, *shape: int) -> Tensor:
        kind, *_, value = next(self.rows)
        assert kind == UNIFORM
        return torch.tensor(value, dtype=torch.float64)

    def integers(self, name: Any, high: int, *shape: int) -> Tensor:
        kind, low, above, value = next(self.rows)
        assert (kind, low, above) == (INTEGER, 0, high) and shape == (1,)
        return torch.tensor([int(value)])


class Authors(Replay):
    """Torch's own generators as the authors use them: one seeded anew for each batch, one that goes on."""

    def __init__(self, step: int, places: torch.Generator) -> None:
        super().__init__(np.zeros((0, 4)))
        self.sizes, self.places = torch.Generator().manual_seed(step), places

    def uniform(self, name: Any, *shape: int) -> Tensor:
        if shape:  # numbers whose order is a permutation, one for each row
            rows, patches = shape
            return torch.stack([torch.randperm(patches, generator=self.places).argsort() for _ in range(rows)]).float()
        return torch.rand(1, generator=self.sizes)

    def integers(self, name: Any, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=self.places)


def masks_of(h: Any) -> MultiBlock:
    return MultiBlock(
        targets=h["npred"],
        target_scale=h["pred_mask_scale"],
        aspect_ratio=h["aspect_ratio"],
        contexts=h["nenc"],
        context_scale=h["enc_mask_scale"],
        min_keep=h["min_keep"],
        allow_overlap=h["allow_overlap"],
    )


def one_by_one(h: Any, draw: Replay) -> Blocks:
    """A batch in the order of the authors' draws: all of one image's, then the next's."""
    masks, grid = masks_of(h), tuple(side // h["patch_size"] for side in h["input_size"])
    sizes = masks.sizes(draw, grid)
    parts = [masks.place(draw, 1, grid, sizes) for _ in range(h["batch"])]
    return shortest(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def check_multiblock(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    batches = [name for name in arrays if name.startswith("draws_")]
    for t in range(len(batches)):
        draw = Replay(arrays[f"draws_{t}"])
        found = one_by_one(h, draw)
        assert next(draw.rows, None) is None, f"batch {t}: the authors drew more"
        close(found.context, arrays[f"enc_masks_{t}"], f"context of batch {t}")
        close(found.targets, arrays[f"pred_masks_{t}"], f"targets of batch {t}")
    # The statistics are of the batches that came next: the same generators, replayed from the first batch on.
    places = torch.Generator().manual_seed(h["torch_seed"])
    count = int(re.search(r"over (\d+) batches", case["arrays"]["stats_ctx_len_mean"]["meaning"])[1])  # type: ignore[index]
    lengths = np.array(
        [[part.shape[-1] for part in one_by_one(h, Authors(t, places))] for t in range(len(batches) + count)]
    )[len(batches) :]
    for i, kind in enumerate(("ctx", "tgt")):
        close(lengths[:, i].mean(), arrays[f"stats_{kind}_len_mean"], f"mean length, {kind}")
    close(lengths[:, 0].min(), arrays["stats_ctx_len_min"], "smallest context")
    close([lengths[:, 1].min(), lengths[:, 1].max()], arrays["stats_tgt_len_minmax"], "smallest and largest target")


def check_random(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    places = torch.Generator().manual_seed(h["torch_seed"])
    rows = arrays["enc"].shape[1]
    found = RandomPatches(h["ratio"])(Authors(0, places), rows, (h["grid"], h["grid"]))
    close(found.context, arrays["enc"], "context")
    close(found.targets, arrays["pred"], "targets")


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    tokens, places = torch.tensor(arrays["target_tokens"]), torch.tensor(arrays["pred_masks"])
    targets = latent_targets(tokens, places, h["num_enc_masks"])
    close(targets, arrays["targets"], "targets")
    p = torch.tensor(arrays["predictions"]).requires_grad_()
    loss = latent_regression(p, targets)
    close(loss, arrays["loss"], "loss")
    close(torch.autograd.grad(loss, p)[0], arrays["grad_predictions"], "gradient")


class Given(MultiBlock):
    """Recorded blocks."""

    def __init__(self, context: np.ndarray, targets: np.ndarray) -> None:
        super().__init__()
        self.blocks = Blocks(torch.tensor(context), torch.tensor(targets))

    def check(self, grid: tuple[int, int]) -> None:
        pass

    def __call__(self, draw: Any, rows: int, grid: tuple[int, int]) -> Blocks:
        assert rows == self.blocks.context.shape[1]
        return self.blocks


def check_model(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    view = torch.tensor(arrays["x"])
    method = IJEPA(
        encoder_of(h),
        no_recipe(),
        image_info(samples=len(view), classes=None, image_size=h["img"], channels=view.shape[1], batch_size=len(view)),
        Given(arrays["enc_masks"], arrays["pred_masks"]),
        partial(TokenPredictor, width=h["pred_dim"], depth=h["pred_depth"], heads=h["heads"], mlp_ratio=h["mlp_ratio"]),
    ).to(double_or_single(arrays["x"]))
    positions = arrays["predictor.predictor_pos_embed"][0]
    grid = (h["img"] // h["patch"],) * 2
    close(sincos_positions(grid, positions.shape[1], columns_first=True)[0], positions, "positions of the predictor")
    close(method.backbone.net.pos_embed, arrays["encoder.pos_embed"].astype(np.float32), "positions of the encoder")
    fixed = ("predictor.predictor_pos_embed",)
    start = {name: array for name, array in plain(arrays, "encoder.", "predictor.").items() if name not in fixed}
    fill(method, {ours(name): array for name, array in start.items()})
    method.teacher.net.load_state_dict(method.backbone.state_dict())
    context = torch.cat([method.backbone.forward_tokens(view, keep).patches for keep in method.masks.blocks.context])
    close(context, arrays["encoder_out"], "tokens of the context")
    predictions = method.token_predictor(context, *method.masks.blocks, grid)
    close(predictions, arrays["predictions"], "predictions")
    loss = method.training_loss(Batch([view], torch.arange(len(view)), None, RecordedRNG(shared={"masks": {}})))["loss"]
    close(loss, arrays["loss"], "loss")
    loss.backward()
    gradients = {name: p.grad for name, p in method.named_parameters()}
    for name in (name for name in arrays if name.startswith("grad_")):
        close(gradients[GRADIENTS[name.removeprefix("grad_")]], arrays[name], name)


GRADIENTS = {
    "patch_embed_weight": "backbone.net.patch_embed.proj.weight",
    "mask_token": "token_predictor.mask_token",
    "predictor_embed_weight": "token_predictor.predictor_embed.weight",
}


def encoder_of(h: Any) -> Any:
    """The recorded encoder, as ``backbone=vit_patches`` builds it, with other sizes."""
    sizes = {"patch_size": h["patch"], "embed_dim": h["dim"], "depth": h["depth"], "num_heads": h["heads"]}
    without_class = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    arguments = {"positions": "sincos_mae", "mlp_ratio": h["mlp_ratio"], **sizes, **without_class}
    return vit("vit_tiny_patch16_224", image_size=h["img"], **arguments)


def ours(name: str) -> str:
    part, rest = name.split(".", 1)
    return {"encoder": "backbone.net.", "predictor": "token_predictor."}[part] + rest


def check_positions(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    for name in arrays:
        dim, side, cls = map(int, re.findall(r"\d+", name))
        assert (dim, side) in list(zip(h["dims"], h["grids"], strict=True))
        found = sincos_positions((side, side), dim, columns_first=True, dtype=torch.float64)[0]
        close(torch.cat([torch.zeros(cls, dim), found]), arrays[name], name)


CHECKS = {
    "ijepa": {
        "multiblock*": check_multiblock,
        "random_masks*": check_random,
        "loss*": check_loss,
        "tiny_model*": check_model,
        "sincos*": check_positions,
    }
}
