import math
import pickle

import pytest

from ssl_zoo.optim.schedules import (
    Constant,
    Cosine,
    Held,
    Linear,
    Progress,
    Step,
    Warmup,
    WarmupCosine,
    capped_warmup,
    value,
)

RUN = {"total": 100, "steps_per_epoch": 10}


def at(schedule, *steps, **run):
    return [schedule(Progress(step, **{**RUN, **run})) for step in steps]


def test_progress_counts_epochs_and_a_cut_last_one():
    progress = Progress(step=25, total=95, steps_per_epoch=10)
    assert (progress.epoch, progress.epochs) == (2, 10)
    assert progress.fraction == pytest.approx(25 / 95)


@pytest.mark.parametrize(("step", "wanted"), [(0, 0), (19, 0), (20, 0), (25, 5)])
def test_progress_since_an_epoch_waits_for_it(step, wanted):
    assert Progress(step, **RUN).since(2) == Progress(wanted, **RUN)


def test_value_of_a_number_and_of_a_schedule():
    progress = Progress(50, **RUN)
    assert value(0.5, progress) == 0.5
    assert value(Linear(0.0, 1.0), progress) == 0.5


def test_cosine_starts_halves_and_ends():
    assert at(Cosine(1.0, 0.0), 0, 50, 100) == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)
    assert at(Cosine(0.996, 1.0), 25) == pytest.approx([1 - 0.004 * (math.cos(math.pi / 4) + 1) / 2])


def test_cosine_per_epoch_changes_at_epochs_only():
    first, last, second = at(Cosine(0.03, per_epoch=True), 0, 9, 10)
    assert (first, last) == (0.03, 0.03)
    assert second == pytest.approx(0.015 * (1 + math.cos(math.pi / 10)))


def test_linear_stretched_is_cut_before_its_end():
    assert at(Linear(0.0, 1.0, stretch=1.25), 100) == pytest.approx([0.8])


def test_fraction_warmup_reaches_the_peak_one_step_after_it():
    schedule = WarmupCosine(1.0, warmup_epochs=1)
    assert at(schedule, 0, 1, 9, 10, 55) == pytest.approx([0.0, 0.1, 0.9, 1.0, 0.5])
    assert at(schedule, 100) == pytest.approx([0.0], abs=1e-12)


def test_linspace_warmup_holds_the_peak_twice():
    schedule = WarmupCosine(1.0, warmup_epochs=1, start=0.1, style="linspace")
    assert at(schedule, 0, 1, 9, 10) == pytest.approx([0.1, 0.2, 1.0, 1.0])


def test_end_factor_is_a_part_of_the_peak_also_when_scaled():
    assert at(WarmupCosine(0.2, end_factor=0.001).scaled(8), 0, 100) == pytest.approx([1.6, 0.0016])


@pytest.mark.parametrize("wrap", [lambda x: x, Held, Warmup], ids=["alone", "held", "behind a warm-up"])
def test_an_absolute_end_scales_with_a_factor_and_not_with_the_batch(wrap):
    schedule = wrap(WarmupCosine(0.5, 0.01, absolute_end=True))
    assert at(schedule.scaled(0.2, batch=8.0), 0, 100) == pytest.approx([0.8, 0.002])
    assert at(wrap(WarmupCosine(0.5, 0.01)).scaled(0.2, batch=8.0), 0, 100) == pytest.approx([0.8, 0.016])


def test_an_absolute_end_that_is_a_part_of_the_peak_is_refused():
    with pytest.raises(ValueError, match="end_factor=0.001 is a part of the peak.*; give end=RATE instead, or absolut"):
        WarmupCosine(0.5, end_factor=0.001, absolute_end=True)


def test_warmup_steps_replace_epochs():
    assert at(WarmupCosine(1.0, warmup_epochs=5, warmup_steps=4), 1, 4) == pytest.approx([0.25, 1.0])


@pytest.mark.parametrize(("epochs", "used"), [(9.9, 99), (10, 10), (1000, 10)])
def test_warmup_that_does_not_fit_is_cut_to_a_tenth(epochs, used):
    schedule = WarmupCosine(1.0, warmup_epochs=epochs)
    assert at(schedule, used) == pytest.approx([1.0])
    assert at(schedule, used - 1) == pytest.approx([(used - 1) / used])


