"""LeJEPA's two terms: views that agree, and shadows of the embeddings that look like a standard normal distribution.

SIGReg comes in two steps with the mean over processes between them: :func:`shadows` of the local rows,
:func:`epps_pulley` of all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def agreement(z: Tensor, centre_views: int | None = None) -> Tensor:
    """Squared distance of every view from the mean of the first ``centre_views`` (None: all); nothing is detached.

    Args:
        z: ``[V, B, D]`` embeddings.

    Returns:
        Mean over all entries.
    """
    return (z[:centre_views].mean(0) - z).square().mean()


def normal_knots(knots: int = 17, last: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Where characteristic functions are compared: ``t [T]``, that of N(0, 1) there, and the weights of the integral.

    The difference is symmetric in t, so the trapezium rule on ``[0, last]`` counts twice; the weights hold the window
    ``exp(-t^2 / 2)`` too. In float32 whatever the embeddings are in, as ``EppsPulley`` and ``SIGReg`` of
    rbalestr-lab/lejepa@eddffdd.

    Raises:
        ValueError: On fewer than 2 knots, or a ``last`` that is not positive.
    """
    if knots < 2 or last <= 0:
        raise ValueError(f"SIGReg: wants 2 knots or more on a positive interval, got {knots} on [0, {last:g}]")
    t = torch.linspace(0, last, knots, dtype=torch.float32)
    step = last / (knots - 1)
    weights = torch.full((knots,), 2 * step, dtype=torch.float32)
    weights[[0, -1]] = step
    normal = torch.exp(-t.square() / 2)
    return t, normal, weights * normal


@full_precision
def shadows(x: Tensor, slices: Tensor, t: Tensor) -> Tensor:
    """Empirical characteristic functions of the rows of ``x`` along random directions.

    Args:
        x: ``[..., B, D]`` embeddings.
        slices: ``[D, S]`` directions of any length; each is divided by it.
        t: ``[T]`` knots.

    Returns:
        ``[2, ..., S, T]``: means over the B rows of the cosine and the sine of ``t`` times the shadow.
    """
    angles = (x @ F.normalize(slices.to(x), dim=0)).unsqueeze(-1) * t  # [..., B, S, T]
    return torch.stack([angles.cos().mean(-3), angles.sin().mean(-3)])


@full_precision
def epps_pulley(means: Tensor, normal: Tensor, weights: Tensor, samples: int) -> Tensor:
    """Test of Epps and Pulley (1983) against N(0, 1) for each shadow, as LeJEPA, https://arxiv.org/abs/2511.08544.

    The data are not standardised: location and scale are part of what is tested.

    Args:
        means: ``[2, ..., S, T]`` of :func:`shadows`, over all processes.
        normal, weights: ``[T]`` of :func:`normal_knots`.
        samples: Rows that ``means`` were taken over.

    Returns:
        ``[..., S]`` statistics, >= 0: ``samples`` times the weighted squared distance of characteristic functions.
    """
    cosine, sine = means
    return ((cosine - normal).square() + sine.square()) @ weights * samples
