"""Rate-distortion: how many nats a batch of vectors takes to code, which grows with the volume that it spans."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def total_coding_rate(z: Tensor, distortion: float = 0.2) -> Tensor:
    """``ln det(I + D / (N eps) Z^T Z) / 2``, eq. 2 of EMP-SSL, https://arxiv.org/abs/2304.03977 (``TotalCodingRate``).

    The determinant is that of the smaller of the two Gram matrices, which is the same (Sylvester).

    Args:
        z: ``[..., N, D]`` unit vectors, all rows of the global batch.
        distortion: eps > 0; 0.2 (the square of the distortion in the paper's notation).

    Returns:
        ``[...]`` in nats; to be made large.
    """
    n, d = z.shape[-2:]
    gram = z @ z.mT if n <= d else z.mT @ z
    eye = torch.eye(min(n, d), dtype=z.dtype, device=z.device)
    return torch.logdet(eye + d / (n * distortion) * gram) / 2


@full_precision
def patch_agreement(z: Tensor) -> Tensor:
    """Mean cosine of each patch of an image with the mean of all of them: eq. 3 of https://arxiv.org/abs/2304.03977.

    Gradient flows through the mean too, as in main.py of tsb0601/EMP-SSL.

    Args:
        z: ``[V, B, D]`` V patches of the local images.

    Returns:
        Mean over patches and images, at most 1.
    """
    return F.cosine_similarity(z, z.mean(0, keepdim=True), dim=2).mean()