def test_capped_warmup_says_so():
    progress = Progress(0, **RUN)
    assert capped_warmup(WarmupCosine(1.0, warmup_epochs=40), progress) == (
        "the warm-up of 400 steps does not fit a run of 100 steps: cut to 10 steps"
    )
    assert capped_warmup(WarmupCosine(1.0, warmup_epochs=9), progress) is None
    assert "cut to" in (capped_warmup(Held(WarmupCosine(1.0, warmup_epochs=40), epochs=1), progress) or "")
    assert capped_warmup(0.1, progress) is None


def test_run_of_a_few_steps_trains_at_the_peak_at_once():
    assert at(WarmupCosine(1.0, warmup_epochs=10), 0, total=2, steps_per_epoch=2) == [1.0]


def test_step_decays_at_the_milestones():
    assert at(Step(1.0, [2, 4]), 0, 19, 20, 40) == pytest.approx([1.0, 1.0, 0.1, 0.01])
    assert at(Step(1.0, [2, 4], gamma=[0.1, 0.05]), 20, 40) == pytest.approx([0.1, 0.05])
    assert at(Step(1.0, [2], offset=-1), 20, 30) == pytest.approx([1.0, 0.1])


def test_step_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"milestones must ascend, got \[4, 2\]"):
        Step(1.0, [4, 2])
    with pytest.raises(ValueError, match="gamma lists 1 factors for 2 milestones"):
        Step(1.0, [2, 4], gamma=[0.1])


def test_warmup_runs_to_what_follows():
    schedule = Warmup(Step(1.0, [1], gamma=0.5), warmup_epochs=2)
    assert at(schedule, 0, 10, 20) == pytest.approx([0.0, 0.25, 0.5])
    assert at(Warmup(Constant(1.0), toward=Constant(2.0), warmup_epochs=2), 10, 20) == pytest.approx([1.0, 1.0])


def test_unknown_style_names_the_nearest():
    with pytest.raises(ValueError, match="style=linspac: did you mean 'linspace'"):
        WarmupCosine(1.0, style="linspac")
    with pytest.raises(ValueError, match="a warm-up cannot be negative: epochs -1"):
        WarmupCosine(1.0, warmup_epochs=-1)


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.3),
        Linear(0.1, 0.3),
        Cosine(0.3, 0.1),
        Step(0.3, [2]),
        WarmupCosine(0.3, 0.1, warmup_epochs=1),
        Warmup(Step(0.3, [2]), warmup_epochs=1),
    ],
)
def test_scaled_multiplies_every_value_and_survives_pickling(schedule):
    doubled = pickle.loads(pickle.dumps(schedule.scaled(2.0)))
    assert at(doubled, *range(0, 100, 7)) == pytest.approx([2 * x for x in at(schedule, *range(0, 100, 7))])
    assert schedule.highest() == pytest.approx(0.3)


def test_ahead_and_an_end_in_the_run_as_lightly() -> None:
    # benchmarks/imagenet/resnet50/dcl.py at batch 256: 500,400 steps, the first 50,040 a warm-up, peak 1.2.
    schedule = WarmupCosine(1.2, end_factor=0.001, warmup_epochs=10, style="ahead", end_in_run=True)
    found = at(schedule, 0, 25020, 50039, 50040, 250200, 500399, total=500400, steps_per_epoch=5004)
    wanted = [2.398081534772182e-05, 0.6000239808153477, 1.2, 1.2, 0.7046828875851145, 0.0012]
    assert found == pytest.approx(wanted, rel=1e-12)
    assert at(WarmupCosine(1.0, end_in_run=True), 99) == [0.0] and at(WarmupCosine(1.0), 99)[0] > 0


def test_a_warm_up_of_epochs_that_are_no_whole_steps_is_cut_to_whole_ones():
    # BYOL's authors on Imagenette: 9,469 images, batch 256, 10 epochs of 36.99 steps.
    rate = WarmupCosine(peak=2.0, warmup_epochs=10)
    at = [rate(Progress(step, 36988, 9469 / 256)) for step in (184, 369)]
    assert at == [pytest.approx(2.0 * 184 / 369), 2.0]
