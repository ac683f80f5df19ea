"""SCARF: corruption and InfoNCE of the paper, NT-Xent and two steps of the code that is best known."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ssl_zoo.augmentations.rng import RecordedDraw
from ssl_zoo.augmentations.table.ops import Corrupt, corrupted
from ssl_zoo.backbones.table.mlp import mlp
from ssl_zoo.methods.scarf import SCARF
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.schedules import Progress
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, differentiate, fill, no_recipe, recipe, steps_of


class Fixed(RecordedDraw):
    """The recorded cells of a fixed number of columns: what a permutation would put first."""

    def permutation(self, n: int, name: Any = "") -> torch.Tensor:
        return (~self.values["mask"]).long().argsort(dim=1, stable=True).argsort(1)


def check_corruption(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    train, x = torch.tensor(arrays["train"]), torch.tensor(arrays["x"])
    mask, rows = torch.tensor(arrays["mask"]), torch.tensor(arrays["source_row"])
    assert x.shape == (h["B"], h["features"]) and len(train) == h["train_rows"]
    assert (mask.sum(1) == h["q"]).all()
    close(corrupted(x, train, mask, rows), arrays["corrupted"], "corrupted")
    operation = Corrupt(h["corruption_rate"], table=train)
    close(operation(x, Fixed({"mask": mask, "row": rows})), arrays["corrupted"], "corrupted by the operation")


def check_loss(case: Any, arrays: Values, both: bool) -> None:
    views = [torch.tensor(arrays[name]) for name in ("z", "z_corrupted")]
    width = views[0].shape[1]
    assert len(views[0]) == case["hyperparameters"]["B"]
    temperature = case["hyperparameters"]["temperature"]
    method = SCARF(Identity(width), no_recipe(), Identity, temperature, both_directions=both).to(views[0].dtype)
    out = differentiate(method, views)
    close(out["loss"], arrays["loss"], "loss")
    close(out["view0"], arrays["grad_z"], "gradient of the clean rows")
    close(out["view1"], arrays["grad_z_corrupted"], "gradient of the corrupted rows")


def _numbered(sizes: list[int], prefix: str, state: Any) -> dict[str, Any]:
    """Their layers (linear, norm, ReLU, dropout) under our numbers (without the dropout)."""
    found = {}
    for layer in range(len(sizes)):
        for place in range(2 if layer + 1 < len(sizes) else 1):
            theirs, ours = f"{prefix}.{4 * layer + place}.", f"{3 * layer + place}."
            found |= {ours + name.removeprefix(theirs): state[name] for name in state if name.startswith(theirs)}
    return found


def check_steps(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    encoder, head = h["encoder"], h["head"]
    backbone = mlp(h["features"], encoder[:-1], encoder[-1], norm="batch", last_activation=False)
    projector = partial(MLP, hidden=head[:-1], out_features=head[-1], last_bias=True)
    adam = recipe(torch.optim.Adam, lr=1e-3, weight_decay=1e-4)
    method = SCARF(backbone, adam, projector, h["temperature"], both_directions=True).double().train()
    assert {m.eps for m in method.modules() if isinstance(m, torch.nn.BatchNorm1d)} == {h["bn_eps"]}
    for net, sizes, prefix in ((backbone.net, encoder, "encoder"), (method.projector, head, "pretraining_head")):
        start = {name.removeprefix("init."): arrays[name] for name in arrays if name.startswith("init.")}
        fill(net, _numbered(sizes, prefix, start))
    method.bind(h["B"])
    low, high = torch.tensor(arrays["low"]), torch.tensor(arrays["high"])
    # Their mask is rand > rate, so that a share of 1 - rate is replaced.
    operation = Corrupt(1 - h["corruption_rate"], "bernoulli", "uniform", table=torch.stack([low, high]))
    for step in steps_of(arrays, "x_step{}"):
        x = torch.tensor(arrays[f"x_step{step}"])
        drawn = {"mask": 1 - torch.tensor(arrays[f"mask_uniform_step{step}"]),
                 "value": torch.tensor(arrays[f"value_uniform_step{step}"])}
        method.progress = Progress(step - 1, 2, 1)
        method.begin_micro_batch(first=True)
        batch = batch_of([x, operation(x, RecordedDraw(drawn))])
        loss = method.training_loss(batch)["loss"]
        close(loss, arrays[f"loss_step{step}"], f"loss of step {step}")
        method.bound.optimizer.zero_grad()
        loss.backward()
        embedding = method.passes(method.projector, method.passes(method.backbone, batch.views))[0]
        close(embedding, arrays[f"embedding_step{step}"], f"embedding of step {step}")
        method.bound.optimizer.step()
    final = {name.removeprefix("final."): arrays[name] for name in arrays if name.startswith("final.")}
    for net, sizes, prefix in ((backbone.net, encoder, "encoder"), (method.projector, head, "pretraining_head")):
        state = net.state_dict()
        for name, value in _numbered(sizes, prefix, final).items():
            close(state[name], value, f"{prefix} {name} after the steps")


CHECKS = {
    "scarf": {
        "corruption_paper": check_corruption,
        "infonce_paper_*": partial(check_loss, both=False),
        "ntxent_thirdparty_*": partial(check_loss, both=True),
        "forward_steps_thirdparty": check_steps,
    }
}
