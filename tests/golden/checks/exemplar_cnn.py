"""Exemplar-CNN: colour operations, places of crops, and the semi-hard triplets of its second form."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.image.anchor_crop import crop_centres
from ssl_zoo.augmentations.image.exemplar import HSVContrast, HueShift, PCAColor
from ssl_zoo.data.batch import Batch
from ssl_zoo.methods.exemplar_cnn import ExemplarCNN
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, data_info, no_recipe

EPS = 1e-6  # grey values by which two computations of the same number may differ before it is cut


def cut(x: Tensor, want: np.ndarray) -> np.ndarray:
    """A result as the authors cut it to 8 bits; a number that lies on a grey value may fall to either side."""
    grey = x[0].permute(1, 2, 0).numpy() * 255
    return np.where((want <= grey + EPS) & (grey - EPS < want.astype(float) + 1), want, np.floor(grey)).astype("uint8")


def check_colours(h: Any, arrays: Values) -> None:
    image = torch.tensor(arrays["image"]).permute(2, 0, 1)[None].double() / 255
    assert image.shape[2:] == (h["S"], h["S"])
    draws = {name: torch.tensor(arrays[f"{name}_draws"])[None] for name in ("pca", "contrast", "hue")}
    found = {
        "pca": PCAColor().scaled(image, draws["pca"]),
        "contrast": HSVContrast().changed(image, draws["contrast"]),
        "hue": HueShift().turned(image, draws["hue"][:, 0]),
    }
    for name, x in found.items():
        close(cut(x, arrays[f"{name}_out"]), arrays[f"{name}_out"], name)


def check_crops(document: Any, arrays: Values) -> None:
    said = {name: document["arrays"][name]["meaning"] for name in ("crop_anchor_xy", "crop_centre_xy")}
    width, height = map(int, re.findall(r"(\d+)x(\d+)", said["crop_anchor_xy"])[0])
    (side,) = map(int, re.findall(r"(\d+) px", said["crop_centre_xy"]))
    anchor, shift = torch.tensor(arrays["crop_anchor_xy"]), torch.tensor(arrays["crop_draws"])
    close(crop_centres(anchor, shift, (width, height), side), arrays["crop_centre_xy"], "centres of the crops")


def check_triplets(h: Any, arrays: Values) -> None:
    images, crops, axes = h["n_img"], h["n_aug"], (0, 1)
    for axis in axes:
        found = {dtype: triplets(h, arrays, axis, dtype) for dtype in (torch.float32, torch.float64)}
        for part, name in ((0, f"tri_semihard_axis{axis}_f32"), (1, f"tri_semihard_axis{axis}_grad_f32")):
            close(found[torch.float32][part], arrays[name], name, double=found[torch.float64][part])
    assert arrays["tri_embeddings"].shape == (images * crops, h["D"])


def triplets(h: Any, arrays: Values, axis: Literal[0, 1], dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Loss of the recorded rows, crops of an image one after the other, and its gradient."""
    z = torch.tensor(arrays["tri_embeddings"]).to(dtype).requires_grad_()
    info = data_info(h["n_img"])
    method = ExemplarCNN(Identity(h["D"]), no_recipe(), info, None, "triplet", h["margin"], axis)
    views = list(z.unflatten(0, (h["n_img"], h["n_aug"])).unbind(1))
    loss = method.training_loss(Batch(views, torch.arange(h["n_img"]), None, None))["loss"]
    loss.backward()
    assert z.grad is not None
    return loss.detach().numpy(), z.grad.numpy()


def check(document: Any, arrays: Values) -> None:
    check_colours(document["hyperparameters"], arrays)
    check_crops(document, arrays)
    check_triplets(document["hyperparameters"], arrays)


CHECKS = {"exemplar_cnn": {"all": check}}
