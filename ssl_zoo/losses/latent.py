"""Predicting tokens of another network instead of pixels."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@torch.no_grad()
@full_precision
def latent_targets(tokens: Tensor, places: Tensor, repeat: int = 1) -> Tensor:
    """Tokens to predict, each layer-normalised over its features without scale and offset (eps 1e-5).

    As ``forward_target`` in src/train.py of facebookresearch/ijepa@52c1ae9; the paper does not mention the norm.

    Args:
        tokens: ``[B, N, F]`` of the teacher, for the whole view.
        places: ``[P, B, T]`` int64.
        repeat: Context blocks E from which each target block is predicted.

    Returns:
        ``[P * E * B, T, F]``, in the order of :class:`ssl_zoo.modules.token_predictor.TokenPredictor`.
    """
    tokens = F.layer_norm(tokens, tokens.shape[-1:])
    blocks, rows, length = places.shape
    index = places.transpose(0, 1).reshape(rows, -1, 1).expand(-1, -1, tokens.shape[-1])  # [B, P * T, F]
    found = tokens.gather(1, index).unflatten(1, (blocks, length)).transpose(0, 1)  # [P, B, T, F]
    return found.unsqueeze(1).expand(-1, repeat, -1, -1, -1).flatten(0, 2)


@full_precision
def latent_regression(predictions: Tensor, targets: Tensor, form: Literal["smooth_l1", "l2"] = "smooth_l1") -> Tensor:
    """Distance of predicted from true tokens, mean over all entries.

    Args:
        predictions, targets: ``[..., F]``.
        form: ``smooth_l1``: Huber's with beta 1, as I-JEPA's code; ``l2``: squared differences, as eq. 1 of its paper
            (there summed over features).
    """
    return F.smooth_l1_loss(predictions, targets) if form == "smooth_l1" else F.mse_loss(predictions, targets)
