"""MoCo: the queue, training loops with shuffled batch norm on one and more processes, and the CIFAR-10 notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.knn import knn_predict, knn_top1
from ssl_zoo.methods import moco
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.schedules import Progress
from tests.golden.compare import close
from tests.golden.harness import (
    Identity,
    Values,
    batch_of,
    data_info,
    equal_teacher,
    fill,
    no_recipe,
    numpy_of,
    plain,
    recipe,
    steps_of,
)
from tests.helpers import train_step

DTYPES = {"f64": torch.float64, "f32": torch.float32}


def precisions(arrays: Values) -> list[str]:
    return [name for name in DTYPES if any(key.startswith(name + "/") for key in arrays)]


class Vectors(nn.Module):
    """The recording's encoder below ``fc``: linear, batch norm, ReLU."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.out_features, inputs = values["body.weight"].shape
        self.body = nn.Linear(inputs, self.out_features, bias=False)
        self.bn = nn.BatchNorm1d(self.out_features)

    def forward(self, view: Tensor) -> Tensor:
        return self.bn(self.body(view)).relu()


class Images(nn.Module):
    """The notebook's toy encoder: 3 x 3 convolution, batch norm, ReLU, mean over the image."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.out_features, channels, size, _ = values["conv.weight"].shape
        self.conv = nn.Conv2d(channels, self.out_features, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(self.out_features)

    def forward(self, view: Tensor) -> Tensor:
        return self.bn(self.conv(view)).relu().mean((2, 3))


def ours(name: str) -> str:
    """``fc`` is one layer (v1) or several (v2); the rest is the encoder."""
    name = re.sub(r"^fc\.(?=\D)", "fc.0.", name)
    return name.replace("fc.", "projector.", 1) if name.startswith("fc.") else f"backbone.{name}"


def teachers(name: str) -> str:
    return "teacher.net." + name.replace("backbone.", "0.", 1).replace("projector.", "1.", 1)


def method_of(h: Any, start: dict[str, np.ndarray], queue: np.ndarray, rows: int, symmetric: bool) -> moco.MoCo:
    """``start``: the encoder's parameters, equal for queries and keys; ``queue``: ``[D, K]``."""
    layers = sorted(name for name in start if re.fullmatch(r"fc\..*weight", name))
    hidden = [len(start[name]) for name in layers[:-1]]
    head = partial(MLP, hidden=hidden, out_features=len(queue), norm="none", last_bias=True)
    method = moco.MoCo(
        Vectors(start) if "body.weight" in start else Images(start),
        recipe(torch.optim.SGD, **h["sgd"]),
        data_info(rows),
        head,
        h["temperature"],
        h["ema"],
        queue.shape[1],
        symmetric,
    )
    fill(method, {**{ours(name): value for name, value in start.items()}, "queue.keys": queue.T})
    equal_teacher(method)
    return method


def logits_of(calls: list[Any]) -> Tensor:
    """What ``info_nce`` was asked to classify, as the authors lay it out: the positive first."""
    (q, k, keys, temperature), _ = calls[0]
    return torch.cat([(q * k).sum(1, keepdim=True), q @ keys.T], dim=1) / temperature


def replay(
    h: Any, start: dict[str, np.ndarray], queue: np.ndarray, steps: list[dict[str, Any]], precision: str,
    group: int | None = None, interleaved: bool = False, symmetric: bool = False,
) -> list[dict[str, np.ndarray]]:
    """Every result of every step under the recording's names."""
    rows = len(steps[0]["views"][0])
    method = method_of(h, start, queue, rows, symmetric).to(DTYPES[precision]).train()
    convert(method, group, interleaved)
    method.bind(rows)
    method.progress = Progress(0, len(steps), len(steps))
    outs = []
    for step in steps:
        views = [torch.tensor(view).to(DTYPES[precision]) for view in step["views"]]
        shared = {name: {"": torch.tensor(order)} for name, order in step["shuffles"].items()}
        with mock.patch.object(moco, "info_nce", wraps=moco.info_nce) as spy:
            queued = method.queue.keys.clone()
            out = train_step(method, batch_of(views, shared))
            calls = [((q, k, queued, t), {}) for (q, k, _, t), _ in spy.call_args_list]
        outs.append(numpy_of(dict(results_of(method, list(start), out, logits_of(calls)))))
    return outs


