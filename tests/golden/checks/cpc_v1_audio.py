"""CPC on sequences: InfoNCE with recorded negatives forwards and backwards in time, and the binary variant."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.losses.predictive_coding import binary_match, future_info_nce, match_probability, negative_rows
from ssl_zoo.modules.step_predictors import StepPredictors
from tests.golden.compare import close
from tests.golden.harness import Values, double_or_single, fill, plain


def check_info_nce(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    assert h["predictor"] == "linear" and h["mode"] in (None, "reverse")
    shape = (h["batch"], h["negatives"], h["window"])
    leaves = [torch.tensor(arrays[name]).requires_grad_() for name in ("context", "encoded")]
    context, encoded = (x.flip(1) if h["mode"] == "reverse" else x for x in leaves)
    predictors = StepPredictors(h["dim_context"], h["dim_encoded"], h["n_predicts"])
    predictors.to(double_or_single(arrays["context"]))
    prefix = "param.wPrediction.predictors."
    fill(predictors, {name.removeprefix(prefix): array for name, array in plain(arrays, prefix).items()})
    drawn = [torch.tensor(arrays[name]).view(shape) for name in ("batch_idx", "seq_idx")]
    negatives = encoded.flatten(0, 1)[negative_rows(*drawn, h["seq"])]
    losses, accuracies = future_info_nce(predictors(context), encoded, negatives)
    losses.sum().backward()
    close(losses[None], arrays["losses"], "losses")
    close(accuracies[None], arrays["accuracies"], "accuracies")
    close(leaves[0].grad, arrays["grad_context"], "gradient of the context")
    close(leaves[1].grad, arrays["grad_encoded"], "gradient of the frames")


def check_binary(case: Any, arrays: Values) -> None:
    predictions, codes = (torch.tensor(arrays[name]).requires_grad_() for name in ("preds", "codes"))
    probability = match_probability(predictions, codes)
    loss = binary_match(probability, torch.tensor(arrays["labels"]))
    loss.backward()
    close(probability, arrays["prob"], "probability")
    close(loss, arrays["loss"], "loss")
    close(predictions.grad, arrays["grad_preds"], "gradient of the predictions")
    close(codes.grad, arrays["grad_codes"], "gradient of the codes")


CHECKS = {"cpc_v1_audio": {"binary*": check_binary, "*": check_info_nce}}
