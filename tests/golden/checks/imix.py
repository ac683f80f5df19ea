"""i-Mix: training loops on three methods with recorded draws, on one process and more; InputMix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import mean_over_ranks, own_rows
from ssl_zoo.methods import imix, imix_byol, imix_moco, moco
from ssl_zoo.methods.base import Method
from ssl_zoo.modules import mixing
from ssl_zoo.modules.heads import MLP
from ssl_zoo.modules.mixing import Mixer, input_mix, input_weights
from ssl_zoo.optim.schedules import Progress
from tests.golden.checks.moco import DTYPES, exact_of, logits_of, precisions, recorded
from tests.golden.compare import close
from tests.golden.harness import Values, data_info, equal_teacher, fill, numpy_of, plain, recipe, steps_of
from tests.helpers import train_step

PLACES = (
    (r"^encoder_q\.body", "backbone.body"),
    (r"^encoder_q\.fc(?=\.\d)", "projector"),  # several layers
    (r"^encoder_q\.fc", "projector.0"),
    (r"^encoder_k\.body", "teacher.net.0.body"),
    (r"^encoder_k\.fc(?=\.\d)", "teacher.net.1"),
    (r"^encoder_k\.fc", "teacher.net.1.0"),
    (r"^pred", "predictor"),
)


class Toy(nn.Module):
    """The recording's encoder below ``fc``: flatten, linear, tanh."""

    def __init__(self, inputs: int, out_features: int) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, out_features)
        self.out_features = out_features

    def forward(self, view: Tensor) -> Tensor:
        return self.body(view.flatten(1)).tanh()


def ours(name: str) -> str:
    pattern, place = next(entry for entry in PLACES if re.search(entry[0], name))
    return re.sub(pattern, place, name)


def method_of(h: Any, options: Any, start: dict[str, np.ndarray], queue: np.ndarray, rows: int, scope: str) -> Method:
    out_features, inputs = start["encoder_q.body.weight"].shape
    hidden = {"lin": [], "mlp": [h["hidden"]]}
    head = partial(MLP, out_features=h["dim"], norm="none", last_bias=True)
    projector = partial(head, hidden=hidden[options["projection"]])
    common = {"backbone": Toy(inputs, out_features), "optimizer": recipe(torch.optim.SGD, **h["sgd"])}
    common |= {"projector": projector, "mixer": Mixer(options["imix"], h["alpha"], scope)}
    predicts = options["prediction"] != "none"
    assert predicts == (options["method"] == "byol")
    if options["method"] == "npair":
        method: Method = imix.IMixNPair(**common, temperature=h["temperature"])
    elif options["method"] == "byol":
        predictor = partial(head, hidden=hidden[options["prediction"]])
        method = imix_byol.IMixBYOL(**common, predictor=predictor, momentum=h["ema"])
    else:
        sizes = {"data_info": data_info(rows), "queue_size": queue.shape[1]}
        method = imix_moco.IMixMoCo(**common, **sizes, temperature=h["temperature"], momentum=h["ema"])
        fill(method, {"queue.keys": queue.T})
    fill(method, {ours(name): value for name, value in start.items()})
    if options["method"] != "npair":
        equal_teacher(method)
    return method


def draws(step: dict[str, np.ndarray], dtype: torch.dtype, scope: str, rows: int) -> RecordedRNG:
    """The recorded draws of this process, or of the whole batch as one; ``share`` is a pair because two make a beta."""
    pair = torch.tensor(step["lam_raw"]).to(dtype)[:, None].expand(-1, 2)
    order, centre = torch.tensor(step["perm"]), torch.tensor(step["cut_centre"])  # [W, B], [W, 2]
    first = torch.arange(len(order))[:, None] * order.shape[1]
    per_rank: dict[Any, Any] = {}
    for r, (row, column) in enumerate(centre):
        per_rank[r] = {"": order[r], "share": pair[r * order.shape[1]], "row": row, "column": column}
    mix = per_rank if scope == "rank" else {**per_rank[0], "": (order + first).flatten()}
    return RecordedRNG({"mix0": {"share": own_rows(pair)}}, {"mix0": mix, "shuffle1": {"": torch.arange(rows)}})


def replay(
    h: Any,
    options: Any,
    start: dict[str, np.ndarray],
    queue: np.ndarray,
    steps: list[dict[str, np.ndarray]],
    precision: str,
    scope: str,
) -> list[dict[str, np.ndarray]]:
    """Every result of every step under the recording's names."""
    rows, dtype = len(steps[0]["view1"]), DTYPES[precision]
    method = method_of(h, options, start, queue, rows, scope).to(dtype).train()
    method.bind(rows)
    method.progress = Progress(0, len(steps), len(steps))
    outs = []
    for step in steps:
        views = [own_rows(torch.tensor(step[f"view{v}"])).to(dtype) for v in (1, 2)]
        batch = Batch(views, torch.arange(len(views[0])), None, draws(step, dtype, scope, rows))
        memory = method.queue.keys.clone() if isinstance(method, imix_moco.IMixMoCo) else None
        with Spies() as spies:
            out = train_step(method, batch)
        outs.append(numpy_of(dict(results_of(method, start, out, spies, memory))))
    return outs


