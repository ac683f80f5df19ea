"""First values of networks: which are drawn how. Asked of networks with real numbers, built again from the file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tests.golden.recipes.words import Question, number

SPREAD = 0.02  # of a deviation estimated from many weights
LEAST = 2_000  # weights from which a deviation is judged


def spread(values: Tensor) -> float:
    return float(values.detach().double().flatten().std())


def normal(values: Tensor, std: float) -> bool:
    """Whether the values look like normal ones of this deviation, cut off far out or not."""
    x = values.detach().double().flatten()
    room = SPREAD + 3 / math.sqrt(2 * len(x))
    return abs(float(x.std()) / std - 1) < room and float(x.abs().max()) > (2.2 * std if len(x) >= LEAST else 0)


def uniform(values: Tensor, bound: float) -> bool:
    """Whether they look evenly spread over [-bound, bound]."""
    x = values.detach().double().flatten()
    within = 0.97 * bound < float(x.abs().max()) <= bound * (1 + 1e-6)
    return within and abs(float(x.std()) / (bound / math.sqrt(3)) - 1) < SPREAD + 2 / math.sqrt(len(x))


def linears(net: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)]


def large(layers: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in layers if layer.weight.numel() >= LEAST]


def first_wrong(pairs: Sequence[tuple[str, bool]], what: str) -> str | None:
    wrong = [name for name, right in pairs if not right]
    return f"{wrong[0]} (and {len(wrong) - 1} more) has not {what}" if wrong else None


def _trunc_normal(match: re.Match[str], net: nn.Module) -> str | None:
    std = number(match.group(1) or "0.02")
    plain = [(n, m) for n, m in large(linears(net))]
    return first_wrong([(n, normal(m.weight, std)) for n, m in plain], f"normal weights of deviation {std:g}")


def _zero_biases(match: re.Match[str], net: nn.Module) -> str | None:
    biased = [(n, m.bias) for n, m in linears(net) if m.bias is not None]
    return first_wrong([(n, not bool(bias.any())) for n, bias in biased], "a bias of zeros")


def _kaiming(match: re.Match[str], net: nn.Module) -> str | None:
    convs = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    pairs = [(n, normal(m.weight, math.sqrt(2 / (m.out_channels * math.prod(m.kernel_size))))) for n, m in large(convs)]
    return first_wrong(pairs, "normal weights of variance 2 / fan out") if pairs else "there are no convolutions"


def _xavier(three: bool) -> Question:
    def ask(match: re.Match[str], net: nn.Module) -> str | None:
        pairs = []
        for name, m in large(linears(net)):
            out = m.out_features // 3 if three and name.endswith("qkv") else m.out_features
            pairs.append((name, uniform(m.weight, math.sqrt(6 / (m.in_features + out)))))
        return first_wrong(pairs, "Xavier-uniform weights")

    return ask


def _class_token(match: re.Match[str], net: Any) -> str | None:
    std, x = number(match.group(1)), net.cls_token.detach()
    close = 0.8 < spread(x) / std < 1.25 if x.numel() > 100 else True
    return None if close else f"the class token has a deviation of {spread(x):.2g}"


def _patch(net: Any) -> Tensor:
    return net.patch_embed.proj.weight


def _patch_linear(match: re.Match[str], net: Any) -> str | None:
    weight = _patch(net).flatten(1)
    bound = math.sqrt(6 / sum(weight.shape))
    return None if uniform(weight, bound) else "the patch embedding is not drawn as a linear layer is"


def _patch_bound(match: re.Match[str], net: Any) -> str | None:
    bound = math.sqrt(6 / sum(math.prod(map(int, part.split("*"))) for part in match.group(1).split("+")))
    return None if uniform(_patch(net), bound) else f"the patch embedding is not uniform to {bound:.4f}"


def _rescaled(match: re.Match[str], net: Any) -> str | None:
    """Attention's and MLP's last layers of block i = 1, 2, ... have 1 / sqrt(2 i) of the deviation of the others."""
    base = spread(net.blocks[0].attn.qkv.weight)
    pairs = []
    for i, block in enumerate(net.blocks, start=1):
        lasts = {"attn.proj": block.attn.proj, "mlp.fc2": block.mlp.fc2}
        pairs += [(f"blocks.{i - 1}.{n}", abs(spread(m.weight) * math.sqrt(2 * i) / base - 1) < 2 * SPREAD)
                  for n, m in lasts.items()]  # fmt: skip
    return first_wrong(pairs, "the deviation of the others over sqrt(2 * layer)")


def _truncated_first(match: re.Match[str], net: Any) -> str | None:
    """BEiT and SimMIM cut their normal weights off at the deviation: models/simmim.py, a=-std and b=std."""
    weight = net.blocks[0].attn.qkv.weight.detach()
    cut = float(weight.abs().max()) <= 0.02 and abs(spread(weight) / (0.5396 * 0.02) - 1) < SPREAD
    return None if cut else "queries, keys and values are no normal numbers of deviation 0.02, cut off there"


NUMBER = r"(\d*\.?\d+(?:e-?\d+)?)"
PHRASES: tuple[tuple[str, Question | None], ...] = (
    (rf"trunc_normal(?: std)? {NUMBER}", _trunc_normal),
    (r"biases 0", _zero_biases),
    (r"\(re-run over every Linear: the depth-dependent rescaling is undone\)", None),
    (r"kaiming fan_out", _kaiming),
    (r"N\(0, sqrt\(2/\(k\*k\*out\)\)\)", _kaiming),
    (r"xavier_uniform", _xavier(three=False)),
    (r"xavier_uniform \(qkv as three\)", _xavier(three=True)),
    (rf"class token N\(0, {NUMBER}\)", _class_token),
    (r"patch embedding as a linear layer", _patch_linear),
    (r"patch embedding uniform sqrt\(6/\(([\d*+]+)\)\)", _patch_bound),
    (r"BEiT: trunc_normal", _truncated_first),
    (r"attention and mlp outputs rescaled by 1/sqrt\(2 \* layer\)", _rescaled),
)
