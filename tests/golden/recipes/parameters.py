"""Which of our parameters a sentence of a recipe means: every trained parameter by the part that it plays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ssl_zoo.optim.recipe import BoundRecipe
from tests.golden.recipes.words import Grammar, Question


@dataclass(frozen=True)
class Parameter:
    """A trained parameter.

    Args:
        leaf: The last part of its name.
        norm: Whether its layer normalises.
        group: Number of its group in the optimizer.
    """

    name: str
    leaf: str
    ndim: int
    norm: bool
    group: int

    @property
    def bias(self) -> bool:
        return self.leaf == "bias" or self.leaf.endswith("_bias")


Predicate = Callable[[Parameter], bool]


def trained(method: nn.Module, bound: BoundRecipe) -> list[Parameter]:
    group_of = {id(p): i for i, group in enumerate(bound.groups) for p in group.params}
    found = []
    for path, module in method.named_modules():
        norm = "norm" in type(module).__name__.lower() and not hasattr(module, "weight_v")
        for leaf, p in module.named_parameters(recurse=False):
            if id(p) in group_of:
                found.append(Parameter(f"{path}.{leaf}".lstrip("."), leaf, p.ndim, norm, group_of.pop(id(p))))
    return found


def _where(means: Predicate) -> Question:
    return lambda match, parameter: parameter.name if means(parameter) else None


def _named(*words: str) -> Question:
    return _where(lambda p: any(word in p.name for word in words))


_BIAS = _where(lambda p: p.bias)
_NORM = _where(lambda p: p.norm)
_SELECTORS = Grammar(
    (r"none|nothing", _where(lambda p: False)),
    (r"no decay at all|everything", _where(lambda p: True)),
    (r"ndim (==|<=)? ?1|(1|one) dimension", _where(lambda p: p.ndim <= 1)),
    (r"(names )?(ending in )?\.bias|bias(es)?( in the name)?|leaf named b|names (that contain|with) bias", _BIAS),
    (r"(names (that contain|with) |variables named )?(bn|batch_normalization)( in the name)?", _NORM),
    (r"norms?( layers?)?|a parent whose name contains norm", _NORM),
    (r"head_supervised", _where(lambda p: False)),  # their classifier of labels: ours is a probe with an own optimizer
    (r"scales of the down-?sampling batch norms",
     _where(lambda p: p.norm and not p.bias and re.search("downsample|shortcut", p.name) is not None)),
    (r"cls_token|class token", _named("cls_token", "class_token")),
    (r"pos_embed|position embedding|positions", _named("pos_embed", "pos_embedding")),
    (r"mask[ _]token", _named("mask_token")),
    (r"relative position bias table", _named("relative_position")),
    (r"weight-norm direction", _where(lambda p: p.leaf in ("weight_v", "original1"))),
    (r"prototypes?", _named("prototypes")),
    (r"predictor", _where(lambda p: "predictor" in p.name.split("."))),
    (r"name|names|or|with", None),
)  # fmt: skip


def meant(sentence: str) -> Predicate | None:
    """The parameters that a sentence names, or None where it cannot be read.

    Remarks in brackets and behind a colon are left out; what commas, *or* and *and* join is one set.
    """
    plain = re.sub(r"\([^)]*\)", "", sentence).partition(":")[0].replace("'", "").strip()
    found, unknown = _SELECTORS.read(plain)
    asked = [(match, question) for match, question in found if question is not None]
    if unknown or not asked:
        return None
    return lambda p: any(question(match, p) is not None for match, question in asked)
