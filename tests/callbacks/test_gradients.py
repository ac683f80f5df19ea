"""Norms of chosen gradients."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from ssl_zoo.callbacks.gradients import GradientNorm
from ssl_zoo.errors import ConfigError
from tests.callbacks.tiny import Rows, fit


class Gradients(pl.Callback):
    """Keeps the norm of all gradients of the backbone, as torch has it."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, method: Any, optimizer: Any) -> None:
        flat = torch.cat([p.grad.flatten() for p in method.backbone.parameters()])
        self.norms.append(flat.norm().item())


def test_it_is_the_norm_of_all_gradients_that_a_pattern_takes() -> None:
    rows, wanted = Rows(), Gradients()
    fit([GradientNorm({"all": "^backbone", "first": r"^backbone\.0\.weight$"}), wanted], logger=rows, max_epochs=2)
    found = rows.column("gradient/all")
    assert list(found) == list(range(1, 9)) and list(found.values()) == pytest.approx(wanted.norms, rel=1e-5)
    assert all(0 < one < all_ for one, all_ in zip(rows.column("gradient/first").values(), found.values(), strict=True))


def test_it_may_look_at_every_second_step_only() -> None:
    rows = Rows()
    fit([GradientNorm({"all": ""}, every_n_steps=2)], logger=rows, max_epochs=2)
    assert list(rows.column("gradient/all")) == [1, 3, 5, 7]


def test_what_is_frozen_has_none() -> None:
    rows = Rows()
    fit([GradientNorm({"teacher": "^teacher"})], logger=rows, max_epochs=1)
    assert rows.column("gradient/teacher") == {}


@pytest.mark.parametrize("pattern, told", [
    ("^bockbone", r"match\.x='\^bockbone' matches none of 10 parameters: backbone\.0\.weight, .*, \.\.\."),
    ("(", r"match\.x='\(': missing \), unterminated subpattern"),
])  # fmt: skip
def test_a_pattern_that_takes_nothing(pattern: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^callbacks.gradient_norm.{told}"):
        fit([GradientNorm({"x": pattern})], max_epochs=1)