def results_of(method: moco.MoCo, names: list[str], out: dict[str, Any], logits: Tensor) -> Iterator[tuple[str, Any]]:
    yield from (("loss", out["loss"]), ("logits", logits), ("queue", method.queue.keys.T))
    yield "pointer", torch.tensor([method.queue.pushed % method.queue.size])
    state = method.state_dict()
    for name in names:
        yield f"grad/{name}", out["gradients"][ours(name)]
    for name in [*names, "bn.running_mean", "bn.running_var"]:
        for place, found in (("query", state[ours(name)]), ("key", state[teachers(ours(name))])):
            yield f"{place}/{name}", found
            yield f"{place}_buffer/{name}", found


def recorded(arrays: Values, precision: str, case: str) -> Iterator[tuple[int, int | None, str, str]]:
    """(step, rank or None, name of the result, key) of everything recorded of a case in a precision."""
    for key in arrays:
        found = re.fullmatch(rf"{precision}/{case}/(?:state_after_)?step(\d+)/(?:rank(\d+)/)?(.+)", key)
        if found:
            yield int(found[1]), int(found[2]) if found[2] else None, found[3].replace("grad_avg/", "grad/"), key


def exact_of(arrays: Values, key: str) -> np.ndarray | None:
    twin = key.replace("f32/", "f64/", 1)
    return arrays[twin] if twin != key and twin in arrays else None


def check_feature(document: Any, arrays: Values) -> None:
    """Identity encoders: losses, gradients and the queue."""
    h, case = document["hyperparameters"]["feature"], document["case"]
    for precision in precisions(arrays):
        queue = arrays[f"in/{case}/queue"]
        method = moco.MoCo(
            Identity(h["dim"]), no_recipe(), data_info(h["batch"]), Identity, h["temperature"], queue_size=h["queue"]
        )
        fill(method, {"queue.keys": queue.T})
        method.to(DTYPES[precision])
        found = {}
        for t in steps_of(arrays, f"in/{case}/step{{}}/q_raw"):
            views = [torch.tensor(arrays[f"in/{case}/step{t}/{x}_raw"]).to(DTYPES[precision]) for x in "qk"]
            batch = batch_of(views, {"shuffle1": {"": torch.randperm(h["batch"])}})
            batch.views[0] = q = batch.views[0].clone().requires_grad_()
            with mock.patch.object(moco, "info_nce", wraps=moco.info_nce) as spy:
                out = method.training_loss(batch)
            found[t, "logits"] = logits_of(spy.call_args_list).detach()
            out["loss"].backward()
            method.on_after_backward()
            found |= {(t, "loss"): out["loss"], (t, "grad_q_raw"): q.grad, (t, "queue"): method.queue.keys.T.clone()}
            found[t, "pointer"] = torch.tensor([method.queue.pushed % method.queue.size])
        for t, _, name, key in recorded(arrays, precision, case):
            close(found[t, name], arrays[key], key, exact_of(arrays, key))


