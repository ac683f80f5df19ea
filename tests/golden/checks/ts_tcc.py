"""TS-TCC: both losses with the recorded moments, the views with the recorded draws, and the length of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedDraw, RecordedRNG
from ssl_zoo.augmentations.series.operations import Jitter, Scale, permuted
from ssl_zoo.backbones.series.ts_tcc_encoder import ts_tcc_encoder
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.methods.ts_tcc import TSTCC
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, double_or_single, fill, no_recipe, plain


class Features(Identity):
    """Takes features along a series for the series itself."""

    name = "features"

    def sequence(self, length: int) -> tuple[int, int]:
        return self.out_features, length

    def forward_sequence(self, view: Tensor) -> Tensor:
        return view

    def pooled(self, sequence: Tensor) -> Tensor:
        return sequence.flatten(1)


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    assert h["scale"].startswith("dim^-0.5")
    settings = h["timesteps"], h["hidden"], h["depth"], h["heads"], h["mlp_dim"], 0.0
    info = DataInfo(h["B"], None, h["B"], {"length": h["length"]})
    weights = h["temperature"], h["lambda1"], h["lambda2"]
    method = TSTCC(Features(h["channels"]), no_recipe(), info, *settings, *weights)  # type: ignore[arg-type]
    method.to(double_or_single(arrays["features1"])).train()
    fill(method.contrast, {name.removeprefix("tc."): array for name, array in plain(arrays, "tc.").items()})
    moments = dict(zip(("weak", "strong"), torch.tensor(arrays["t"]), strict=True))
    rng = RecordedRNG(shared={f"moment of the {name} view": {"moment": t} for name, t in moments.items()})
    views = [torch.tensor(arrays[f"features{i}"], requires_grad=True) for i in (1, 2)]
    batch = Batch(views, torch.arange(h["B"]), None, rng)
    z = [nn.functional.normalize(view, dim=1).transpose(1, 2) for view in views]
    for name, past, future, want in (("weak", z[0], z[1], "temporal1"), ("strong", z[1], z[0], "temporal2")):
        close(method._predicted(batch, past, future, name)[0], arrays[want], want)
    out = method.training_loss(batch)
    close(out["contexts"], arrays["contextual"], "contrast of contexts")
    close(out["loss"], arrays["total"], "total")
    out["loss"].backward()
    for i, view in enumerate(views, 1):
        close(view.grad, arrays[f"grad_features{i}"], f"gradient of view {i}")


def check_augmentations(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    x, noise = (torch.tensor(arrays[name]).transpose(1, 2) for name in ("x", "noise"))  # [N, T, C]
    # What was drawn is the factor and the noise themselves; ours are drawn at mean 0 and deviation 1.
    factor = (torch.tensor(arrays["factor"])[..., None] - 2.0) / h["scale_sigma"]
    weak = Scale(h["scale_sigma"], mean=2.0, each="step")(x, RecordedDraw({"factor": factor}))
    close(weak.transpose(1, 2), arrays["weak"], "weak view")
    jitter = Jitter(h["jitter_sigma"])(x, RecordedDraw({"noise": noise / h["jitter_sigma"]}))
    close(jitter.transpose(1, 2), arrays["jittered"], "noise")
    number = torch.tensor(arrays["num_segs"])
    assert int(number.max()) < h["max_segments"]
    points, order = (torch.tensor(arrays[name])[:, : int(number.max())] for name in ("split_points", "segment_order"))
    cuts = points.masked_fill(points < 0, x.shape[1])
    cuts = cuts[:, : max(int(number.max()) - 1, 1)]
    rest = torch.arange(order.shape[1]).expand_as(order)  # the pieces that there are not, behind the others
    order = torch.where(order < 0, rest, order)
    got = permuted(x, cuts, order[:, : cuts.shape[1] + 1], first_channel=True)
    close(got.transpose(1, 2), arrays["permuted"], "pieces in another order")


def check_encoder(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    *widths, features = h["channels"]
    kernel, stride, length = h["kernel_size"], h["stride"], int(arrays["length_in"])
    assert length == h["length"]
    backbone = ts_tcc_encoder(h["input_channels"], length, features, widths, kernel, stride)
    made = backbone.forward_sequence(torch.zeros(2, length, h["input_channels"]))
    close(np.array(made.shape[2]), arrays["length_out"], "length")
    assert backbone.sequence(length) == tuple(made.shape[1:])


CHECKS = {"ts-tcc": {"loss*": check_loss, "augmentations*": check_augmentations, "encoder_shape*": check_encoder}}
