"""Noisy Student: loss against guessed classes, hard and soft, stored and on the fly; balancing of pseudo-labels."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.evaluation.pseudo_labels import balanced
from ssl_zoo.methods import noisy_student
from tests.golden.checks.simclr_v2 import Given
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, no_recipe


def method_of(h: Any, rows: int, hard: bool, teacher: Tensor | None) -> noisy_student.NoisyStudent:
    given = None if teacher is None else {"timm": "the recorded one"}
    with mock.patch.object(noisy_student, "load_teacher", lambda *_: Given(teacher)):  # type: ignore[arg-type]
        method = noisy_student.NoisyStudent(
            Identity(h["C"]),  # type: ignore[arg-type]
            no_recipe(),
            image_info(rows, h["C"], 1, 1, rows),
            given,
            unlabelled=h["ratio"],
            hard=hard,
            temperature=h["temp"],
            label_smoothing=h["ls"],
            dropout=0.0,
        )
    method.top = nn.Identity()  # type: ignore[assignment]
    return method


def check_losses(h: Any, arrays: Values, kind: str, stored: str) -> None:
    student = torch.tensor(arrays["student_logits"]).float().requires_grad_()
    label = torch.tensor(arrays["labels"])
    true = torch.where(torch.arange(len(label)) < h["lab"], label, -1)
    teacher = torch.tensor(arrays["teacher_logits"]).float()
    method = method_of(h, len(label), kind == "hard", teacher if stored == "onfly" else None)
    draws = RecordedRNG(sample={"dropout": {"kept": torch.zeros(len(label), h["C"])}})
    batch = Batch([student], torch.arange(len(label)), true, draws)
    if stored == "stored":
        soft = torch.tensor(arrays["stored_teacher_probs"]).float()
        hard = F.one_hot(label[h["lab"] :], h["C"]).float()
        guessed = hard if kind == "hard" else soft
        batch.extra["pseudo"] = torch.cat([torch.zeros(h["lab"], h["C"]), guessed])
    out = method.training_loss(batch)
    name = f"{kind}_{stored}"
    close(out["labelled"], arrays[f"{name}_lab_loss_f32"], f"{name}: labelled loss")
    close(out["unlabelled"], arrays[f"{name}_unl_loss_f32"], f"{name}: unlabelled loss")
    close(out["loss"], arrays[f"{name}_data_loss_f32"], f"{name}: loss")
    gradient = torch.autograd.grad(out["loss"], student)[0]
    close(gradient, arrays[f"{name}_grad_logits_f32"], f"{name}: gradient")


def check_balance(h: Any, arrays: Values) -> None:
    probabilities = torch.tensor(arrays["bal_probs"])
    confidence, guess = probabilities.max(1)
    draws = torch.zeros(len(probabilities), dtype=torch.float64)
    thresholds = balanced(probabilities, h["num_image"], h["min_thr"], draws).threshold
    recorded = iter(arrays["bal_random_draws"].tolist())
    for c in arrays["bal_class_order"].tolist():  # the authors draw for what they keep, the most confident first
        own = (guess == c).nonzero().flatten()
        for row in own[confidence[own].argsort(descending=True, stable=True)].tolist():
            if confidence[row] >= thresholds[c]:
                draws[row] = next(recorded)
    found = balanced(probabilities, h["num_image"], h["min_thr"], draws)
    close(found.threshold, arrays["bal_threshold"], "threshold")
    close(found.available, arrays["bal_available"], "available")
    close(found.copies, arrays["bal_copies"], "copies")


def check_all(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    for kind in ("hard", "soft"):
        for stored in ("onfly", "stored"):
            check_losses(h, arrays, kind, stored)
    check_balance(h, arrays)


CHECKS = {"noisy_student": {"*": check_all}}
