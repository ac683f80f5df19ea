"""AMDIM and YADIM: the contrast of places, through the methods as they are configured; and AMDIM's classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.losses.local_contrast import clipped_cross_entropy, local_nce
from tests.golden.compare import close
from tests.golden.harness import Values, batch_of
from tests.helpers import tiny_method


def replay(
    name: str,
    words: list[str],
    seen: list[dict[int, Tensor]],
    places: list[Any],
    levels_of: Callable[[Any], Any] = lambda method: method,
) -> dict[str, Tensor]:
    """Loss and terms of the method on recorded levels ``[B, D, s, s]`` of two views, at recorded places of level 1.

    Args:
        words: Recorded settings.
        levels_of: The part of the method that has the levels.
    """
    method, given = tiny_method(name, words), iter(seen)
    levels_of(method).levels = lambda *of: (of[-1], next(given))
    batch = batch_of([levels[1].detach() for levels in seen])
    batch.rng = RecordedRNG({f"source1_view{v}": {"place": torch.tensor(place)} for v, place in enumerate(places)})
    out = method.training_loss(batch)
    out["loss"].backward()
    return out


def check_multi(case: Any, arrays: Values) -> None:
    sides, views = (1, 5, 7), ("x1", "x2")
    seen = [{i: torch.tensor(arrays[f"r{r}_{x}"]).requires_grad_() for i, r in enumerate(sides)} for x in views]
    places = [arrays[f"r5_location_{x}"] for x in views]
    out = replay("amdim", [f"method.clip={case['hyperparameters']['tclip']}"], seen, places)
    for ours, theirs in (("0_to_1", "1t5"), ("0_to_2", "1t7"), ("1_to_1", "5t5")):
        close(out[f"nce_{ours}"], arrays[f"loss_{theirs}"], theirs)
    close(out["penalty"], arrays["lgt_reg"], "penalty")
    close(out["loss"], arrays["total"], "loss")
    for levels, x in zip(seen, views, strict=True):
        for i, r in enumerate(sides):
            if (name := f"grad_r{r}_{x}") in arrays:
                close(levels[i].grad, arrays[name], name)


def check_nce(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    source, flat = (torch.tensor(arrays[name]).requires_grad_() for name in ("src", "trg"))
    targets = flat.view(h["n_rkhs"], h["batch"], h["locations"]).transpose(0, 1)
    share, penalty = local_nce(source, targets, 0, h["tclip"])
    (penalty - share.mean()).backward()
    close(share, arrays["nce_scores"], "log-probabilities")
    close(-share.mean(), arrays["loss"], "loss")
    close(-share.mean(), arrays["bolts_loss"], "loss of Bolts")
    close(penalty, arrays["lgt_reg"], "penalty")
    close(source.grad, arrays["grad_src"], "gradient of the source")
    close(flat.grad, arrays["grad_trg"], "gradient of the targets")


def check_classifier(case: Any, arrays: Values) -> None:
    logits = torch.tensor(arrays["logits"]).requires_grad_()
    loss = clipped_cross_entropy(logits, torch.tensor(arrays["labels"]))
    loss.backward()
    close(loss, arrays["loss"], "loss")
    close(logits.grad, arrays["grad"], "gradient")


def check_last_map(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    assert h["bidirectional"], "YADIM compares both ways"
    seen = [{1: torch.tensor(arrays[name]).requires_grad_()} for name in ("anchor", "positive")]
    places = [arrays[f"location_dir{v}"] for v in (0, 1)]
    width = arrays["anchor"].shape[1]  # by the root of which products are divided
    words = [f"method.similarity.clip={h['tclip']}", f"method.extraction.block.width={width}"]
    out = replay("yadim", words, seen, places, lambda method: method.extraction)
    close(out["contrast"].view(1), arrays["loss"], "loss")
    close(out["penalty"], arrays["lgt_reg"], "penalty")
    close(seen[0][1].grad, arrays["grad_anchor"], "gradient of the anchor")
    close(seen[1][1].grad, arrays["grad_positive"], "gradient of the positive")


CHECKS = {
    "amdim": {"multi_nce*": check_multi, "nce*": check_nce, "classifier_xent*": check_classifier},
    "yadim": {"last_map_nce*": check_last_map},
}
