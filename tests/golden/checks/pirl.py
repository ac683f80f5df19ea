"""PIRL: steps on one memory bank with vissl's NCE and both softmaxes, and the head of the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.nce import picked_scores
from ssl_zoo.methods import pirl
from ssl_zoo.modules.heads import MLP
from ssl_zoo.modules.jigsaw_head import JigsawHead
from tests.golden.checks.instdisc import units
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, plain

# Of the float32 embeddings that vissl's loss was given, which it brings to length 1.
SCALES = {"image": 1.5, "patch": 0.7}
PLAIN = {"image": 1.0, "patch": 1.0}
HALF = 0.5  # vissl's weights of both terms
REAL = F.normalize


class Given(nn.Module):
    """In place of the head of the tiles: their embeddings are the features of the first tile."""

    def forward(self, features: Tensor, order: Tensor) -> Tensor:
        return features[:, 0]


def method_of(h: Any, arrays: Values, loss: str, jigsaw: float, single: bool = False) -> pirl.PIRL:
    """``single``: with constants as float32 has them."""
    temperature, momentum = (float(np.float32(h[key])) if single else h[key] for key in ("T", "m"))
    info = image_info(h["n_data"], None, 1, 1, h["B"])
    method = pirl.PIRL(
        Identity(h["D"]), no_recipe(), info, Identity, tiles=1, loss=loss, temperature=temperature,  # type: ignore[arg-type]
        negatives=h["K"], shared_negatives=True, jigsaw=jigsaw, bank_momentum=momentum,
    )  # fmt: skip
    fill(method, {"bank.keys": arrays["memory_before"]})
    method.jigsaw_projector = Given()  # type: ignore[assignment]
    return method


def step(method: pirl.PIRL, arrays: Values, dtype: torch.dtype, scales: Mapping[str, float]) -> dict[str, Any]:
    """One call of the loss on the recorded embeddings, and the memory after it."""
    image, patch = ((torch.tensor(arrays[f"{name}_embedding"]) * scales[name]).to(dtype) for name in ("image", "patch"))
    image, patch = image.requires_grad_(), patch.requires_grad_()
    rows = {"rows": torch.tensor(arrays["candidates"])[:, 1:]}
    rng = RecordedRNG(sample={"tiles": {"": torch.zeros(len(image), 1, dtype=torch.int64)}, "negatives": rows})
    with units() as seen:
        out = method.training_loss(Batch([image, patch[:, None]], torch.tensor(arrays["index"]), None, rng))
    out["loss"].backward()
    method.on_after_backward()
    z, z_tiles = seen
    return {**out, "image": image, "z": z, "z_tiles": z_tiles, "memory": method.bank.keys.clone()}


def check_softmax(h: Any, arrays: Values) -> None:
    """PyContrast's loss of unit embeddings."""
    for dtype in (torch.float64, torch.float32):
        method = method_of(h, arrays, "sampled", h["beta"]).to(dtype)
        # The recorded embeddings have length 1 in float32 and are not brought to it again.
        with mock.patch.object(F, "normalize", lambda x, dim: x * 1 if x.requires_grad else REAL(x, dim=dim)):
            found = step(method, arrays, dtype, PLAIN)
        if dtype == torch.float32:
            close(found["loss"], arrays["xent_loss_f32"], "loss in float32", arrays["xent_loss"])
            continue
        close(found["loss"], arrays["xent_loss"], "loss")
        close(found["loss_image"], arrays["xent_loss_image"], "loss of the image")
        close(found["loss_tiles"], arrays["xent_loss_patch"], "loss of the tiles")
        close(found["z"].grad, arrays["grad_image"], "gradient of the image")
        close(found["z_tiles"].grad, arrays["grad_patch"], "gradient of the tiles")
        close(found["memory"], arrays["memory_after"], "memory")
        keys, rows = torch.tensor(arrays["memory_before"]).double(), torch.tensor(arrays["candidates"])
        close(picked_scores(found["z"], keys, rows) / h["T"], arrays["logits_image"], "logits of the image")


def check_vissl(h: Any, arrays: Values, name: str, loss: str) -> None:
    """Two calls of vissl's loss, whose temperature and momentum are rounded to float32."""
    method = method_of(h, arrays, loss, HALF, single=True).to(torch.float64)
    for t in (0, 1):
        found = step(method, arrays, torch.float64, SCALES)
        close(found["loss"], arrays[f"vissl_{name}_loss_step{t}"], f"{name}: loss of step {t}")
        close(found["image"].grad, arrays[f"vissl_{name}_grad_image_step{t}"], f"{name}: gradient of step {t}")
        close(found["memory"], arrays[f"vissl_{name}_memory_step{t}"], f"{name}: memory of step {t}")
    if loss == "nce":
        close(method.contrast.normaliser, arrays["vissl_nce_Z"], "Z")


def check_head(h: Any, arrays: Values) -> None:
    head = JigsawHead(MLP(h["dim_in"], [], h["D"], last_bias=True), arrays["head_perms"].shape[1]).double()
    names = {"fc1": "tile.0", "fc2": "mix"}
    weights = {key.removeprefix("head_w_"): array for key, array in plain(arrays, "head_w_").items()}
    fill(head, {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": array for key, array in weights.items()})
    features = torch.tensor(arrays["head_features"]).double().unflatten(0, (h["B"], -1))
    out = F.normalize(head(features, torch.tensor(arrays["head_perms"])), dim=1)
    close(out, arrays["head_out"], "embedding of the tiles")


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    check_softmax(h, arrays)
    check_vissl(h, arrays, "nce", "nce")
    check_vissl(h, arrays, "cross_entropy", "sampled")
    check_head(h, arrays)


CHECKS = {"pirl": {"*": check}}
