"""Losses of scores, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses import scores

RIGHT = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # two right answers of one query
OTHERS = torch.tensor([[0.0, -torch.inf, 2.0]], dtype=torch.float64)  # the second does not count


def test_info_nce_has_all_answers_in_one_softmax() -> None:
    total = math.e + 1 + 1 + math.exp(2)
    assert scores.info_nce(RIGHT, RIGHT, OTHERS).item() == pytest.approx(math.log(total) - 0.5, abs=1e-12)


def test_nce_does_not_compare_right_answers() -> None:
    wanted = (math.log(math.e + 1 + math.exp(2)) - 1 + math.log(1 + 1 + math.exp(2))) / 2
    assert scores.nce(RIGHT, RIGHT, OTHERS).item() == pytest.approx(wanted, abs=1e-12)


def test_a_margin_is_what_a_right_answer_lacks_on_average() -> None:
    # Pairs that count: 1 - 0 (kept), 1 - 2, 0 - 0, 0 - 2, which lack 0, 1.5, 0.5 and 2.5.
    assert scores.margin(RIGHT, RIGHT, OTHERS, 0.5).item() == pytest.approx(4.5 / 4, abs=1e-12)
    with pytest.raises(ValueError, match="margin=0.0; wanted a number above 0"):
        scores.margin(RIGHT, RIGHT, OTHERS, 0.0)


def test_spread_rejects_each_other_answer_by_itself() -> None:
    right, total = RIGHT[:, :1], math.e + 1 + math.exp(2)
    wanted = -math.log(math.e / total) - math.log(1 - 1 / total) - math.log(1 - math.exp(2) / total)
    assert scores.spread(right, right, OTHERS).item() == pytest.approx(wanted, abs=1e-12)
