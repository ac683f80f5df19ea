"""Extras that are recorded in words: what a loss is, what is clustered when, whose gradient goes where."""

from __future__ import annotations

import re
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_zoo.augmentations.rng import BatchRNG
from tests.golden.recipes import extra_numbers
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.extra_places import found
from tests.golden.recipes.trial import trial
from tests.golden.recipes.words import Grammar, Question


def is_(place: str, *wanted: Any) -> Question:
    """Whether an attribute of the method has one of these values."""

    def ask(match: re.Match[str], composed: Composed) -> str | None:
        ours = found(composed.method, place)
        return None if ours in wanted else f"{place} is {ours}"

    return ask


def _shares(each: bool) -> Question:
    """Of a mixture: at least a half, and one for each row or one for all."""

    def ask(match: re.Match[str], composed: Composed) -> str | None:
        method: Any = composed.method
        x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        own = method.mixer.mix(x, BatchRNG(0, 0, 0, torch.arange(64)), "mix").weights[:, 0]
        count, least = len(own.unique()), float(own.min())
        return None if least >= 0.5 and (count > 1) is each else f"{count} shares from {least:.2f}"

    return ask


def _queries_only(match: re.Match[str], composed: Composed) -> str | None:
    """One view is mixed in a step, or one for each direction."""
    mixed, turns = trial(composed).mixed, 1 + bool(found(composed.method, "symmetric"))
    return None if mixed == turns else f"{mixed} views are mixed"


def _probe(match: re.Match[str], composed: Composed) -> str | None:
    """A probe on detached features; it changes nothing, whichever optimizer it has."""
    return None if "online_probe" in (composed.plain["callbacks"] or {}) else "no probe runs along"


def _whole_batch(match: re.Match[str], composed: Composed) -> str | None:
    group = found(composed.method, "norm_group")
    return None if group in (None, composed.info.batch_size) else f"groups of {group}"


def _others(match: re.Match[str], composed: Composed) -> str | None:
    count = {"two": 2, "three": 3, "five": 5, "seven": 7}[match.group(1)]
    views = extra_numbers.view_count(composed)
    return None if views == count + 1 else f"{views} views"


def _at_epoch_start(match: re.Match[str], composed: Composed) -> str | None:
    own = type(composed.method).on_train_epoch_start
    return None if own is not pl.LightningModule.on_train_epoch_start else "nothing happens at the start of an epoch"


def _at_epoch_end(match: re.Match[str], composed: Composed) -> str | None:
    own = type(composed.method).on_train_epoch_end
    return None if own is not pl.LightningModule.on_train_epoch_end else "nothing happens at the end of an epoch"


def _from_memory(match: re.Match[str], composed: Composed) -> str | None:
    ours = extra_numbers.cluster_start(composed)
    return None if ours == match.group() else ours


def _fixed_gate(match: re.Match[str], composed: Composed) -> str | None:
    names = {name for name, _ in composed.method.named_parameters()}
    return None if "gates" not in names and hasattr(composed.method, "gates") else "the gate's centres are trained"


def _apart(match: re.Match[str], composed: Composed) -> str | None:
    """Centres with equal angles, as far apart as can be."""
    from tests.golden.recipes.real import real_method

    gates = real_method(composed).get_buffer("gates").double()
    products = (gates @ gates.mT)[~torch.eye(len(gates), dtype=torch.bool)]
    wanted = torch.full_like(products, -1 / (len(gates) - 1))
    return None if torch.allclose(products, wanted, atol=1e-5) else "the gate's centres are not as far apart as can be"


def _directions(match: re.Match[str], composed: Composed) -> str | None:
    """L against ab and ab against L."""
    ours = found(composed.method, "directions")
    return None if sorted(ours) == [(0, 1), (1, 0)] else f"{ours}"


def _convex(match: re.Match[str], composed: Composed) -> str | None:
    method: Any = composed.method
    rest = method.agreement_weight
    return None if abs(rest - (1 - method.weight)) < 1e-12 else f"agreement * {rest}"


def _ratios(match: re.Match[str], composed: Composed) -> str | None:
    """Half of the crops are whole, and the others hide a share between the two."""
    shares, low, high = extra_numbers.mask_shares(composed), float(match.group(1)), float(match.group(2))
    whole, most = float((shares == 0).float().mean()), float(shares.max())
    side = found(composed.method, "masks")
    nominal = sorted(r + s * sign for r, s in zip(side.ratios, side.spreads, strict=True) if r for sign in (-1, 1))
    close = abs(nominal[0] - low) < 1e-9 and abs(nominal[-1] - high) < 1e-9 and most <= high + 1e-6
    even = abs(whole - 0.5) < 0.05
    return None if even and close else f"{whole:.2f} whole, others from {nominal[0]} to {nominal[-1]}"


def _prediction_ratios(match: re.Match[str], composed: Composed) -> str | None:
    masks = found(composed.method, "masks")
    wanted = [[float(x) for x in match.group(i).split()] for i in (1, 2)]
    return None if [list(masks.ratios), list(masks.spreads)] == wanted else f"{masks.ratios}, {masks.spreads}"


def _two_global(match: re.Match[str], composed: Composed) -> str | None:
    count = sum(view.count for view in composed.views if view.kind == "global")
    return None if count == 2 else f"{count} global views"


