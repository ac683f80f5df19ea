"""Goldens of the optimizers called LARS and of learning-rate, weight-decay and momentum schedules.

A check takes what the json says of a case, and the case's arrays by name. Files with ``cases`` in their json hold
``<case>/<array>``; in the others (``contrastive/``) ``prefix_cases`` makes a case of every second part of a key under
``f64/``, hands over the whole document with the name in ``case``, and all arrays of the file under their full keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ssl_zoo.optim.lars import LARC, LARS
from ssl_zoo.optim.recipe import OptimizerRecipe, lr_multiplier
from ssl_zoo.optim.schedules import Constant, Cosine, Linear, Progress, Schedule, Step, Warmup, WarmupCosine

Json = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Check = Callable[[Json, Arrays], None]


def prefix_cases(document: Json, arrays: Arrays) -> dict[str, tuple[dict[str, Any], Arrays]]:
    """Cases of a file without ``cases``: name -> (document with the name in ``case``, all arrays)."""
    names = dict.fromkeys(key.split("/")[1] for key in arrays if key.startswith("f64/"))
    return {name: ({**document, "case": name}, arrays) for name in names}


def close(got: Any, want: np.ndarray, what: str) -> None:
    """Compare within the tolerances of the goldens' README.

    Float64 arrays that are exact in float32 (TensorFlow's and JAX's schedules) were computed in float32.
    """
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, recorded {want.shape}"
    largest = float(np.abs(want).max(initial=0.0))
    single = bool((want.astype(np.float32) == want).all())
    allowed = 1e-5 * largest + 1e-6 if single else 1e-9 * np.abs(want) + 1e-12 * largest
    gap = np.abs(got - want)
    assert (gap <= allowed).all(), f"{what}: largest difference {gap.max():.3g} of {largest:.3g}"


# Optimizers


def _lars(
    arrays: Arrays, recipe: OptimizerRecipe, rates: Sequence[float] | float, before: str, grad: str, after: str
) -> None:
    """Feed the recorded gradients step by step; ``grad`` and ``after`` are prefixes with ``{t}`` for the step."""
    names = [key.removeprefix(before) for key in arrays if key.startswith(before)]
    params = {name: torch.nn.Parameter(torch.tensor(arrays[before + name])) for name in names}
    bound = recipe.bind(params.items(), batch_size=1)
    t = 1
    while any(key.startswith(grad.format(t=t)) for key in arrays):
        bound.apply(Progress(t - 1, 1000, 1000))
        for group in bound.optimizer.param_groups:
            group["lr"] = rates if isinstance(rates, float) else rates[t - 1]
        for name, p in params.items():
            p.grad = torch.tensor(arrays[grad.format(t=t) + name], dtype=p.dtype)
        bound.optimizer.step()
        for name, p in params.items():
            close(p.detach(), arrays[after.format(t=t) + name], f"{name} after step {t}")
        t += 1
    assert t > 1, f"no gradients under {grad!r}"
    for key in arrays:
        if key.startswith("momentum_final/"):
            state = bound.optimizer.state[params[key.removeprefix("momentum_final/")]]
            close(state["momentum_buffer"], arrays[key], key)


def _recipe(optimizer: Callable[..., Any], values: dict[str, Any], rule: dict[str, Any] | None) -> OptimizerRecipe:
    excluded = {"excluded": {**rule, "weight_decay": 0.0, "adapt": False}} if rule else {}
    return OptimizerRecipe(optimizer, {"lr": 1.0, **values}, excluded, lr_scale="absolute")


def check_lars_simclr(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]
    pattern = "|".join(h["exclude_from_weight_decay"] or [])
    values = {"momentum": h["momentum"], "weight_decay": h["weight_decay"], "trust": h["eeta"]}
    buffer = "step" if h["classic_momentum"] else "raw"
    optimizer = partial(LARS, buffer=buffer, nesterov=h["use_nesterov"])
    recipe = _recipe(optimizer, values, {"match": pattern} if pattern else None)
    _lars(arrays, recipe, h["learning_rate"], "param0/", "grad_step{t}/", "param_step{t}/")


def check_lars_byol(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]
    values = {"momentum": h["momentum"], "weight_decay": h["weight_decay"], "trust": h["eta"]}
    rule = {"match": r"(^|\.)b$|norm.*\."} if h["exclude_bias_and_norm"] else None
    _lars(arrays, _recipe(LARS, values, rule), h["learning_rate"], "param0.", "grad{t}.", "param{t}.")


def check_lars_torch(case: Json, arrays: Arrays, exclude: bool = True) -> None:
    h = case["hyperparameters"]
    values = {"momentum": h["momentum"], "weight_decay": h["wd"], "trust": h.get("eta", h.get("trust_coefficient"))}
    recipe = _recipe(LARS, values, {"ndim_at_most": 1} if exclude else None)
    _lars(arrays, recipe, h["lr_per_step"], "param0.", "grad{t}.", "param{t}.")


def check_larc(case: Json, arrays: Arrays, exclude: bool = False) -> None:
    """Apex's LARC, and solo-learn's LARS, which excludes biases and norms."""
    h = case["hyperparameters"]
    clip = h.get("clip_lr", "clip=True" in case["function"])
    values = {"momentum": h["momentum"], "weight_decay": h["wd"], "eps": h["eps"], "clip": clip}
    values["trust"] = h.get("eta", h.get("trust_coefficient"))
    recipe = _recipe(LARC, values, {"ndim_at_most": 1} if exclude else None)
    _lars(arrays, recipe, h["lr_per_step"], "param0.", "grad{t}.", "param{t}.")


def check_lars_mocov3(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]["lars_test"]
    values = {"momentum": h["momentum"], "weight_decay": h["weight_decay"], "trust": h["trust"]}
    for precision in ("f64", "f32"):
        cast = {key: array.astype(f"f{int(precision[1:]) // 8}") for key, array in arrays.items() if "/lars/" in key}
        recipe = _recipe(LARS, values, {"ndim_at_most": 1})
        after = precision + "/lars/state_after_step{t}/"
        _lars(cast, recipe, h["lr"], "init/lars/", "in/lars/step{t}/grad_", after)


# Schedules


def _curve(schedule: Schedule, steps: Any, total: int, steps_per_epoch: int = 1) -> list[float]:
    return [schedule(Progress(int(step), total, steps_per_epoch)) for step in steps]


def check_simclr_lr(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]
    kind = {"linear": "linear256", "sqrt": "sqrt"}[h["scaling"]]
    total = h["num_examples"] * h["train_epochs"] // h["train_batch_size"] + 1
    warmup = h["warmup_epochs"] * h["num_examples"] // h["train_batch_size"]
    assert (h["total_steps"], h["warmup_steps"]) == (total, warmup)
    schedule = WarmupCosine(h["base_learning_rate"], warmup_steps=warmup)
    schedule = schedule.scaled(lr_multiplier(kind, h["train_batch_size"]))
    close(_curve(schedule, arrays["steps"], total), arrays["lr"], "lr")


def check_byol_schedules(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]
    rate = WarmupCosine(h["base_learning_rate"], warmup_steps=h["warmup_steps"])
    rate = rate.scaled(lr_multiplier("linear256", h["batch_size"]))
    close(_curve(rate, arrays["steps"], h["max_steps"]), arrays["lr"], "lr")
    close(_curve(Cosine(h["base_ema"], 1.0), arrays["steps"], h["max_steps"]), arrays["tau"], "tau")


def check_simsiam_lr(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]
    n = 3  # steps per epoch: any number, because the rate changes per epoch
    steps = arrays["epoch"] * n + n - 1
    rates: list[Schedule] = [WarmupCosine(h["init_lr"], per_epoch=True), Constant(h["init_lr"])]
    close(np.stack([_curve(rate, steps, h["epochs"] * n, n) for rate in rates], 1), arrays["lr"], "lr")


def check_barlow_lr(case: Json, arrays: Arrays) -> None:
    """Barlow Twins' two rates, and VICReg's one."""
    h = case["hyperparameters"]
    bases = [h[k] for k in ("learning_rate_weights", "learning_rate_biases", "base_lr") if k in h]
    warmup = h.get("warmup_epochs", 10)  # written in the authors' function
    total, n = h["epochs"] * h["iters_per_epoch"], h["iters_per_epoch"]
    factor = lr_multiplier("linear256", h["batch_size"])
    rates = [WarmupCosine(base, warmup_epochs=warmup, end_factor=0.001).scaled(factor) for base in bases]
    close(np.stack([_curve(rate, arrays["steps"], total, n) for rate in rates], 1), arrays["lr"], "lr")


def check_linspace_cosine(case: Json, arrays: Arrays) -> None:
    """SwAV's learning rate, and DINO's learning rate, weight decay and teacher momentum."""
    h = case["hyperparameters"]
    schedule = WarmupCosine(
        peak=h.get("base_lr", h.get("base")),
        end=h.get("final_lr", h.get("final")),
        warmup_epochs=h["warmup_epochs"],
        start=h.get("start_warmup", h.get("start_warmup_value")),
        style="linspace",
    )
    total = h["epochs"] * h["iters_per_epoch"]
    assert total == h["length"]
    got = _curve(schedule, arrays["steps"], total, h["iters_per_epoch"])
    close(got, arrays["lr" if "lr" in arrays else "values"], "schedule")


def check_msn_schedules(case: Json, arrays: Arrays) -> None:
    """MSN and I-JEPA: the counter is raised before it is used, and the curves may belong to a longer run."""
    h = case["hyperparameters"]
    stretch, longer = h["T_max"] / h["n"], h["T_float"] / h["n"]  # whole steps for rates; the momentum's are not cut
    rate = WarmupCosine(
        h["ref_lr"], h["final_lr"], start=h["start_lr"], warmup_steps=h["warmup"], offset=1, stretch=stretch
    )
    decay = Cosine(h["wd"], h["final_wd"], offset=1, stretch=stretch)
    momentum = Linear(h["m0"], h["m1"], stretch=longer)
    schedules: dict[str, Schedule] = {"lr": rate, "wd": decay, "momentum": momentum}
    for name, schedule in schedules.items():
        close(_curve(schedule, range(h["n"]), h["n"]), arrays[name], name)


def _fractional(schedule: Schedule, epochs: np.ndarray, total: int) -> list[float]:
    """Fractional epochs are steps of an epoch that is fine enough."""
    n = next(n for n in (10**k for k in range(9)) if np.allclose(epochs * n, np.round(epochs * n), rtol=0, atol=1e-7))
    return _curve(schedule, np.round(epochs * n), total * n, n)


def check_mae_lr(case: Json, arrays: Arrays) -> None:
    h = case["hyperparameters"]
    schedule = WarmupCosine(h["lr"], h["min_lr"], warmup_epochs=h["warmup_epochs"])
    rates = _fractional(schedule, arrays["epoch"], h["epochs"])
    close(np.stack([rates, 0.5 * np.array(rates)], 1), arrays["lr"], "lr")  # column 2: lr_scale 0.5


def check_mocov3_schedule(case: Json, arrays: Arrays) -> None:
    meaning = case["arrays"]["in/schedule/epoch"]["meaning"]
    lr, warmup, total, momentum = (_number(meaning, word) for word in ("lr=", "warmup ", "total ", "base momentum "))
    epochs = arrays["in/schedule/epoch"]
    rates = _fractional(WarmupCosine(lr, warmup_epochs=warmup), epochs, int(total))
    close(rates, arrays["f64/schedule/lr"], "lr")
    close(_fractional(Cosine(momentum, 1.0), epochs, int(total)), arrays["f64/schedule/momentum"], "momentum")


def _number(text: str, before: str) -> float:
    found = re.search(re.escape(before) + r"([\d.]+(?:e-?\d+)?)", text)
    assert found, f"{before!r} and a number are not in {text!r}"
    return float(found[1].rstrip("."))


def _numbers(text: str, pattern: str = r"\d+(?:/\d+)+") -> list[float]:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in {text!r}"
    return [float(x) for x in re.findall(r"[\d.]+", found[0])]


def check_lr_schedules(case: Json, arrays: Arrays) -> None:
    """Rates at whole epochs, and warm-ups at listed epochs x batches, of the repositories of ``contrastive/``."""
    name, h = case["case"], case["hyperparameters"]
    meanings = {key.split("/")[1]: entry["meaning"] for key, entry in case["arrays"].items()}
    meanings["notes"] = " ".join(case["notes"])
    schedule = EPOCH_SCHEDULES[name](h, meanings)
    n, steps = 1, list(range(len(arrays[f"f64/{name}"])))
    if name.endswith("_warmup"):
        n, steps = _listed_steps(meanings[name])
    close(_curve(schedule, steps, h["epochs"] * n, n), arrays[f"f64/{name}"], name)


def _listed_steps(meaning: str) -> tuple[int, list[int]]:
    """Batches per epoch, and the steps of ``epochs 1,5 x batches 0,3``; SupContrast counts epochs from 1."""
    n = re.search(r"(\d+) batches per epoch", meaning) or re.search(r"of (\d+)", meaning)
    epochs, batches = (re.search(word + r" ([\d,]+)", meaning) for word in ("epochs", "batches"))
    assert n and epochs and batches, f"steps are not in {meaning!r}"
    first = 1 if meaning.startswith("SupContrast") else 0
    listed = [[int(x) for x in found[1].strip(",").split(",")] for found in (epochs, batches)]
    return int(n[1]), [(epoch - first) * int(n[1]) + batch for epoch in listed[0] for batch in listed[1]]


Texts = Mapping[str, str]  # what the json says of every array, and its notes under "notes"
EpochSchedule = Callable[[Json, Texts], Schedule]


def _moco_step(h: Json, meanings: Texts) -> Schedule:
    return Step(h["base_lr"], h["milestones_moco"])


def _moco_cos(h: Json, meanings: Texts) -> Schedule:
    return Cosine(h["base_lr"], per_epoch=True)


def _listed_step(h: Json, meanings: Texts, name: str) -> Schedule:
    return Step(h["base_lr"], _numbers(meanings[name]))


def _kcl_cos(h: Json, meanings: Texts) -> Schedule:
    return Cosine(_number(meanings["kcl_cos"], "base lr "), per_epoch=True)


def _pycontrast_cos(h: Json, meanings: Texts) -> Schedule:
    end = h["base_lr"] * _number(meanings["pycontrast_cos"], "lr*")
    return Cosine(h["base_lr"], end, per_epoch=True, offset=1)


def _supcon_step(h: Json, meanings: Texts) -> Schedule:
    percents, rate = _numbers(meanings["supcon_step"]), _number(meanings["supcon_step"], "rate ")
    return Step(_number(meanings["supcon_cos"], "base "), [p / 100 * h["epochs"] for p in percents], rate)


def _supcon_cos(h: Json, meanings: Texts) -> Cosine:
    base, rate = _number(meanings["supcon_cos"], "base "), _number(meanings["supcon_step"], "rate ")
    return Cosine(base, base * rate**3, per_epoch=True, offset=1)


def _supcon_warmup(h: Json, meanings: Texts) -> Schedule:
    after = _supcon_cos(h, meanings)
    start = _number(meanings["notes"], "linear warm-up from ")
    # warm_epochs of SupContrast's scripts; warmup_to is the cosine of that number, not of the epoch that follows.
    return Warmup(after, toward=replace(after, offset=0), warmup_epochs=10, start=start)


def _imix_cos(h: Json, meanings: Texts) -> Cosine:
    return Cosine(_number(meanings["imix_cos"], "base "), per_epoch=True)


def _imix_warmup(h: Json, meanings: Texts) -> Schedule:
    after = _imix_cos(h, meanings)
    # warm_epochs of i-Mix's scripts; warmup_to has SupContrast's eta_min, which the cosine that follows has not.
    toward = replace(after, end=after.start * _number(meanings["supcon_step"], "rate ") ** 3)
    return Warmup(after, toward=toward, warmup_epochs=5, offset=1)


def _mice(h: Json, meanings: Texts) -> Schedule:
    milestones = [p / 100 * h["epochs"] for p in _numbers(meanings["mice"], r"\d+(?:/\d+)+ percent")]
    return Warmup(Step(1.0, milestones, offset=-1), warmup_epochs=_number(meanings["mice"], "epoch/"), per_epoch=True)


def _instdisc(h: Json, meanings: Texts) -> Schedule:
    found = re.findall(r"x([\d.]+) at (\d+)", meanings["instdisc_imagenet"])
    return Step(h["base_lr"], [float(epoch) for _, epoch in found], [float(factor) for factor, _ in found])


def _instdisc_cifar(h: Json, meanings: Texts) -> Schedule:
    text = meanings["instdisc_cifar"]
    first, every = int(_number(text, "epoch-")), int(_number(text, "//"))
    return Step(h["base_lr"], list(range(first + every, h["epochs"], every)), _number(text, "lr*"))


def _invaspread(h: Json, meanings: Texts) -> Schedule:
    found = re.findall(r"(\d+) -> x([\d.]+)", meanings["invaspread_cifar"])
    return Step(h["base_lr"], [float(epoch) for epoch, _ in found], [float(factor) for _, factor in found])


def _crd(h: Json, meanings: Texts) -> Schedule:
    text = meanings["crd_step"]
    return Step(_number(text, "base "), _numbers(text), _number(text, "x"))


EPOCH_SCHEDULES: dict[str, EpochSchedule] = {
    "moco_step": _moco_step,
    "pcl_step": _moco_step,
    "pycontrast_step": partial(_listed_step, name="pycontrast_step"),
    "cmc_step": partial(_listed_step, name="cmc_step"),
    "moco_cos": _moco_cos,
    "pcl_cos": _moco_cos,
    "kcl_cos": _kcl_cos,
    "pycontrast_cos": _pycontrast_cos,
    "supcon_step": _supcon_step,
    "supcon_cos": _supcon_cos,
    "supcon_warmup": _supcon_warmup,
    "imix_cos": _imix_cos,
    "imix_warmup": _imix_warmup,
    "mice": _mice,
    "instdisc_imagenet": _instdisc,
    "instdisc_cifar": _instdisc_cifar,
    "invaspread_cifar": _invaspread,
    "crd_step": _crd,
}

# Method of a file -> pattern of case names -> check; the first pattern that fits is used.
CHECKS: dict[str, dict[str, Check]] = {
    "lars_simclr": {"*": check_lars_simclr},
    "lars_byol": {"*": check_lars_byol},
    "lars_torch": {
        "apex_larc*": check_larc,
        "solo_learn*": partial(check_larc, exclude=True),
        "*no_exclusion*": partial(check_lars_torch, exclude=False),
        "*": check_lars_torch,
    },
    "simclr": {"lr_*": check_simclr_lr},
    "byol": {"schedules*": check_byol_schedules},
    "simsiam": {"lr_schedule*": check_simsiam_lr},
    "barlowtwins": {"lr_schedule*": check_barlow_lr},
    "vicreg": {"lr_schedule*": check_barlow_lr},
    "swav": {"lr_schedule*": check_linspace_cosine},
    "dino": {"*_schedule": check_linspace_cosine},
    "msn": {"schedules*": check_msn_schedules},
    "ijepa": {"schedules*": check_msn_schedules},
    "mae": {"lr_schedule*": check_mae_lr},
    "mocov3": {"lars*": check_lars_mocov3, "schedule*": check_mocov3_schedule},
    "lr_schedules": {"*": check_lr_schedules},
}
