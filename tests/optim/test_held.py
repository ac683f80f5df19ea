"""A rate that is held at first: at both clocks, and multiplied."""

from __future__ import annotations

import pytest

from ssl_zoo.optim.schedules import Cosine, Held, Progress


@pytest.mark.parametrize(
    ("restart", "wanted"),
    [(False, [0.0, 0.0, 0.5, 0.14644661]), (True, [0.0, 0.0, 1.0, 0.5])],  # of 4 steps from the start; of the 2 left
)
def test_the_schedule_behind_goes_on_or_begins(restart, wanted):
    held = Held(Cosine(1.0, 0.0), epochs=1, restart=restart)
    assert [held(Progress(step, 4, 2)) for step in range(4)] == pytest.approx(wanted)


def test_steps_replace_epochs_and_scaling_reaches_both_parts():
    held = Held(Cosine(1.0, 0.0), epochs=9, steps=1, value=0.25).scaled(2.0)
    assert [held(Progress(step, 2, 1)) for step in range(2)] == pytest.approx([0.5, 1.0])
    assert held.highest() == 2.0
