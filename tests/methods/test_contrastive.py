"""The framework: put together as a named method, it is that method, number by number; what does not fit is refused."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.build import check_signatures
from ssl_zoo.errors import ConfigError
from ssl_zoo.optim.lengths import never_begun
from ssl_zoo.optim.schedules import Progress
from tests.helpers import CONF, over_ranks, quickly, tiny_batch, tiny_method, train_step, view_sizes
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


@pytest.mark.parametrize("name", quickly(list(TABLE), ["simclr", "moco_v2", "byol", "swav"]))
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


EXTRACTION = "set method/contrastive/extraction=projection"
REFUSED = [
    (choose("clusters", "cosine", "nce"), rf"Contrast\) compares vectors with vectors, .* \(Clusters\) .*{EXTRACTION}"),
    (choose("clusters", "cosine", "regression"), rf"Regression\) compares vectors with vectors.*{EXTRACTION}"),
    (
        choose("queue", "cosine", "info_nce", "method.loss.both=true"),
        rf"wants both views to ask \(both=true\), .* \(Remembered\) .*{EXTRACTION}, or method.loss.both=false",
    ),
    (
        choose("teacher", "cosine", "info_nce_both"),
        rf"answers of the query's own view .* \(Teacher\) .*{EXTRACTION}, or method.loss.own_view=false",
    ),
    (choose("maps", "cosine", "spread"), rf"own_view=true.* \(Maps\) .*{EXTRACTION}"),
    (choose("teacher", "dot", "cross_correlation"), rf"CrossCorrelation\) correlates the dimensions .*{EXTRACTION}"),
    (
        choose("projection", "cosine", "cross_correlation"),
        r"plain products, .* \(temperature=0.5, unit=True\) .*set method/contrastive/similarity=dot",
    ),
    (
        choose("teacher", "bilinear", "regression"),
        r"measures a distance, .* \(trained=True\) .*set method/contrastive/similarity=cosine",
    ),
    (
        choose("projection", "tanh_clipped", "regression"),
        r"measures a distance, .* \(clip=20.0, penalty=0.05\) .*set method/contrastive/similarity=cosine",
    ),
    (
        choose("projection", "cosine", "swapped_prediction"),
        r"predicts assignments .* \(Projection\) .*set method/contrastive/extraction=clusters",
    ),
    (choose("clusters", "dot", "swapped_prediction"), r"unit sphere, .* set method/contrastive/similarity=cosine"),
    (choose("grid", "dot", "info_nce"), r"augmentation.views gives 2 global view\(s\) and Grid takes at most 1"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_does_not_go_together_is_refused_before_anything_is_built(words: list[str], message: str) -> None:
    cfg = config.load(["method=contrastive", *words, "data=synthetic"])
    with pytest.raises(ConfigError, match=message):
        check_signatures(cfg)


def test_parts_that_were_put_together_in_code_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=REFUSED[0][1]):
        tiny_method("contrastive", REFUSED[0][0])


def test_its_choices_are_no_other_methods() -> None:
    with pytest.raises(ConfigError, match="method/contrastive/loss is a choice of method=contrastive, and another"):
        config.load(["method=simclr", "method/contrastive/loss=margin"])
    with pytest.raises(ConfigError, match="there is no such method/contrastive/loss; did you mean 'margin'"):
        config.load(["method=contrastive", "method/contrastive/loss=margn"])
    assert config.load(["method=yadim", "method/contrastive/loss=margin"]).method.loss.of.margin == 0.5


def test_a_state_of_yadim_from_before_the_framework_is_loaded() -> None:
    before, now = build(TABLE["yadim"].named), build(TABLE["yadim"].framework)
    now.load_state_dict(before.state_dict())
    torch.testing.assert_close(now.extraction.blocks["1"].state_dict(), before.blocks["1"].state_dict(), rtol=0, atol=0)


def test_it_is_small_and_knows_no_method() -> None:
    root = CONF.parent / "ssl_zoo"
    files = [root / "methods" / "contrastive.py", *sorted((root / "modules" / "framework").glob("*.py"))]
    text = "".join(file.read_text() for file in files)
    assert len(files) == 4 and len(text.splitlines()) < 400
    assert set(re.findall(r"ssl_zoo\.methods\.(\w+)", text)) == {"base"}


COMBINED = [
    choose("pooled", "bilinear", "info_nce"),
    choose("teacher", "tanh_clipped", "margin"),
    choose("queue", "bilinear", "margin", "method.loss.both=false"),
    choose("maps", "cosine", "info_nce"),
    choose("maps", "dot", "regression", "method.extraction.layers=[-1,-2]", "method.extraction.grids=[null,4]"),
    choose("grid", "cosine", "nce", "method.loss.both=false", "augmentation=cpc_v2"),
]


@pytest.mark.parametrize("words", COMBINED, ids=lambda words: "-".join(word.split("=")[1] for word in words[:3]))
def test_combinations_without_a_name_train(words: list[str]) -> None:
    method, sizes = tiny_method("contrastive", words), view_sizes("contrastive", words)
    before = {key: p.detach().clone() for key, p in method.named_parameters()}
    losses = [train_step(method, tiny_batch(sizes, step))["loss"] for step in range(2)]
    still = [key for key, p in method.named_parameters() if torch.equal(p, before[key]) and p.requires_grad]
    assert all(map(math.isfinite, losses)) and still == []


def test_what_begins_later_than_the_run_is_told() -> None:
    words = choose("clusters", "cosine", "swapped_prediction", "method.extraction.queue_size=16")
    method = tiny_method("contrastive", words)
    method.extraction.queue_start = 7
    assert never_begun(method, Progress(0, 10, 5)) == [
        "method.extraction.queue_start: what begins in epoch 7 never does in a run of 2 epochs"
    ]
