"""CMC: steps on the banks of two views (NCE and softmax), and on the queues of PyContrast's CMCv2."""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.nce import picked_scores
from ssl_zoo.methods.cmc import CMC
from ssl_zoo.methods.cmc_v2 import CMCv2
from ssl_zoo.modules.queue import Queue
from tests.golden.checks.instdisc import units
from tests.golden.checks.moco import DTYPES, exact_of, precisions, recorded
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, steps_of

LOSSES = {"nce": "nce", "softmax": "sampled", "pyc_bank": "sampled"}
VIEWS = (1, 2)


def towers_of(dim: int, views: int = 2) -> tuple[Backbone, list[list[int]]]:
    """A network that passes the features of all views on, which stand side by side as channels of one pixel."""
    net = nn.Sequential(nn.Conv2d(views * dim, dim, 1, bias=False), nn.Flatten())
    with torch.no_grad():
        cast(Tensor, net[0].weight).copy_(torch.eye(dim).repeat(1, views).view(dim, views * dim, 1, 1))
    backbone = ImageBackbone(net, Origin("ssl_zoo", "identity", {}, views * dim), dim, image_size=1, min_size=1)
    return backbone, [list(range(v * dim, (v + 1) * dim)) for v in range(views)]


def view_of(arrays: Values, t: int, kind: str, dtype: torch.dtype) -> Tensor:
    parts = [arrays[f"in/step{t}/{kind}{v}_raw"] for v in VIEWS]
    return torch.tensor(np.concatenate(parts, axis=1)).to(dtype)[:, :, None, None].requires_grad_()


def results(method: Any, batch: Batch) -> dict[str, Any]:
    with units() as seen:
        out = method.training_loss(batch)
    out["loss"].backward()
    method.on_after_backward()
    raw = batch.views[0].grad.flatten(1).chunk(2, dim=1)
    found = {"loss": out["loss"], "loss_1": out["view0_to_view1"], "loss_2": out["view1_to_view0"]}
    for v in VIEWS:
        found |= {f"grad_view{v}_raw": raw[v - 1], f"grad_view{v}_normalised": seen[0].grad[:, v - 1]}  # type: ignore[index]
    return {name: value.detach() for name, value in found.items()}


def replay_banks(h: Any, arrays: Values, loss: Any, dtype: torch.dtype) -> dict[tuple[int, str], Any]:
    backbone, channels = towers_of(h["dim"])
    info = image_info(h["n_data"], None, 1, 2 * h["dim"], h["batch"])
    method: Any = CMC(
        backbone, no_recipe(), info, channels, Identity, loss=loss, temperature=h["temperature"],
        negatives=h["n_negatives"], bank_momentum=h["memory_momentum"],
    )
    fill(method, {f"banks.{v - 1}.keys": arrays[f"init/memory_{v}"] for v in VIEWS})
    method.to(dtype)
    found: dict[tuple[int, str], Any] = {}
    for t in steps_of(arrays, "in/step{}/view1_raw"):
        rows = torch.tensor(arrays[f"in/step{t}/sampled_index"])
        rng = RecordedRNG(sample={"negatives": {"rows": rows[:, 1:]}})
        index = torch.tensor(arrays[f"in/step{t}/instance_index"])
        batch = Batch([view_of(arrays, t, "view", dtype)], index, None, rng)
        found |= {(t, name): value for name, value in results(method, batch).items()}
        found |= {(t, f"memory_{v}"): method.banks[v - 1].keys.clone() for v in VIEWS}
    return found | {(0, f"Z_{v}"): method.contrasts[v - 1].normaliser for v in VIEWS}


def replay_queues(h: Any, arrays: Values, dtype: torch.dtype) -> dict[tuple[int, str], Any]:
    backbone, channels = towers_of(h["dim"])
    info = image_info(h["n_data"], None, 1, 2 * h["dim"], h["batch"])
    with mock.patch.object(Queue, "_check"):  # the authors' queue takes any size; ours wants a multiple of the batch
        method: Any = CMCv2(
            backbone, no_recipe(), info, channels, Identity, temperature=h["temperature_pyc_queue"],
            queue_size=h["queue_size_pyc_queue"],
        )
        fill(method, {f"queues.{v - 1}.keys": arrays[f"init/queue_{v}"] for v in VIEWS})
        method.to(dtype)
        found: dict[tuple[int, str], Any] = {}
        for t in steps_of(arrays, "in/step{}/key1_raw"):
            views = [view_of(arrays, t, kind, dtype) for kind in ("view", "key")]
            rng = RecordedRNG(shared={"shuffle": {"": torch.arange(len(views[0]))}})
            batch = Batch([views[0], views[1].detach()], torch.arange(len(views[0])), None, rng)
            found |= {(t, name): value for name, value in results(method, batch).items()}
            found |= {(t, f"memory_{v}"): method.queues[v - 1].keys.clone() for v in VIEWS}
            found[t, "pointer"] = torch.tensor(method.queues[0].pushed % method.queues[0].size)
    return found


