"""CRD: steps on the banks of student and teacher, with both embeddings, cross-entropy and distillation."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods import crd
from tests.golden.checks.moco import DTYPES, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, steps_of

EMBEDDINGS = {"ws": "embed_student.weight", "bs": "embed_student.bias", "wt": "embed_teacher.weight",
              "bt": "embed_teacher.bias"}
STATES = {"memory_student": "bank_student.keys", "memory_teacher": "bank_teacher.keys"}


class Given(nn.Module):
    """Gives what was recorded, whatever it is asked."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self.classifier = nn.Identity()
        self.value: Any = None

    def forward(self, *_: Any) -> Any:
        return self.value


def method_of(h: Any, arrays: Values) -> crd.CRD:
    classes = arrays["in/step1/student_logits"].shape[1]
    ce, kd, contrast = h["weights_ce_kd_crd"]
    with mock.patch.object(crd, "load_teacher", lambda *_: Given(h["teacher_dim"])):
        method = crd.CRD(
            Identity(h["student_dim"]),  # type: ignore[arg-type]
            no_recipe(),
            image_info(h["n_data"], classes, 1, 1, h["batch"]),
            teacher={},
            embedding=h["embed_dim"],
            temperature=h["temperature"],
            negatives=h["n_negatives"],
            bank_momentum=h["memory_momentum"],
            ce=ce,
            kd=kd,
            crd=contrast,
            kd_temperature=h["kd_temperature"],
        )
    fill(method, {name: arrays[f"init/embed_{short}"] for short, name in EMBEDDINGS.items()})
    fill(method, {name: arrays[f"init/{key}"] for key, name in STATES.items()})
    method.classifier = Given(classes)  # type: ignore[assignment]
    method.sampler = Given(0)  # type: ignore[assignment]
    return method


def replay(h: Any, arrays: Values, dtype: torch.dtype) -> dict[str, Tensor]:
    """Results under the recording's names."""
    method: Any = method_of(h, arrays).to(dtype)
    found: dict[str, Tensor] = {}
    for t in steps_of(arrays, "in/step{}/student_feature"):
        names = ("student_feature", "teacher_feature", "student_logits", "teacher_logits")
        x, teacher, logits, teacher_logits = (
            torch.tensor(arrays[f"in/step{t}/{name}"]).to(dtype).requires_grad_() for name in names
        )
        method.teacher.value, method.classifier.value = (teacher, teacher_logits), logits
        method.sampler.value = torch.tensor(arrays[f"in/step{t}/contrast_index"])
        index, target = (torch.tensor(arrays[f"in/step{t}/{name}"]) for name in ("instance_index", "target"))
        out = method.training_loss(Batch([x], index, target, RecordedRNG(sample={"contrast": {}})))
        weights = {short: method.get_parameter(name) for short, name in EMBEDDINGS.items()}
        wanted = [x, teacher, *weights.values()]
        gradients = torch.autograd.grad(out["crd"], wanted, retain_graph=True)
        kinds = ["student_feature", "teacher_feature", *(f"embed_{short}" for short in weights)]
        found |= {f"step{t}/grad_{kind}": grad for kind, grad in zip(kinds, gradients, strict=True)}
        found[f"step{t}/grad_total_student_logits"] = torch.autograd.grad(out["loss"], logits)[0]
        terms = {"crd": "crd", "ce": "ce", "kd": "kd", "total": "loss"}
        found |= {f"step{t}/{name}_loss": out[ours].detach() for name, ours in terms.items()}
        method.on_after_backward()
        state = method.state_dict()
        found |= {f"state_after_step{t}/{key}": state[name].clone() for key, name in STATES.items()}
    for name in ("student", "teacher"):
        found[f"Z_{name}"] = getattr(method, f"contrast_{name}").normaliser
    return found


def check(document: Any, arrays: Values) -> None:
    """Every part of a flat file is a case; the steps before it belong to it."""
    h, case = document["hyperparameters"], document["case"]
    for precision in precisions(arrays):
        found = replay(h, arrays, DTYPES[precision])
        for key in [key for key in arrays if re.match(rf"{precision}/{case}(/|$)", key)]:
            close(found[key.partition("/")[2]], arrays[key], key, exact_of(arrays, key))


CHECKS = {"crd": {"*": check}}
