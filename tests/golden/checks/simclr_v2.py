"""SimCLR v2: distillation, and the contrastive loss as the same authors' code was recorded a second time."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods import distill
from tests.golden.checks.simclr import replay
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, no_recipe


class Given(nn.Module):
    """A teacher that says what was recorded."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.classes = logits, logits.shape[1]

    def forward(self, view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return view, self.logits


def distilled(
    student: np.ndarray, teacher: np.ndarray, temperature: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss of the method, and gradients of the student's and the teacher's logits."""
    logits, wanted = (torch.tensor(x).to(dtype).requires_grad_() for x in (student, teacher))
    rows, classes = logits.shape
    with mock.patch.object(distill, "load_teacher", lambda *_: Given(wanted)):
        info = image_info(rows, classes, 1, 1, rows)
        method = distill.Distill(Identity(classes), no_recipe(), info, {}, temperature)  # type: ignore[arg-type]
    method.classifier = nn.Identity()  # type: ignore[assignment]
    loss = method.training_loss(Batch([logits], torch.arange(rows), None, None))["loss"]
    return loss, *torch.autograd.grad(loss, [logits, wanted], materialize_grads=True)


def check_distillation(case: Any, arrays: Values) -> None:
    student, teacher = arrays["student_logits"], arrays["teacher_logits"]
    dtype = torch.tensor(student).dtype
    loss, of_student, of_teacher = distilled(student, teacher, case["hyperparameters"]["temperature"], dtype)
    close(loss, arrays["loss"], "loss")
    close(of_student, arrays["grad_student_logits"], "gradient of the student")
    close(of_teacher, arrays["grad_teacher_logits"], "gradient of the teacher")


def near(got: torch.Tensor, want: np.ndarray, what: str) -> None:
    """TensorFlow's helper computes in float32 whatever it is given: 1e-6 also where the result says float64."""
    gap = np.abs(got.detach().double().numpy() - want).max()
    assert gap <= 1e-6 * np.abs(want).max(), f"{what}: largest difference {gap:.3g}"


def check_all(document: Any, arrays: Values) -> None:
    student, teacher = arrays["student_logits"], arrays["teacher_logits"]
    assert f"kd_T{document['hyperparameters']['T']:g}" in arrays
    for name in arrays:
        if (found := re.fullmatch(r"kd_T([\d.]+)", name)) is None:
            continue
        loss, gradient, _ = distilled(student, teacher, float(found[1]), torch.float64)
        near(loss, arrays[name], name)
        near(gradient, arrays[f"{name}_grad_student"], f"gradient of {name}")
        loss, _, _ = distilled(student, teacher, float(found[1]), torch.float32)
        close(loss, arrays[f"{name}_f32"], f"{name} in float32")
    temperature = document["hyperparameters"]["temp"]
    hidden = arrays["hidden"].astype(np.float32)
    loss, gradient = replay([hidden], temperature)
    close(loss, arrays["ntxent_f32"], "NT-Xent")
    close(loss, arrays["ntxent_tf2_f32"], "NT-Xent of the TF2 code")
    close(gradient, arrays["ntxent_grad_hidden_f32"], "gradient of NT-Xent")
    a, b = F.normalize(torch.tensor(hidden), dim=1).chunk(2)
    close(a @ b.T / temperature, arrays["ntxent_logits_ab_f32"], "logits")


CHECKS = {"simclr": {"distillation*": check_distillation}, "simclrv2": {"*": check_all}}
