"""Layers of the authors' networks that our backbones take from timm, and sizes of whole networks."""

from __future__ import annotations

import re
from typing import Any

import torch
from timm.layers import SelectiveKernel
from torch import nn

from ssl_zoo.backbones.image.batch_free import StandardisedConv2d
from ssl_zoo.backbones.image.selective import resnet_sk
from tests.golden.compare import close
from tests.golden.harness import Values, fill


def check_selective_kernel(case: Any, arrays: Values) -> None:
    """SimCLR v2's selective kernel is timm's with two 3 x 3 paths that both see the whole input."""
    h = case["hyperparameters"]
    assert h["mid_dim"] == max(int(h["filters"] * h["sk_ratio"]), 32)  # SK_Conv2D of tf2/resnet.py
    block = SelectiveKernel(
        h["in_channels"],
        h["filters"],
        [3, 3],
        h["stride"],
        rd_channels=h["mid_dim"],
        split_input=False,
    )
    values = {}
    for i in range(2):
        rows = slice(i * h["filters"], (i + 1) * h["filters"])
        values[f"paths.{i}.conv.weight"] = arrays["conv3x3"].transpose(3, 2, 0, 1)[rows]
        values |= {f"paths.{i}.bn.{k}": arrays[f"bn0_{v}"][rows] for k, v in (("weight", "gamma"), ("bias", "beta"))}
    values |= {"attn.fc_reduce.weight": arrays["fc0"].transpose(3, 2, 0, 1)}
    values |= {"attn.fc_select.weight": arrays["fc1"].transpose(3, 2, 0, 1)}
    values |= {f"attn.bn.{k}": arrays[f"bn1_{v}"] for k, v in (("weight", "gamma"), ("bias", "beta"))}
    fill(block, values)
    out = block.train()(torch.tensor(arrays["x"].transpose(0, 3, 1, 2)))
    close(out.permute(0, 2, 3, 1), arrays["out"], "output")


def check_standardised_block(case: Any, arrays: Values) -> None:
    """Group norm and weight standardisation of BYOL without batch statistics."""
    h = case["hyperparameters"]
    sizes, padding = (h["in_channels"], h["out_channels"], h["kernel"]), h["kernel"] // 2
    conv = StandardisedConv2d(*sizes, padding=padding, bias=False).double()
    conv.eps = h["ws_eps"]
    norm = nn.GroupNorm(h["groups"], h["out_channels"], eps=h["gn_eps"]).double()
    fill(conv, {"weight": arrays["weight"]})
    fill(norm, {"weight": arrays["gn_weight"], "bias": arrays["gn_bias"]})
    x = torch.tensor(arrays["x"]).requires_grad_()
    out = norm(conv(x)).relu()
    out.square().sum().backward()
    close(out, arrays["out"], "output")
    close(x.grad, arrays["grad_x_of_sumsq"], "gradient of the input")
    close(conv.weight.grad, arrays["grad_weight_of_sumsq"], "gradient of the weight")


def check_parameter_counts(case: Any, arrays: Values) -> None:
    """Networks named ``r<depth>_<width>x[_sk]``; built without memory, because the largest has 795 million numbers."""
    for name in arrays:
        named = re.fullmatch(r"r(50|101|152)_(\d+)x(_sk)?", name)
        if named is None:
            continue
        with torch.device("meta"):
            net = resnet_sk(depth=int(named[1]), width=int(named[2]), selective=named[3] is not None)
        close(sum(p.numel() for p in net.parameters()), arrays[name], f"parameters of {name}")


CHECKS = {
    "simclr": {"sk_conv*": check_selective_kernel, "param_counts*": check_parameter_counts},
    "byol": {"gn_ws*": check_standardised_block},
}
