"""Colorization: CIC's targets, weights, loss and decoding; colour conversion and objective of the PyTorch code."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.colorspace import lab_to_rgb
from ssl_zoo.backbones.image.tiny import resnet8
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.colorization import annealed_mean, rarity, soft_bins
from ssl_zoo.methods import colorization
from ssl_zoo.modules.color_bins import AB, gamut_bins, square_bins, square_index
from ssl_zoo.modules.color_decoder import ColorDecoder
from tests.golden.compare import close
from tests.golden.harness import Values, no_recipe

SIGGRAPH = {"scaled": True, "centre": [50, 0, 0], "half_range": [100, AB, AB]}


def method_of(form: Any, size: int) -> Any:
    network = resnet8(in_channels=1, image_size=size, width=4)
    info = image_info(4, None, size, 3, 4)
    return colorization.Colorization(network, no_recipe(), info, partial(ColorDecoder, width=4), form, stride=1)


def step(method: Any, ab: Tensor, logits: Tensor, colours: Tensor | None = None) -> dict[str, Tensor]:
    """The loss of recorded outputs of the network."""
    view = ab.new_zeros(len(ab), 1, *ab.shape[2:])
    with mock.patch.object(method, "paint", lambda _: (view.flatten(1), logits, colours)):
        return method.training_loss(Batch([view, ab / AB], torch.arange(len(ab)), None, None))


def check_cic(arrays: Values) -> None:
    method = method_of("eccv16", arrays["ab"].shape[2]).double()
    centres, prior = torch.tensor(arrays["bin_centres"]), torch.tensor(arrays["prior_probs"])
    close(gamut_bins().short(), arrays["bin_centres"], "bins")
    ab = torch.tensor(arrays["ab"]).double()
    target = soft_bins(ab, centres.double(), method.neighbours, method.sigma)
    close(target.index, arrays["soft_target_top10_bins"], "nearest bins")
    close(target.dense(len(centres)), arrays["soft_target"], "soft targets")
    close(rarity(prior, method.uniform), arrays["prior_factor"], "weights of bins")
    method.prior.tell(prior)
    logits = torch.tensor(arrays["logits"]).double().requires_grad_()
    with mock.patch.object(colorization, "rebalanced_divergence", wraps=colorization.rebalanced_divergence) as spy:
        out = step(method, ab, logits)
    out["loss"].backward()
    weight = spy.call_args.args[2]
    close(out["loss"], arrays["cic_loss"], "loss")
    close(logits.grad, arrays["cic_grad_logits"], "gradient")
    mask = arrays["nongray_mask"]
    close((weight > 0).flatten(1).any(1).double(), mask, "images with colours")
    close(weight[:, None], arrays["boost"] * mask[:, None, None, None], "weights of pixels")
    method.on_after_backward()
    close(method.prior.counts, arrays["prior_probs"], "told shares stay")
    for temperature in (1.0, method.temperature):
        name = f"decode_T{temperature:g}"
        close(annealed_mean(logits, method.centres, temperature), arrays[name], name)


def check_siggraph(arrays: Values) -> None:
    rgb = torch.tensor(arrays["rgb"])
    lab = registry.build({"image/lab": SIGGRAPH}, rgb.shape[-1])(rgb, None)
    close(lab, arrays["sig_lab_f32"], "scaled L*a*b*")
    scale = torch.tensor([100.0, AB, AB]).view(3, 1, 1)
    back = lab_to_rgb(lab * scale + torch.tensor([50.0, 0.0, 0.0]).view(3, 1, 1))
    close(back, arrays["sig_rgb_back_f32"], "back to RGB")
    method = method_of("siggraph17", rgb.shape[-1])
    ab = AB * lab[:, 1:]
    spread = (ab.amax((2, 3)) - ab.amin((2, 3))).sum(1)
    kept = spread >= method.grey
    close(lab[kept][:, :1], arrays["sig_A_f32"], "images with colours")
    at = ab[:, :, ::4, ::4]
    close(square_index(at[kept]).float(), arrays["sig_ab_index"], "hard bins")

    def whole(array: np.ndarray) -> Tensor:
        """Of all images; for the grey ones, which must not count, something that would be seen."""
        out = torch.full((len(rgb), *array.shape[1:]), 0.5)
        out[kept] = torch.tensor(array).float()
        return out

    logits, colours = (whole(arrays[name]) for name in ("sig_class_logits", "sig_regression"))
    out = step(method, ab, logits, colours)
    close(out["classes"], arrays["sig_ce_f32"], "cross-entropy")
    close(out["numbers"], arrays["sig_l1_f32"], "regression")
    close(out["loss"], arrays["sig_total_f32"], "loss")
    mean = annealed_mean(logits[kept], square_bins(), 1.0) / AB
    close(mean, arrays["sig_decode_mean_f32"], "mean decoding")


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    assert arrays["ab"].shape == (h["N"], 2, h["S"], h["S"])
    check_cic(arrays)
    check_siggraph(arrays)


HINTS = "hints are for the interactive second stage; the encoder sees L alone, as their first stage (sample_p 1)"
DIFFERS = {
    "colorization/all/sig_hint_B_f32": HINTS,
    "colorization/all/sig_mask_f32": HINTS,
    "colorization/hyperparameters/p": HINTS,
}
CHECKS = {"colorization": {"all": check}}
