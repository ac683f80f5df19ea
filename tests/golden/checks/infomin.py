"""InfoMin: whole training steps with tiles, shuffled keys, queue and moving average."""

from __future__ import annotations

import re
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods import infomin
from ssl_zoo.modules.heads import MLP
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.schedules import Progress
from tests.golden.checks.moco import DTYPES, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Values, equal_teacher, fill, plain, recipe, steps_of
from tests.helpers import train_step

PLACES = {"encoder": "backbone", "head": "projector", "head_jig.fc1": "jigsaw_projector.tile",
          "head_jig.fc2": "jigsaw_projector.mix"}
DIFFERS = {
    "infomin/state_after_step*/*/ema/head_jig.*": "the authors also average the head for tiles and never use it; ours "
    "averages what makes keys",
}


class Encoder(nn.Sequential):
    """The recording's: flatten, linear, ReLU."""

    def __init__(self, inputs: int, out_features: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, out_features), nn.ReLU())
        self.out_features = out_features


def ours(name: str) -> str:
    part = max((part for part in PLACES if name.startswith(part + ".")), key=len)
    return PLACES[part] + name.removeprefix(part)


def method_of(h: Any, arrays: Values) -> infomin.InfoMin:
    start = {name.removeprefix("init/param/"): value for name, value in plain(arrays, "init/param/").items()}
    hidden = [len(start[name]) for name in ("head.0.weight",) if h["head"] == "mlp"]
    method = infomin.InfoMin(
        Encoder(int(np.prod(h["image"])), h["hidden"]),  # type: ignore[arg-type]
        recipe(torch.optim.SGD, **h["sgd"]),
        image_info(h["batch"], None, 1, 3, h["batch"]),
        projector=partial(MLP, hidden=hidden, out_features=h["dim"], norm="none", last_bias=True),
        tiles=h["tiles"],
        temperature=h["temperature"],
        momentum=h["ema"],
        queue_size=h["queue"],
        jigsaw=h["beta"],
    )
    fill(method, {**{ours(name): value for name, value in start.items()}, "queue.keys": arrays["init/queue"]})
    equal_teacher(method)
    return method


def logits_of(call: Any, keys: Tensor) -> Tensor:
    q, k, _, temperature = call.args
    return torch.cat([(q * k).sum(1, keepdim=True), q @ keys.T], dim=1) / temperature


def replay(h: Any, arrays: Values, dtype: torch.dtype) -> dict[str, Tensor]:
    """Results under the recording's names."""
    method: Any = method_of(h, arrays).to(dtype).train()
    method.bind(h["batch"])
    names = [name.removeprefix("init/param/") for name in plain(arrays, "init/param/")]
    steps = steps_of(arrays, "in/step{}/crops")
    method.progress = Progress(0, len(steps), len(steps))
    found: dict[str, Tensor] = {}
    for t in steps:
        given = {name: torch.tensor(arrays[f"in/step{t}/{name}"]) for name in
                 ("crops", "jigsaw", "tile_permutation", "shuffle_ids")}
        views = [*given["crops"].to(dtype).chunk(2, dim=1), given["jigsaw"].to(dtype)]
        tiles, shuffle = {"": given["tile_permutation"]}, {"": given["shuffle_ids"]}
        queued = method.queue.keys.clone()
        with mock.patch.object(infomin, "info_nce", wraps=infomin.info_nce) as spy:
            rng = RecordedRNG(sample={"tiles": tiles}, shared={"shuffle": shuffle})
            out = train_step(method, Batch(views, torch.arange(len(views[0])), None, rng))
        crop, jigsaw = spy.call_args_list
        results = {"loss": out["loss"], "q": crop.args[0], "k": crop.args[1], "q_jig": jigsaw.args[0]}
        results |= {"logits": logits_of(crop, queued), "logits_jig": logits_of(jigsaw, queued)}
        results |= {"loss_inst": infomin.info_nce(*crop.args[:2], queued, crop.args[3]),
                    "loss_jig": infomin.info_nce(*jigsaw.args[:2], queued, jigsaw.args[3])}
        results |= {f"grad/{name}": out["gradients"][ours(name)] for name in names}
        found |= {f"step{t}/{name}": value.detach() for name, value in results.items()}
        state = {name: value.clone() for name, value in method.state_dict().items() if isinstance(value, Tensor)}
        after = {f"param/{name}": state[ours(name)] for name in names}
        for name in (name for name in names if not name.startswith("head_jig")):
            teachers = ours(name).replace("backbone.", "0.", 1).replace("projector.", "1.", 1)
            after[f"ema/{name}"] = state[f"teacher.net.{teachers}"]
        after |= {"queue": state["queue.keys"], "pointer": torch.tensor(method.queue.pushed % method.queue.size)}
        found |= {f"state_after_step{t}/{name}": value for name, value in after.items()}
    return found


def check(document: Any, arrays: Values) -> None:
    """Every part of a flat file is a case; the steps before it belong to it."""
    h, case = document["hyperparameters"], document["case"]
    with mock.patch.object(Queue, "_check"):  # the authors' queue takes any size; ours wants a multiple of the batch
        for precision in precisions(arrays):
            found = replay(h, arrays, DTYPES[precision])
            for key in [key for key in arrays if re.match(rf"{precision}/{case}/", key)]:
                if "/ema/head_jig." not in key:  # see DIFFERS
                    close(found[key.partition("/")[2]], arrays[key], key, exact_of(arrays, key))


CHECKS = {"infomin": {"*": check}}
