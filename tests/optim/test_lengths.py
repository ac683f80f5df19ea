"""Runs whose length changes: which schedule would have gone another way, and from which step on."""

import inspect
import math
import random
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import ssl_zoo
from ssl_zoo import build
from ssl_zoo.optim import lengths
from ssl_zoo.optim.lengths import (
    Difference,
    cut_warmups,
    first_difference,
    never_begun,
    planned,
    schedules,
    total_steps,
)
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import (
    Constant,
    Cosine,
    Held,
    InverseRoot,
    Linear,
    Progress,
    Schedule,
    Step,
    Warmup,
    WarmupCosine,
)
from ssl_zoo.signatures import locate
from tests.helpers import CONF, METHODS, ROWS, info, quickly, tiny_config, tiny_method

OLD, NEW = Progress(0, 100, 10), Progress(0, 200, 10)


class Toy(nn.Module):
    """A method with one group of parameters, whose values are ``options``, and attributes of its own."""

    def __init__(self, options: dict[str, Any] | None = None, **attributes: Any) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)
        recipe = OptimizerRecipe(partial(torch.optim.SGD), options or {"lr": 0.1}, lr_scale="absolute")
        self.bound = recipe.bind(self.named_parameters(), 8)
        for name, x in attributes.items():
            setattr(self, name, x)


def compared(lr: Any, done: int = 100, old: Progress = OLD, new: Progress = NEW) -> Difference | None:
    return first_difference(Toy({"lr": lr}), done, old, new)


def test_constants_never_differ():
    assert compared(0.1) is None and compared(Constant(0.1)) is None


def test_a_cosine_over_the_run_differs_at_its_first_step():
    # 0.1 (1 + cos(pi / 100)) / 2 against 0.1 (1 + cos(pi / 200)) / 2; at step 0 both are 0.1.
    found = compared(Cosine(0.1))
    assert found == Difference("optimizer default lr", 1, pytest.approx(0.09997533), pytest.approx(0.09999383))
    assert compared(Cosine(0.1), done=1) is None and compared(Cosine(0.1), done=0) is None
    assert compared(Cosine(0.1), new=OLD) is None
    assert compared(Cosine(0.1, 0.1)) is None  # no curve at all


def test_a_warmup_before_a_constant_does_not_read_the_length():
    assert compared(Warmup(Constant(0.1), warmup_epochs=3)) is None
    # 30 epochs fit neither run: cut to a tenth of each, ten and twenty steps.
    found = compared(Warmup(Constant(0.1), warmup_epochs=30))
    assert found == Difference("optimizer default lr", 1, pytest.approx(0.01), pytest.approx(0.005))


def test_a_warmup_before_a_cosine_differs_one_step_after_it():
    found = compared(WarmupCosine(0.1, warmup_epochs=3))
    # Half cosines of 70 and 170 steps.
    one, other = (0.05 * (1 + math.cos(math.pi / n)) for n in (70, 170))
    assert found == Difference("optimizer default lr", 31, pytest.approx(one), pytest.approx(other))
    assert compared(WarmupCosine(0.1, warmup_epochs=3), done=31) is None
    assert compared(Warmup(Cosine(0.1), toward=Constant(0.1), warmup_epochs=3)).step == 30
    assert compared(Warmup(Cosine(0.1), warmup_epochs=3)).step == 1  # its end lies on the cosine


def test_a_schedule_of_epochs_differs_at_the_start_of_one():
    assert compared(Cosine(0.1, per_epoch=True)).step == 10
    assert compared(Cosine(0.1, per_epoch=True, offset=1)).step == 0
    assert compared(WarmupCosine(0.1, warmup_epochs=2, per_epoch=True)).step == 30
    assert compared(Cosine(0.1, per_epoch=True), new=Progress(0, 95, 10)) is None  # the tenth epoch is cut short
    assert compared(Cosine(0.1), new=Progress(0, 95, 10)).step == 1
    assert compared(Step(0.1, [3, 6])) is None and compared(InverseRoot(0.1, 0.01)) is None