class Spies(ExitStack):
    """What the losses were asked to classify, and what was mixed; the Beta sampler gives what was recorded."""

    def __enter__(self) -> Spies:
        super().__enter__()
        self.mixed: list[mixing.Mixed] = []
        mix = Mixer.mix

        def keep(mixer: Mixer, *args: Any) -> mixing.Mixed:
            self.mixed.append(mix(mixer, *args))
            return self.mixed[-1]

        self.enter_context(mock.patch.object(mixing, "symmetric_beta", lambda pair, alpha: pair[..., 0]))
        self.enter_context(mock.patch.object(Mixer, "mix", keep))
        self.losses = [self.enter_context(mock.patch.object(*at, wraps=getattr(*at))) for at in LOSSES]
        return self

    def logits(self, memory: Tensor | None) -> Tensor:
        alone, beside_queue, regression, info_nce = (loss.call_args_list for loss in self.losses)
        n_pair = alone or beside_queue
        if info_nce:
            (q, k, _, temperature), options = info_nce[0]
            return logits_of([((q, k, memory, temperature), options)])
        q, keys, _, *rest = (n_pair or regression)[0][0]
        return q @ keys.T / (rest[0] if n_pair else 1.0)


LOSSES = ((imix, "n_pair"), (imix_moco, "n_pair"), (imix_byol, "mixed_regression"), (moco, "info_nce"))


def results_of(
    method: Method, start: dict[str, np.ndarray], out: dict[str, Any], spies: Spies, memory: Tensor | None
) -> Iterator[tuple[str, Any]]:
    yield from (("loss", out["loss"]), ("mean_loss", mean_over_ranks(out["loss"])), ("logits", spies.logits(memory)))
    if spies.mixed and spies.mixed[0].weights.shape[1] == 2:
        share = spies.mixed[0].weights[:, 0]
        yield "lam_used", share[0] if method.mixer.kind == "icutmix" else share
        yield "mixed", spies.mixed[0].view
    if memory is not None:
        yield "queue", method.queue.keys.T
        yield "pointer", torch.tensor([method.queue.pushed % method.queue.size])
    state = method.state_dict()
    for name in start:
        yield from ((f"grad/{name}", out["gradients"][ours(name)]), (name, state[ours(name)]))
        key = name.replace("encoder_q", "encoder_k")
        if key != name and ours(key) in state:
            yield key, state[ours(key)]


Inputs = tuple[dict[str, np.ndarray], np.ndarray, list[dict[str, np.ndarray]]]


def _inputs(arrays: Values, case: str, world: int) -> Inputs:
    """Parameters, queue ``[D, K]`` and what each step is given, of all processes together."""
    start = {name.removeprefix(f"init/{case}/"): value for name, value in plain(arrays, f"init/{case}/").items()}
    steps = []
    for t in steps_of(arrays, "in/step{}/view1"):
        places = [f"in/step{t}/{f'rank{r}/' if r else ''}" for r in range(world)]
        joined = {"view1": np.concatenate, "view2": np.concatenate, "lam_raw": np.concatenate}
        joined |= {"perm": np.stack, "cut_centre": np.stack}
        steps.append({name: join([arrays[place + name] for place in places]) for name, join in joined.items()})
    return start, arrays["init/queue" if world == 1 else f"init/queue_world{world}"], steps


def check_steps(document: Any, arrays: Values) -> None:
    h, case = document["hyperparameters"], document["case"]
    for precision in precisions(arrays):
        for scope in ("global", "rank"):  # the same on one process
            outs = replay(h, h["cases"][case], *_inputs(arrays, case, 1), precision, scope)
            for t, _, name, key in recorded(arrays, precision, case):
                close(outs[t - 1][name], arrays[key], key, exact_of(arrays, key))


def check_world(document: Any, arrays: Values, pools: Any) -> None:
    """Each process mixes its own rows, as the authors' do; one process with the same partners equals their mean."""
    h, case = document["hyperparameters"], document["case"]
    world, name = re.fullmatch(r"world(\d+)_(.+)", case).groups()  # type: ignore[union-attr]
    inputs = (h, h["cases"][name], *_inputs(arrays, case, int(world)))
    for precision in precisions(arrays):
        ranks = pools(int(world)).run(replay, *inputs, precision, "rank")
        one = replay(*inputs, precision, "global")
        for t, r, name, key in recorded(arrays, precision, case):
            for out in ranks if r is None else [ranks[r]]:
                close(out[t - 1][name], arrays[key], key, exact_of(arrays, key))
            if r is None:
                close(one[t - 1][name], arrays[key], f"{key}, one process", exact_of(arrays, key))
            if name == "loss":
                close(one[t - 1][name], ranks[0][t - 1]["mean_loss"], f"{key}, mean and one process")


def check_input_mix(document: Any, arrays: Values) -> None:
    x = torch.tensor(arrays["in/inputmix/x"])
    for key in (key for key in arrays if re.fullmatch(r"f\d+/inputmix/aux\d+/out", key)):
        place = f"in/inputmix/{key.split('/')[2]}/"
        draw = torch.tensor(arrays[place + "draw"])
        shares = torch.stack([draw, 1 - draw], 1) if draw.dim() == 1 else draw
        others = [x[torch.tensor(order)] for order in arrays[place + "perms"]]
        close(input_mix(x, others, input_weights(shares)), arrays[key], key)


def check_first(document: Any, arrays: Values) -> None:
    """InputMix is recorded in float32 only, so that it is no case of its own: it is checked with the first."""
    check_steps(document, arrays)
    check_input_mix(document, arrays)


CHECKS = {"imix": {"inputmix": check_input_mix, "world*": check_world, "npair_none": check_first, "*": check_steps}}
