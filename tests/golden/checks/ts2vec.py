"""TS2Vec: its losses, its encoder, steps of training with the mean of all weights, and what is encoded with it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.backbones.series.encoding import multiscale, pooled, sliding
from ssl_zoo.backbones.series.ts2vec_encoder import TS2VecEncoder, ts2vec_encoder
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.losses.hierarchical_contrast import hierarchical_contrast, instance_contrast, temporal_contrast
from ssl_zoo.methods.ts2vec import TS2Vec
from ssl_zoo.modules.masking.steps import without_runs
from ssl_zoo.modules.series_cuts import centred, sections
from ssl_zoo.optim.schedules import Progress
from tests.golden.compare import close
from tests.golden.harness import Values, double_or_single, fill, plain, recipe


def check_losses(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    a, b = (torch.tensor(arrays[name], requires_grad=True) for name in ("z1", "z2"))
    assert a.shape == (h["B"], h["T"], h["C"])
    close(instance_contrast(a, b, a, b, 0), arrays["instance"], "instance term")
    close(temporal_contrast(a, b), arrays["temporal"], "temporal term")
    for name in plain(arrays, "hierarchical_alpha"):
        alpha, unit = re.fullmatch(r"hierarchical_alpha([\d.]+)_unit(\d+)", name).groups()  # type: ignore[union-attr]
        close(hierarchical_contrast(a, b, a, b, 0, float(alpha), int(unit)), arrays[name], name)
    one = [x[:1] for x in (a, b, a, b)]
    close(hierarchical_contrast(*one, 0), arrays["hierarchical_single_series"], "one series")
    hierarchical_contrast(a, b, a, b, 0).backward()
    close(a.grad, arrays["grad_z1"], "gradient of view 1")
    close(b.grad, arrays["grad_z2"], "gradient of view 2")


def encoder_of(weights: Values, dropout: float = 0.0) -> TS2VecEncoder:
    """Of the sizes of recorded weights, whose names are the authors', in their precision."""
    first, blocks = weights["input_fc.weight"], [name for name in weights if name.endswith("conv1.conv.weight")]
    width, _, kernel = weights[blocks[-1]].shape
    backbone = ts2vec_encoder(first.shape[1], width, len(first), len(blocks) - 1, kernel, dropout)
    fill(backbone.to(double_or_single(first)).net, weights)
    return backbone


def named(arrays: Values, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in plain(arrays, prefix).items()}


