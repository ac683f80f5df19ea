"""Contrast with a covariance: directions that the embeddings of many batches share are pushed away from."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def tico(z: Tensor, t: Tensor, covariance: Tensor, rho: float) -> tuple[Tensor, Tensor]:
    """TiCo, https://arxiv.org/abs/2206.10698 (algorithm 1): agree with the other view, leave the common directions.

    Written from memory of the paper and from what lightly-ai/lightly's ``TiCoLoss`` computes; the authors' code is not
    public.

    Args:
        z: ``[B, D]`` unit vectors of the local rows.
        t: ``[B, D]`` the other view's, of the teacher.
        covariance: ``[D, D]`` running second moments ``C``, this batch's share in it with gradient.
        rho: Weight of the second term.

    Returns:
        ``1 - mean z.t`` and ``rho * mean z^T C z``; the loss is their sum.
    """
    return 1 - (z * t).sum(1).mean(), rho * ((z @ covariance) * z).sum(1).mean()