def test_a_stretched_curve_is_compared_as_it_is_cut():
    # MSN: the curve of a run 1.25 times as long; 100 x 1.25 and 125 x 1 are the same curve.
    assert compared(Linear(0.996, 1.0, stretch=1.25)).step == 1
    momentum = Linear(0.996, 1.0, stretch=1.25)
    found = first_difference(Toy(momentum=momentum), 100, OLD, NEW)
    assert found == Difference("method.momentum", 1, 0.996 + 0.004 / 125, 0.996 + 0.004 / 250)
    # A cosine ends at a whole step: 7 and 8 steps stretched by 1.125 end at 7 and 9, by 0.2 both at 1.
    assert compared(Cosine(0.1, stretch=1.125), 7, Progress(0, 7, 1), Progress(0, 8, 1)).step == 1
    assert compared(Cosine(0.1, stretch=0.2), 7, Progress(0, 7, 1), Progress(0, 8, 1)) is None


def test_what_is_held_is_compared_from_its_end():
    assert compared(Held(Cosine(0.1), epochs=2)).step == 20
    assert compared(Held(Cosine(0.1), epochs=2, restart=True)).step == 21
    assert compared(Held(Constant(0.1), epochs=2, restart=True)) is None


def test_the_first_step_counts_not_the_first_schedule():
    method = Toy({"lr": Held(Cosine(0.1), epochs=5), "weight_decay": WarmupCosine(0.1, warmup_epochs=2)})
    assert first_difference(method, 100, OLD, NEW)[:2] == ("optimizer default weight_decay", 21)
    assert first_difference(method, 21, OLD, NEW) is None


def test_a_schedule_of_the_method_is_named_by_its_path():
    inner = nn.Module()
    inner.rates = {"late": [Constant(1.0), Cosine(0.5)]}
    method = Toy(part=inner, sharpness=(Linear(0.0, 1.0),))
    assert [name for name, _ in schedules(method)] == [
        "method.sharpness[0]", "method.part.rates.late[0]", "method.part.rates.late[1]",
    ]  # fmt: skip
    assert first_difference(method, 50, OLD, NEW).name == "method.sharpness[0]"
    del method.sharpness
    assert first_difference(method, 50, OLD, NEW).name == "method.part.rates.late[1]"


def test_every_distinct_schedule_is_asked_once():
    method = Toy({"lr": Cosine(0.1)}, twin=Cosine(0.1), other=Cosine(0.1, 0.01))
    assert [name for name, _ in schedules(method)] == ["optimizer default lr", "method.other"]


def test_byols_momentum_differs_while_its_rate_is_constant():
    method = tiny_method("byol", ["optimizer.values.lr=0.1"])
    found = first_difference(method, 40, Progress(0, 40, 4), Progress(0, 80, 4))
    start = method.momentum.start
    one, other = (1.0 - (1.0 - start) * (1 + math.cos(math.pi / n)) / 2 for n in (40, 80))
    assert found == Difference("method.momentum", 1, pytest.approx(one, abs=1e-12), pytest.approx(other, abs=1e-12))
    method.momentum = 0.99
    assert first_difference(method, 40, Progress(0, 40, 4), Progress(0, 80, 4)) is None


def _scheduled(name: str) -> list[str]:
    """Arguments of a method that may be schedules; none for a configuration that is built on another of its class."""
    target = re.search(r"_target_: (ssl_zoo\.methods\.[\w.]+)", (CONF / "method" / f"{name}.yaml").read_text())
    parameters = inspect.signature(locate(target[1])).parameters if target else {}
    return [key for key, p in parameters.items() if "Schedule" in str(p.annotation)]


SCHEDULED = {name: wanted for name in METHODS if (wanted := _scheduled(name))}


@pytest.mark.parametrize("name", quickly(list(SCHEDULED)))
def test_every_schedule_that_a_method_takes_is_found(name: str):
    cfg, wanted = tiny_config(name), SCHEDULED[name]
    for i, key in enumerate(wanted):
        cfg.method[key] = {"_target_": "ssl_zoo.optim.schedules.Cosine", "start": 0.5 + i / 100, "end": 0.6}
    method = build.build_method(cfg, info())
    method.bind(ROWS)
    found = dict(schedules(method))
    assert {f"method.{key}" for key in wanted} <= found.keys()
    assert any(key.startswith("optimizer default lr") for key in found)


