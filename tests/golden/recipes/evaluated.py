"""Which network is evaluated, in the words of a recipe, asked of the modules that an evaluation calls."""

from __future__ import annotations

import re

from torch import nn

from ssl_zoo.modules.ema import EMA
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.trial import evaluation
from tests.golden.recipes.words import Grammar

HEADS = ("projector", "projectors", "predictor", "map_projector", "gate", "classifier", "top", "neck", "decoder")


def _called(composed: Composed) -> set[str]:
    """Parts of the method that an evaluation calls, the first level of their names."""
    run = evaluation(composed)
    if run.error is not None:
        raise RuntimeError(f"an evaluation fails: {run.error}")
    return {call.name.partition(".")[0] for call in run.calls}


def _averages(composed: Composed) -> set[str]:
    return {name for name, part in composed.method.named_children() if isinstance(part, EMA)}


def _student(match: re.Match[str], composed: Composed) -> str | None:
    called = _called(composed)
    return None if "backbone" in called and not called & _averages(composed) else f"{sorted(called)} are called"


def _teacher(match: re.Match[str], composed: Composed) -> str | None:
    """A moving average of the student is called, and the student is not."""
    called = _called(composed)
    found = called & _averages(composed) and "backbone" not in called
    return None if found else f"{sorted(called)} are called"


def _no_head(match: re.Match[str], composed: Composed) -> str | None:
    used = sorted(name for name in _called(composed) if name in HEADS)
    return f"{used} are called" if used else None


def _with_head(match: re.Match[str], composed: Composed) -> str | None:
    run, used = evaluation(composed), [name for name in _called(composed) if name in HEADS]
    width = match.groupdict().get("width")
    if not used:
        return "no head is called"
    return None if width is None or run.output[-1] == int(width) else f"{run.output[-1]} features"


def _with_classifier(match: re.Match[str], composed: Composed) -> str | None:
    """The method has a classifier of its own, which ``protocol=classifier`` evaluates."""
    return None if isinstance(getattr(composed.method, "classifier", None), nn.Module) else "no classifier"


def _neck(match: re.Match[str], composed: Composed) -> str | None:
    return None if "neck" in _called(composed) else "no neck is called"


def _unit(match: re.Match[str], composed: Composed) -> str | None:
    return None if evaluation(composed).normalised else "features keep their length"


def _both(match: re.Match[str], composed: Composed) -> str | None:
    towers = getattr(composed.method.backbone.net, "towers", [])
    width = evaluation(composed).output[-1]
    return None if len(towers) == 2 and width == composed.method.backbone.out_features else f"{len(towers)} networks"


def _patches(match: re.Match[str], composed: Composed) -> str | None:
    """The network sees more than one patch of an image, of which one row of features is left."""
    run = evaluation(composed)
    rows = sum(call.shapes[0][0] for call in run.called("backbone"))
    return None if rows > run.batch and run.output[0] == run.batch else "images are not cut into patches"


def _pre_feature(match: re.Match[str], composed: Composed) -> str | None:
    names = [call.name for call in evaluation(composed).calls]
    return None if any("pre_feature" in name for name in names) else "no pre_feature is called"


def _experts(match: re.Match[str], composed: Composed) -> str | None:
    """The cluster of a sample is asked of experts and gate (``protocol=assignment``)."""
    return None if hasattr(composed.method, "assign_clusters") else "no experts are asked"


def _clean(match: re.Match[str], composed: Composed) -> str | None:
    own = getattr(composed.method, "adversarial", None)
    return None if own is not None and "adversarial" not in _called(composed) else "the adversarial norms are called"


def _width(match: re.Match[str], composed: Composed) -> str | None:
    width = evaluation(composed).output[-1]
    return None if width == int(match.group(1)) else f"{width} features"


def _class_tokens(match: re.Match[str], composed: Composed) -> str | None:
    """Evaluation protocols choose the layers of a transformer; a network of maps has its pooled features."""
    return _no_head(match, composed)


WORDS = Grammar(
    (r"(?:the )?backbone", _student),
    (r"encoder(?:, r1)?", _student),
    (r"online encoder", _student),
    (r"query encoder(?: \(encoder_q\))?", _student),
    (r"base_encoder \(not the momentum encoder\)", _student),
    (r"the network(?: itself| \(not the average\))?", _student),
    (r"student(?: (?:backbone|encoder|network))?", _student),
    (r"(?:teacher|momentum|key) (?:backbone|encoder|network)|target (?:encoder|network)|teacher", _teacher),
    (r"moving average of the student", _teacher),
    (r"\(not the average\)", _student),
    (r"\(online linear classifier on detached features\)", _no_head),
    (r"without (?:its |the )?(?:heads?|projector|decoder)", _no_head),
    (r"with its (?:(?P<width>\d+)-d )?head(?: \(k-NN\))?", _with_head),
    (r"output of the (?:projector|projection|head)", _with_head),
    (r"with its classifier", _with_classifier),
    (r"with its batch-norm neck", _neck),
    (r"l2-normalised", _unit),
    (r"clean batch norms", _clean),
    (r"both half networks, features concatenated", _both),
    (r"mean over patches", _patches),
    (r"with pre_feature", _pre_feature),
    (r"pooled res5", _no_head),
    (r"experts and gate", _experts),
    (r"batch norm in evaluation mode", None),  # every evaluation is
    (r"encoder output \(ft_proj_selector 0\)", _no_head),
    (r"(\d+)-d embedding in front of the projector", _width),
    (r"class tokens? of the last two layers|class token|LayerNorm", _class_tokens),
    (r"average of the patch tokens|\(last layer, or last 4 concatenated\)", _no_head),
    (r"fine-tuned; no linear number is printed", None),
)
