"""Clipping by norms: of everything, of each tensor, of each part."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from ssl_zoo import build, config
from ssl_zoo.errors import ConfigError
from ssl_zoo.optim.clipping import Clip


class Parts(nn.Module):
    """Two parts, and a parameter that belongs to neither; gradients of norm 3, 4 and 12."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.token = nn.Parameter(torch.zeros(1))
        for p, g in ((self.a.weight, 3.0), (self.b.weight, 4.0), (self.token, 12.0)):
            p.grad = torch.full_like(p, g)


def clipped(clip: Clip) -> list[float]:
    parts = Parts()
    clip(parts.named_parameters())
    return [p.grad.item() for p in (parts.a.weight, parts.b.weight, parts.token) if p.grad is not None]


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("global", [3 * 3.5 / 13, 4 * 3.5 / 13, 12 * 3.5 / 13]),
        ("per_tensor", [3.0, 3.5, 3.5]),
        ("per_module", [3.0, 3.5, 3.5]),
    ],
)
def test_each_norm_is_brought_down_to_the_limit(mode, wanted):
    assert clipped(Clip(mode, 3.5)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [("global", [3 * 3.5 / 5, 4 * 3.5 / 5, 12.0]), ("per_tensor", [3.0, 3.5, 12.0])],
)
def test_what_does_not_match_is_neither_clipped_nor_counted(mode, wanted):
    assert clipped(Clip(mode, 3.5, match=r"^(a|b)\.")) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (Clip("global", 0.0), "trainer.clip.value=0: wanted the largest norm, above 0"),
        (Clip("global", 1.0, match="("), "trainer.clip.match='(' is no regular expression: missing )"),
        (Clip("global", 1.0, match="^c"), "trainer.clip.match='^c' matches none of 3 trained parameters, those of: "),
    ],
)
def test_what_cannot_work_is_told(clip, message):
    names = [name for name, _ in Parts().named_parameters()]
    assert (clip.problem(names) or "").startswith(message)
    assert Clip("global", 1.0, match="^a").problem(names) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{mode: gobal, value: 3.0}", "trainer.clip.mode='gobal': Clip wants 'global' or 'per_module' or 'per_tensor'"),
        ("{mode: global}", "trainer.clip: Clip needs 'value', which is not set"),
        ("{mode: global, value: 3.0, mach: x}", "trainer.clip.mach: Clip has no argument 'mach'; did you mean 'match"),
    ],
)
def test_a_misspelt_configuration_is_told_before_anything_is_built(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        build.check_signatures(config.load(["data=synthetic", f"trainer.clip={given}"]))