def test_an_epoch_of_another_length_is_no_longer_run_of_the_same():
    with pytest.raises(ValueError, match="an epoch had 10 steps and has 5: not the same run"):
        compared(0.1, new=Progress(0, 200, 5))


# The search leaves out what is provably equal; it finds what trying everything finds


def _drawn(rng: random.Random, depth: int = 0) -> Schedule:
    def pick(*xs: Any) -> Any:
        return rng.choice(xs)

    clock = {"per_epoch": pick(True, False), "offset": pick(0, 0, 1, -1), "stretch": pick(1.0, 1.0, 1.25, 0.2, 0.05)}
    ramp = {**clock, "start": pick(0.0, 0.02, 0.1), "style": pick("fraction", "linspace")}
    ramp |= pick({"warmup_epochs": pick(0, 0.3, 1.5, 2, 5)}, {"warmup_steps": pick(0, 3, 12, 40)})
    start, end = pick(0.1, 0.2), pick(0.0, 0.1, 0.2)
    kinds = [
        lambda: Constant(start),
        lambda: Step(start, [2, 4], offset=pick(0, -1)),
        lambda: InverseRoot(start, 0.1, **clock),
        lambda: Linear(start, end, **clock),
        lambda: Cosine(start, end, **clock),
        lambda: WarmupCosine(start, end, end_factor=pick(None, None, 0.1, 1.0), **ramp),
        lambda: Warmup(_drawn(rng, depth + 1), pick(None, Constant(0.1), Cosine(0.1, 0.0)), **ramp),
        lambda: Held(_drawn(rng, depth + 1), epochs=pick(0.5, 1, 3), value=end, restart=pick(True, False)),
        lambda: Held(_drawn(rng, depth + 1), steps=pick(0, 5, 30), value=end, restart=pick(True, False)),
    ]
    return rng.choice(kinds[: 6 if depth == 2 else None])()


def test_the_search_finds_what_trying_every_step_finds():
    rng, method, none, late = random.Random(0), Toy(), 0, 0
    for _ in range(4000):
        method.rate, per_epoch = _drawn(rng), rng.choice([1, 4, 7])
        old, new = (Progress(0, rng.randint(1, 60), per_epoch) for _ in range(2))
        pairs = [tuple(method.rate(Progress(s, run.total, per_epoch)) for run in (old, new)) for s in range(old.total)]
        wanted = next((Difference("method.rate", s, *p) for s, p in enumerate(pairs) if p[0] != p[1]), None)
        assert first_difference(method, old.total, old, new) == wanted, (method.rate, old, new)
        none, late = none + (wanted is None), late + (wanted is not None and wanted.step > 1)
    assert none > 300 and late > 300  # neither answer is rare


def test_a_schedule_of_a_user_is_looked_at_at_every_step():
    @dataclass(frozen=True)
    class Late(Constant):
        def __call__(self, progress: Progress) -> float:
            return self.value if progress.step < 90 else self.value / progress.total

    assert compared(Late(1.0)) == Difference("optimizer default lr", 90, 0.01, 0.005)


@pytest.mark.slow
def test_half_a_million_steps_of_six_schedules_take_less_than_ten_seconds():
    @dataclass(frozen=True)
    class Own(WarmupCosine):
        """Of a user: nothing is known of it, so that every step is tried."""

    old, new = Progress(0, 1_000_000, 5000), Progress(0, 1_500_000, 5000)
    times = []
    for kind in (WarmupCosine, Own):
        method = Toy(rates=[kind(0.1 + i, warmup_steps=600_000) for i in range(6)])
        start = time.process_time()
        assert first_difference(method, 500_000, old, new) is None
        times.append(time.process_time() - start)
    print(f"ours {times[0]:.3f} s, a user's {times[1]:.2f} s")
    assert times[0] < 0.1 and times[1] < 10


# Nothing else reads the length


READS = re.compile(r"\.total\b|\.fraction\b|\.epochs\b|max_epochs|max_steps|stepping_batches")


def _reading(pattern: re.Pattern[str], *folders: str) -> list[tuple[str, str]]:
    root = Path(ssl_zoo.__file__).parent
    files = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    lines = [(path.name, line.strip()) for path in files for line in path.read_text().splitlines()]
    return [(name, line) for name, line in lines if pattern.search(line)]