def _kept(match: re.Match[str], composed: Composed) -> str | None:
    total = extra_numbers.patches(composed)
    wanted = extra_numbers.formula(match.group(), {"L": total, "N": total})
    several = len(trial(composed).views) > 1
    ours = (extra_numbers.kept_of_whole if several else extra_numbers.kept)(composed)
    return None if ours == wanted else f"{ours} of {total} patches"


def _squares(match: re.Match[str], composed: Composed) -> str | None:
    ours = extra_numbers.hidden_squares(composed)
    wanted = extra_numbers.formula(match.group(1), {})
    right = ours == (int(match.group(2)), int(match.group(3))) and wanted == ours[0]
    return None if right else f"{ours[0]} of {ours[1]}"


def _hard(match: re.Match[str], composed: Composed) -> str | None:
    beta, share = found(composed.method, "beta"), found(composed.method, "positive_share")
    return None if beta != 0 and share is not None else f"beta {beta}"


WORDS: dict[str, Grammar] = {
    "correlation": Grammar(
        (r"batch norm without affine over the whole batch", _whole_batch), (r"sums not means", None)
    ),
    "online_classifier": Grammar(
        (r"linear on stop-gradient representations|on detached representations", _probe),
        (r"in the same (?:optimizer|LARS)", None),
    ),
    "lambda": Grammar(
        (r"max\(lam, 1 - lam\), per sample", _shares(each=True)),
        (r"max\(lam, 1 - lam\), one of the batch", _shares(each=False)),
    ),
    "mixed": Grammar((r"queries only", _queries_only)),
    "targets": Grammar((r"mean of the other (two|three|five|seven) projections", _others)),
    "estimator": Grammar((r"hard", _hard), (r"easy", is_("beta", 0, 0.0))),
    "loss": Grammar(
        (r"NCE", lambda match, composed: _nce(composed)),
        (r"\(--softmax for cross-entropy\)", None),
        (r"L \+ ab", _directions),
        (r"sum over the negatives|Z of the first batch", lambda match, composed: _nce(composed)),
        (r"\(1 - lambda\) \* invariance \+ lambda \* SIGReg", _convex),
        (r"smooth L1 on LayerNorm targets without affine", is_("form", "smooth_l1")),
        (r"L1 on masked pixels", lambda match, composed: _imports(composed, "masked_absolute_error")),
    ),
    "sigreg": Grammar((r"per view, averaged", is_("pool_views", False))),
    "centres": Grammar(
        (r"max-Mahalanobis", _apart),
        (r"fixed gate", _fixed_gate),
        (r"experts' centres replaced at every epoch's end", _at_epoch_end),
    ),
    "gather": Grammar((r"all processes, with gradient", lambda match, composed: _imports(composed, "gather"))),
    "kmeans.start": Grammar((r"random rows of the memory", _from_memory)),
    "kmeans.when": Grammar((r"start of every epoch", _at_epoch_start)),
    "masks.shape": Grammar((r"block", is_("masks.shape", "block")), (r"\(BEiT\)", None)),
    "masks.ratio": Grammar(
        (r"per image 0 or U\((\d*\.\d+), (\d*\.\d+)\)", _ratios),
        (r"\(pred_ratio (\d*\.?\d+ \d*\.?\d+), pred_ratio_var (\d*\.?\d+ \d*\.?\d+)\)", _prediction_ratios),
    ),
    "masks.crops": Grammar((r"the two global ones", _two_global)),
    "masks.kept": Grammar((r"(?:int|floor)\(\w+ \* \d*\.\d+\)", _kept)),
    "masks.count": Grammar((r"(ceil\(\d+ \* \d*\.\d+\)) = (\d+) of (\d+)", _squares)),
    "patch_drop.kept": Grammar((r"(?:int|floor)\(\w+ \* \d*\.\d+\)", _kept)),
    "patch_drop.which": Grammar(
        (r"the masked (\d+)-pixel anchor only", lambda match, composed: _first_size(match, composed)),
        (r"one permutation for the batch", None),
    ),
    "sinkhorn.on": Grammar((r"sharpened probabilities", lambda match, composed: _imports(composed, "sharpened"))),
    "clustering.method": Grammar((r"DBSCAN on Jaccard distances", lambda match, composed: _self_paced(composed))),
    "matches.feature": Grammar(
        (r"all cells \(l2_all_matches 1\)", is_("all_by_feature", True)),
        (r"the \d+ / \d+ nearest count for locations only", None),
    ),
}


def _nce(composed: Composed) -> str | None:
    contrast = found(composed.method, "contrast.loss", "contrasts.0.loss", "contrast_student.loss")
    first = getattr(composed.method, "contrasts", [None])[0]
    own = getattr(first, "loss", contrast)
    return None if own == "nce" else f"{own}"


def _imports(composed: Composed, name: str) -> str | None:
    """Whether the method's file works with a function of this name."""
    import sys

    held = any(name in vars(sys.modules[kind.__module__]) for kind in type(composed.method).__mro__)
    return None if held else f"no {name}"


def _first_size(match: re.Match[str], composed: Composed) -> str | None:
    size = trial(composed).views[0][-1]
    return None if size == int(match.group(1)) else f"views of {size} pixels"


def _self_paced(composed: Composed) -> str | None:
    from ssl_zoo.modules.pseudo_labels import SelfPaced

    own = found(composed.method, "pseudo_labels")
    return None if isinstance(own, SelfPaced) else f"{type(own).__name__}"