def _inputs(arrays: Values, case: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    prefix = f"init/{case}/param/"
    start = {name.removeprefix(prefix): value for name, value in plain(arrays, prefix).items()}
    return start, arrays[f"init/{case}/queue"]


def check_net(document: Any, arrays: Values) -> None:
    h, case = document["hyperparameters"]["net"], document["case"]
    steps = [
        {
            "views": [arrays[f"in/{case}/step{t}/im_{x}"] for x in "qk"],
            "shuffles": {"shuffle1": arrays[f"in/{case}/step{t}/shuffle"]},
        }
        for t in steps_of(arrays, f"in/{case}/step{{}}/im_q")
    ]
    for precision in precisions(arrays):
        outs = replay(h, *_inputs(arrays, case), steps, precision)
        for t, _, name, key in recorded(arrays, precision, case):
            close(outs[t - 1][name], arrays[key], key, exact_of(arrays, key))


def check_world(document: Any, arrays: Values, pools: Any) -> None:
    """Batch norm over each rank's rows; keys shuffled over all ranks; on as many processes, and on one."""
    h, case = document["hyperparameters"]["net"], document["case"]
    world = sum(f"in/{case}/step1/rank{rank}/im_q" in arrays for rank in range(len(arrays)))
    rows = len(arrays[f"in/{case}/step1/rank0/im_q"])

    def joined(t: int, name: str) -> np.ndarray:
        return np.concatenate([arrays[f"in/{case}/step{t}/rank{rank}/{name}"] for rank in range(world)])

    steps = [
        {
            "views": [joined(t, f"im_{x}") for x in "qk"],
            "shuffles": {"shuffle1": arrays[f"in/{case}/step{t}/shuffle"]},
        }
        for t in steps_of(arrays, f"in/{case}/step{{}}/rank0/im_q")
    ]
    for precision in precisions(arrays):
        ranks = pools(world).run(replay, h, *_inputs(arrays, case), steps, precision, rows)
        one = replay(h, *_inputs(arrays, case), steps, precision, rows)
        compare_world(arrays, precision, case, ranks, one)


def compare_world(arrays: Values, precision: str, case: str, ranks: list[Any], one: list[Any]) -> None:
    per_rank: dict[tuple[int, str], list[np.ndarray]] = {}
    for t, rank, name, key in recorded(arrays, precision, case):
        if "_buffer/" in name and t > 1:
            continue  # see tests/golden/differs.py
        wanted = arrays[key]
        if rank is not None:
            per_rank.setdefault((t, name), []).append(wanted)
        if rank is None or "_buffer/" not in name:
            for out in ranks if rank is None else [ranks[rank]]:
                close(out[t - 1][name], wanted, key, exact_of(arrays, key))
        if rank is None:
            close(one[t - 1][name], wanted, f"{key}, one process", exact_of(arrays, key))
    for (t, name), values in per_rank.items():
        joined = np.concatenate(values) if name == "logits" else np.mean(values, axis=0)
        everywhere = [one, *ranks] if "_buffer/" in name else [one]
        for out in everywhere:  # running statistics are the mean over groups, on every rank
            close(out[t - 1][name], joined.astype(values[0].dtype), f"{precision} step {t} {name}, all ranks together")


def check_cifar(document: Any, arrays: Values) -> None:
    """The CIFAR-10 notebook: interleaved split batch norm, one or both directions."""
    h, symmetric = document["hyperparameters"], document["case"] == "sym"
    start = {name.removeprefix("init/param/"): value for name, value in plain(arrays, "init/param/").items()}
    steps = [
        {
            "views": [arrays[f"in/step{t}/view{v}"] for v in (1, 2)],
            "shuffles": {
                "shuffle1": arrays[f"in/step{t}/shuffle_first"],
                "shuffle0": arrays[f"in/step{t}/shuffle_second"],
            },
        }
        for t in steps_of(arrays, "in/step{}/view1")
    ]
    group = h["batch"] // h["bn_splits"]
    for precision in precisions(arrays):
        outs = replay(h, start, arrays["init/queue"], steps, precision, group, True, symmetric)
        for t, _, name, key in recorded(arrays, precision, document["case"]):
            close(outs[t - 1][name], arrays[key], key, exact_of(arrays, key))


def check_split_norm(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    for precision in precisions(arrays):
        names = ("x", "weight", "bias", "grad_out")
        x, weight, bias, grad = (torch.tensor(arrays[f"in/splitbn/{name}"]).to(DTYPES[precision]) for name in names)
        norm = nn.BatchNorm2d(x.shape[1]).to(x.dtype)
        fill(norm, {"weight": weight, "bias": bias})
        convert(norm, len(x) // h["bn_splits"], interleaved=True)
        y = norm(x.requires_grad_())
        y.backward(grad)
        found = {"y": y, "grad_x": x.grad, "running_mean": norm.running_mean, "running_var": norm.running_var}
        found["y_eval"] = norm.eval()(x)
        for name, value in found.items():
            key = f"{precision}/splitbn/{name}"
            close(value, arrays[key], key, exact_of(arrays, key))


def check_knn(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    bank, bank_labels, query, labels = (
        torch.tensor(arrays[f"in/knn/{name}"]) for name in ("bank", "bank_labels", "query", "query_labels")
    )
    options = {"classes": h["knn_classes"], "k": h["knn_k"], "temperature": h["knn_t"]}
    for precision in precisions(arrays):
        close(knn_predict(query, bank, bank_labels, **options), arrays[f"{precision}/knn/ranking"][:, 0], "winners")
        close(knn_top1(query, labels, bank, bank_labels, **options) / 100, arrays[f"{precision}/knn/top1"], "top-1")


CHECKS = {
    "moco": {"feature*": check_feature, "world*": check_world, "net*": check_net},
    "moco_cifar": {"splitbn*": check_split_norm, "knn*": check_knn, "*sym": check_cifar},
}
