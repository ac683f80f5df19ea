"""Tolerances of recorded numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def close(got: Any, want: np.ndarray, what: str, exact: np.ndarray | None = None, double: Any | None = None) -> None:
    """Float64 to 1e-9. Float32 to 1e-5 of the largest entry, or three times what float32 is off in this computation.

    Args:
        got: Tensor, array or number.
        want: Recorded; integers must be equal.
        what: Said on failure.
        exact: The same result recorded in float64, where ``want`` is float32: what the authors' float32 is off.
        double: Our own result in float64, where the authors recorded none: what our float32 is off.
    """
    got = got.detach().cpu().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, recorded {want.shape}"
    if not want.size:
        return
    if want.dtype.kind in "iub":
        assert (got == want).all(), f"{what}: {got.tolist()}, recorded {want.tolist()}"
        return
    largest = float(np.abs(want).max())
    allowed: Any = 1e-9 * np.abs(want) + 1e-10 * largest + 1e-15
    if np.float32 in (got.dtype, want.dtype):
        allowed = 1e-5 * largest + 1e-6
        if exact is not None:
            allowed = max(allowed, 3 * float(np.abs(want - exact).max()))
        if double is not None:
            allowed = max(allowed, 3 * float(np.abs(got - np.asarray(double)).max()))
    gap = np.abs(got.astype(np.float64) - want)
    assert (gap <= allowed).all(), f"{what}: largest difference {gap.max():.3g}, largest entry {largest:.3g}"
