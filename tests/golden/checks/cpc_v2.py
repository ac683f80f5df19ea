"""CPC v2: the task of Bolts with a small PixelCNN, through the method."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.cpc_v2 import CPCv2
from ssl_zoo.modules.pixel_cnn import PixelCNN
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, double_or_single, fill, no_recipe, plain

OURS = {"target_cnn.": "target.", "pred_cnn.": "predictors.0.", "context_cnn.": "context."}


def check_task(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    side = h["grid"]
    # Patches of 2 px with a step of 1 make the recorded grid.
    data = image_info(samples=h["batch"], classes=None, image_size=side + 1, channels=1, batch_size=h["batch"])
    context = partial(PixelCNN, hidden=h["pixelcnn_hidden"], blocks=h["pixelcnn_blocks"])
    backbone: Any = Identity(h["channels"])
    method = CPCv2(backbone, no_recipe(), data, context, h["target_dim"], h["embed_scale"], patch=2 / (side + 1))
    method.to(double_or_single(arrays["z"]))
    values = {name.removeprefix("param."): array for name, array in plain(arrays, "param.").items()}
    fill(method, {OURS[name.split(".")[0] + "."] + name.partition(".")[2]: array for name, array in values.items()})
    z = torch.tensor(arrays["z"]).requires_grad_()
    method.grid = lambda view: view  # type: ignore[method-assign]  # the recorded grid of features
    batch = batch_of([z])
    batch.views = [z]
    out = method.training_loss(batch)
    out["loss"].backward()
    close(out["loss"], arrays["loss"], "loss")
    close(z.grad, arrays["grad_z"], "gradient")
    c = method.context(z)
    close(c, arrays["context"], "context")
    close(method.target(z), arrays["targets"], "targets")
    close(method.predictors[0](c), arrays["preds"], "predictions")
    wanted = arrays["loss_per_i"]
    terms = [out[f"rows{i + 1}"] for i in range(1, len(wanted))]
    close(torch.stack(terms), wanted[:-1], "losses of the distances")
    assert np.isnan(wanted[-1]) and f"rows{len(wanted) + 1}" not in out, "no row lies so far below: the last is dropped"


CHECKS = {"cpc_v2": {"cpc_task*": check_task}}