def check_encoder(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    backbone = encoder_of(named(arrays, "param."), h["dropout_in_train"])
    assert len(backbone.net.feature_extractor.net) == h["depth"] + 1
    assert [block.conv1.conv.dilation[0] for block in backbone.net.feature_extractor.net] == list(h["dilations"])
    x = torch.tensor(arrays["x"])
    assert x.shape[:2] == (h["B"], h["T"])
    last = torch.ones(x.shape[:2], dtype=torch.bool)
    last[:, -1] = False
    backbone.eval()
    for name, keep in (("all_true", None), ("all_false", torch.zeros_like(last)), ("mask_last", last)):
        close(backbone.forward_steps(x, keep), arrays[f"out_{name}"], name)
    out = backbone.forward_steps(x, torch.tensor(arrays["binomial_mask"]))  # the recorded one had its dropout off
    close(out, arrays["out_train"], "half of the steps")
    (out * torch.tensor(arrays["cotangent"])).sum().backward()
    for name, p in backbone.net.named_parameters():
        close(p.grad, arrays[f"grad_param.{name}"], f"gradient of {name}")
    mask, starts = arrays["continuous_mask"], torch.tensor(arrays["continuous_starts"])
    share = float(re.search(r"l=([\d.]+)", case["arrays"]["continuous_mask"]["meaning"]).group(1))  # type: ignore[union-attr]
    close(without_runs(starts, max(int(share * mask.shape[1]), 1), mask.shape[1]), mask, "runs")


def recorded(arrays: Values, t: int, least: int, total: int) -> RecordedRNG:
    """The authors' draws as ours: from 0 on, and hidden steps where a uniform number is high."""
    overlap, left, begin, end = (int(x) for x in arrays[f"crop_iter{t}"])
    crop = {"length": overlap - least, "left": left, "begin": begin, "end": end - left - overlap}
    sample: dict[Any, Any] = {"crop": {"place": torch.tensor(arrays[f"offset_iter{t}"]) + begin}}
    for name, mask in (("first", "mask1"), ("second", "mask2")):
        sample[f"mask of the {name}"] = {"kept": 1.0 - torch.tensor(arrays[f"{mask}_iter{t}"]).float()}
    return RecordedRNG(sample, {"crop": {key: torch.tensor(value) for key, value in crop.items()}})


def check_fit(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    unit = h["temporal_unit"]
    values = {key: h[key] for key in ("lr", "betas", "eps", "weight_decay")}
    backbone = encoder_of(named(arrays, "init."))
    assert len(backbone.net.feature_extractor.net) == h["depth"] + 1
    info = DataInfo(h["N"], None, h["N"], {"length": h["T"], "channels": h["input_dims"]})
    method = TS2Vec(backbone, recipe(torch.optim.AdamW, **values), info, h["alpha"], unit)
    method.bind(h["N"], fused=False)
    losses = []
    for t in range(len(arrays["loss"])):
        method.progress = Progress(t, len(arrays["loss"]), 1)
        method.begin_micro_batch(first=True)
        series = torch.tensor(arrays[f"batch_iter{t}"])
        batch = Batch([series], torch.arange(len(series)), None, recorded(arrays, t, 2 ** (unit + 1), h["T"]))
        loss = method.training_loss(batch)["loss"]
        method.bound.optimizer.zero_grad()
        loss.backward()
        method.bound.optimizer.step()
        losses.append(loss.item())
    close(np.array(losses, dtype=np.float32), arrays["loss"], "losses")
    for name, p in backbone.net.named_parameters():
        close(p, arrays[f"final.{name}"], f"{name} after the steps")
    for name, p in method.encoder.net.named_parameters():
        close(p, arrays[f"averaged.{name}"], f"mean of {name}")


def check_encode(case: Any, arrays: Values) -> None:
    """With the mean of the weights that the training ended with."""
    h = case["hyperparameters"]
    (prefix,) = {name.partition("averaged.")[0] for name in arrays.beside if "/averaged." in name}  # type: ignore[attr-defined]
    weights = {
        name.removeprefix(f"{prefix}averaged."): array
        for name, array in arrays.beside.items()  # type: ignore[attr-defined]
        if name.startswith(f"{prefix}averaged.")
    }
    backbone = encoder_of(weights).eval()
    x = torch.tensor(arrays["x"])
    steps = backbone.forward_steps(x)
    close(steps, arrays["plain"], "each step")
    close(backbone(x), arrays["full_series"], "whole series")
    for name in plain(arrays, "window"):
        close(pooled(steps, int(name.removeprefix("window"))), arrays[name], name)
    close(multiscale(steps), arrays["multiscale"], "windows of several sizes")
    length, padding, batch = h["sliding_length"], h["sliding_padding"], h["batch_size"]
    for name, causal in (("sliding", False), ("sliding_causal", True)):
        close(sliding(backbone.forward_steps, x, length, padding, causal, batch), arrays[name], name)
    whole = sliding(backbone.forward_steps, x, length, padding, causal=True).amax(1)
    close(whole[..., None], arrays["sliding_full_series"], "largest of the pieces")


def check_preparation(case: Any, arrays: Values) -> None:
    middle = centred(torch.tensor(arrays["varying"]))
    close(middle.nan_to_num(7.5), np.nan_to_num(arrays["centred"], nan=7.5), "centred")
    got = sections(torch.tensor(arrays["long"]), case["hyperparameters"]["sections"])
    close(got.nan_to_num(7.5), np.nan_to_num(arrays["sections"], nan=7.5), "sections")


CHECKS = {
    "ts2vec": {
        "losses*": check_losses,
        "encoder*": check_encoder,
        "fit*": check_fit,
        "encode*": check_encode,
        "preparation*": check_preparation,
    }
}