def check(document: Any, arrays: Values) -> None:
    h, case = document["hyperparameters"], document["case"]
    for precision in precisions(arrays):
        dtype = DTYPES[precision]
        banks = case in LOSSES
        found = replay_banks(h, arrays, LOSSES[case], dtype) if banks else replay_queues(h, arrays, dtype)
        for t, _, name, key in recorded(arrays, precision, case):
            close(found[t, name], arrays[key], key, exact_of(arrays, key))
        for name in (f"Z_{v}" for v in VIEWS):
            if (key := f"{precision}/{case}/{name}") in arrays:
                close(found[0, name], arrays[key], key, exact_of(arrays, key))


SIDES = {"l": 0, "ab": 1}
DIFFERS = {"cmc/all/view_ycbcr": "the zoo has L*a*b* (the paper's and the code's default) and YDbDr (PyContrast's)"}


def several(h: Any, arrays: Values, views: int, loss: Any, graph: Any, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    """A method on the first views of the other recording, and two steps on the same embeddings (units already)."""
    backbone, channels = towers_of(h["D"], views)
    info = image_info(h["N"], None, 1, views * h["D"], h["B"])
    method: Any = CMC(
        backbone, no_recipe(), info, channels, Identity, graph=graph, loss=loss, temperature=h["T"],
        negatives=h["K"], bank_momentum=h["m"],
    )
    fill(method, {f"banks.{v}.keys": arrays[f"memory_{v}"] for v in range(views)})
    method.to(dtype)
    rows, index = torch.tensor(arrays["candidates"]), torch.tensor(arrays["index"])
    rng = RecordedRNG(sample={"negatives": {"rows": rows[:, 1:]}})
    outs = []
    for _ in range(2):
        view = torch.tensor(np.concatenate([arrays[f"embedding_{v}"] for v in range(views)], axis=1)).to(dtype)
        view = view[:, :, None, None].requires_grad_()
        banks = [bank.keys.clone() for bank in method.banks]
        with mock.patch.object(F, "normalize", lambda x, **_: x):
            out = method.training_loss(Batch([view], index, None, rng))
        out["loss"].backward()
        method.on_after_backward()
        after = [bank.keys.clone() for bank in method.banks]
        scores = picked_scores(view.detach().flatten(1)[:, : h["D"]], banks[1], rows) / h["T"]
        outs.append({**out, "gradients": view.grad.flatten(1).chunk(views, 1), "banks": after, "scores": scores})
    return method, outs


def check_several(document: Any, arrays: Values) -> None:
    """Two views, several views (sums of float32 numbers), and the colour spaces."""
    h = document["hyperparameters"]
    for name, loss in (("nce", "nce"), ("softmax", "sampled")):
        method, outs = several(h, arrays, 2, loss, "full", torch.float32)
        scores = outs[0]["scores"]
        if name == "nce":
            z = torch.stack([contrast.normaliser for contrast in method.contrasts])
            close(z, arrays["nce_Z_f32"], "Z")
            scores = scores.exp() / z[0]
        close(scores, arrays[f"{name}_scores_l_f32"], f"{name} scores")
        for side, v in SIDES.items():
            for step, out in enumerate(outs):
                key = f"{name}_loss_{side}_step{step}_f32"
                close(out[f"view{v}_to_view{1 - v}"], arrays[key], key)
            close(outs[0]["gradients"][v], arrays[f"{name}_grad_{side}_f32"], f"{name} gradient of {side}")
            close(outs[0]["banks"][v], arrays[f"{name}_memory_{side}_after_f32"], f"{name} memory of {side}")
    for graph, key in (("core", "core_view_total"), ("full", "full_graph_total")):
        _, (out, _) = several(h, arrays, h["views"], "sampled", graph, torch.float32)
        close(out["loss"], arrays[key].astype(np.float32), key)
    for i, j, total in arrays["pair_losses"].astype(np.float32):
        close(out[f"view{i:.0f}_to_view{j:.0f}"] + out[f"view{j:.0f}_to_view{i:.0f}"], total, f"pair {i}, {j}")
    image = torch.tensor(arrays["rgb_image"]).permute(2, 0, 1)[None] / 255
    lab = registry.build({"image/lab": {"scaled": True}}, image.shape[-1])(image, None)[0]
    close(lab, arrays["view_lab"].astype(np.float32), "L*a*b*")


CHECKS = {"cmc": {**dict.fromkeys(LOSSES, check), "pyc_queue": check, "all": check_several}}