def test_methods_read_the_length_through_schedules_only():
    assert _reading(READS, "methods", "modules", "losses", "backbones", "data") == [
        ("base.py", "total = total_steps(steps, self.trainer.max_epochs, self.trainer.max_steps)")
    ]


def test_one_schedule_has_a_clock_of_its_own():
    # first_difference compares it as if it had started with the run; more of them may deserve better.
    assert [name for name, _ in _reading(re.compile(r"\.since\("), "methods", "modules")] == ["ibot.py"]


def test_a_clock_that_starts_later_refuses_too_early_at_most():
    method = tiny_method("ibot", ["optimizer.values.lr=0.1", "optimizer.values.weight_decay=0.1"])
    method.momentum = method.teacher_temperature = 0.5
    method.mask_start, method.patch_temperature = 5, Warmup(Cosine(0.07, 0.04), warmup_epochs=2)
    old, new = Progress(0, 40, 4), Progress(0, 80, 4)
    shown = [method.patch_temperature(Progress(s, 40, 4).since(5)) for s in range(20)]
    assert len(set(shown)) == 1  # nothing yet
    assert first_difference(method, 20, old, new)[:2] == ("method.patch_temperature", 1)


# How long a run is


@pytest.mark.parametrize(
    ("epochs", "steps", "total"),
    [(20, -1, 140), (20, 100, 100), (20, 1000, 140), (-1, 1000, 1000), (None, 30, 30), (None, -1, 7)],
)
def test_the_first_limit_ends_a_run(epochs: int | None, steps: int, total: int):
    assert total_steps(7, epochs, steps) == total


def test_the_plan_of_a_run_counts_whole_steps():
    cfg = OmegaConf.create({"data": {"batch_size": 32}, "trainer": {"max_epochs": -1, "max_steps": 500}})
    assert planned(cfg, samples=1000) == Progress(0, 500, 31)
    assert planned(cfg, samples=1000, step=62) == Progress(62, 500, 31)
    cfg.trainer = {"max_epochs": 10, "max_steps": -1}
    assert planned(cfg, samples=1000) == Progress(0, 310, 31)
    cfg.data.epoch_steps = 400
    assert planned(cfg, samples=1000) == Progress(0, 4000, 400)


def test_the_module_knows_every_class_of_schedule():
    ours = {x for x in vars(lengths).values() if isinstance(x, type) and hasattr(x, "scaled") and x is not Schedule}
    module = inspect.getmodule(Constant)
    assert ours == {
        x for name, x in vars(module).items()
        if isinstance(x, type) and hasattr(x, "scaled") and not name.startswith("_") and x is not Schedule
    }  # fmt: skip


def test_parts_of_a_method_that_begin_after_the_run_are_told():
    method = Toy(mix_start=10, queue_start=9)
    method.begins = ("mix_start", "queue_start")
    assert never_begun(method, OLD) == ["method.mix_start: what begins in epoch 10 never does in a run of 10 epochs"]
    assert never_begun(Toy(mix_start=10), OLD) == []
    for name in ("mochi", "pcl", "ibot", "swav"):
        assert all(hasattr(tiny_method(name), setting) for setting in tiny_method(name).begins)


def test_a_methods_own_warmups_that_do_not_fit_the_run_are_told():
    raised = Warmup(after=Constant(0.07), start=0.04, warmup_epochs=30, style="linspace", per_epoch=True)
    late = Held(after=WarmupCosine(1.0, warmup_steps=200), steps=1)
    method = Toy(teacher_temperature=raised, momentum=late, weights=[Warmup(after=Constant(1.0), warmup_epochs=2)])
    assert cut_warmups(method, OLD) == [
        "method.teacher_temperature: the warm-up of 30 epochs does not fit a run of 10 epochs: cut to 1 epochs",
        "method.momentum: the warm-up of 200 steps does not fit a run of 100 steps: cut to 10 steps",
    ]
    assert cut_warmups(Toy({"lr": WarmupCosine(1.0, warmup_epochs=30)}), OLD) == []  # the optimizer's tells itself
