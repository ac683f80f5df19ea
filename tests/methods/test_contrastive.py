"""The framework: put together as a named method, it is that method, number by number; what does not fit is refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from tests.helpers import over_ranks, quickly, tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool
from tests.test_methods import EPS

EXACT = torch.float64
STEPS = 4


def choose(extraction: str, similarity: str, loss: str, *values: str) -> list[str]:
    choices = {"extraction": extraction, "similarity": similarity, "loss": loss}
    return [*(f"method/contrastive/{part}={name}" for part, name in choices.items()), *values]


class Row(NamedTuple):
    """A named method, and what is said of it and of the framework."""

    named: list[str]
    framework: list[str]
    names: dict[str, str]  # beginnings in the named method's state: in the framework's
    shared: list[str] = []  # said to both


HEAD = {"projector.": "extraction.projector."}
TEACHER = {**HEAD, "teacher.": "extraction.teacher."}
MAP = {"blocks.": "extraction.blocks."}
PROJECTOR = "method.extraction.projector"
LAST_MAP = ["method.layers=[-1]", "method.comparisons=[[1,1]]", "method.whole=null"]
ADAM = ["optimizer=amdim/small"]

TABLE = {
    "simclr": Row(["method=simclr"], [], HEAD),
    "moco_v2": Row(
        ["method=moco_v2"],
        choose("queue", "cosine", "info_nce", "method.similarity.temperature=0.2", "augmentation=moco_v2"),
        {**TEACHER, "queue.": "extraction.queue."},
        ["batch_norm.group=2"],
    ),
    "invaspread": Row(
        ["method=invaspread"],
        choose("projection", "cosine", "spread", "method.similarity.temperature=0.1", f"{PROJECTOR}.hidden=[]",
               f"{PROJECTOR}.last_norm=none", f"{PROJECTOR}.last_bias=true"),
        HEAD,
    ),
    "amdim, last map": Row(
        ["method=amdim", *LAST_MAP, "method.grids=[3]"],
        choose("maps", "tanh_clipped", "nce", "method.extraction.grids=[3]", *ADAM),
        MAP,
    ),
    "yadim": Row(
        ["method=amdim", *LAST_MAP, "method.grids=[null]", "method.clip=10.0"],
        ["method=yadim"],
        MAP,
    ),
    "byol": Row(
        ["method=byol", "method.redraw_teacher=true"],
        choose("teacher", "cosine", "regression", "method.extraction.redraw=true"),
        {**TEACHER, "predictor.": "extraction.predictor."},
    ),
    "swav": Row(
        ["method=swav", "augmentation=swav", "method.queue_size=3840"],
        choose("clusters", "cosine", "swapped_prediction", "augmentation=swav", "method.extraction.queue_size=3840"),
        {**HEAD, "prototypes.": "extraction.prototypes.", "queues.": "extraction.queues."},
    ),
    "barlow_twins": Row(
        ["method=barlow_twins", "method.loss_scale=1.0"],
        choose("projection", "dot", "cross_correlation", f"{PROJECTOR}.hidden=[1024,1024]",
               f"{PROJECTOR}.last_norm=none", "method.extraction.views_together=false"),
        HEAD,
    ),
    "cpc_v2": Row(
        ["method=cpc_v2"],
        choose("grid", "dot", "info_nce", "augmentation=cpc_v2", "method.similarity.temperature=10.0", *ADAM),
        {"context.": "extraction.context.", "target.": "extraction.target.", "predictors.0.": "extraction.predictor."},
    ),
}  # fmt: skip


def build(words: list[str]) -> Any:
    name, *more = words
    method = tiny_method(name.removeprefix("method="), more, dtype=EXACT)
    for group in method.bound.optimizer.param_groups:
        group.update({"eps": EPS} if "betas" in group else {})  # tests.test_methods.run_steps says why
    return method


def renamed(state: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    start = {key: next((old for old in names if key.startswith(old)), "") for key in state}
    return {names.get(old, "") + key.removeprefix(old): state[key] for key, old in start.items()}


def run(name: str) -> list[dict[str, Any]]:
    """Losses, gradients and states of each of some steps: the named method's, and the framework's from its start."""
    row = TABLE[name]
    chosen = row.framework if row.framework[:1] == ["method=yadim"] else ["method=contrastive", *row.framework]
    methods = [build([*words, *row.shared]) for words in (row.named, chosen)]
    if name in ("moco_v2", "byol"):
        assert any(key.startswith("teacher.") for key in methods[0].state_dict())
    methods[1].load_state_dict(renamed(methods[0].state_dict(), row.names))  # strict
    sizes = view_sizes(row.named[0].removeprefix("method="), [*row.named[1:], *row.shared])
    found = []
    for step in range(STEPS):
        outs = [over_ranks(m, [train_step(m, tiny_batch(sizes, step, EXACT))]) for m in methods]
        for kind in ("gradients", "state"):
            outs[0][kind] = {key: value.clone() for key, value in renamed(outs[0][kind], row.names).items()}
            outs[1][kind] = {key: value.clone() for key, value in outs[1][kind].items()}
        found.append({"named": outs[0], "framework": outs[1]})
    return found


def check(found: list[dict[str, Any]]) -> None:
    for step, one in enumerate(found):
        named, framework = one["named"], one["framework"]
        torch.testing.assert_close(framework["losses"], named["losses"], rtol=1e-9, atol=1e-9)
        for kind in ("gradients", "state"):
            assert framework[kind].keys() == named[kind].keys() and named[kind]
            for key, value in named[kind].items():
                told = f"step {step}, {kind} of {key}: {{}}".format
                torch.testing.assert_close(framework[kind][key], value, rtol=1e-9, atol=1e-9, msg=told)


@pytest.mark.parametrize("name", TABLE)
def test_put_together_as_a_named_method_it_is_that_method(name: str) -> None:
    check(run(name))


@pytest.mark.parametrize("name", quickly(list(TABLE), ["moco_v2"]))
def test_on_two_processes_too(name: str, pool: GlooPool) -> None:
    one = run(name)
    for two in pool.run(run, name):
        check(two)
        for alone, shared in zip(one, two, strict=True):
            loss = alone["framework"]["losses"]
            torch.testing.assert_close(shared["framework"]["losses"], loss, rtol=1e-9, atol=1e-9)
