"""What networks with features of each step are judged by on long series: forecasts, and anomalies.

``tasks/forecasting.py``, ``tasks/anomaly_detection.py`` and ``tasks/_eval_protocols.py`` of zhihanyue/ts2vec@b0088e14.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from ssl_zoo.backbones.base import backbone_of
from ssl_zoo.backbones.series.base import SeriesBackbone
from ssl_zoo.backbones.series.encoding import sliding
from ssl_zoo.data.series.long import LongSeries
from ssl_zoo.data.source import origin
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Count, Positive, Size

if TYPE_CHECKING:
    from ssl_zoo.evaluation.run import Judged

ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
MOST = 100_000  # rows that ridge regression is fitted and chosen on


def _parts(judged: Judged, data: str) -> tuple[SeriesBackbone, LongSeries]:
    backbone, source = backbone_of(judged.method.encoder), origin(judged.datamodule.train)
    if not isinstance(source, LongSeries):
        raise ConfigError(f"protocol={judged.name} judges one long series; take data={data}")
    if not isinstance(backbone, SeriesBackbone) or not backbone.has_steps:
        raise ConfigError(
            f"protocol={judged.name} needs features of each step, and {backbone.name} has none; "
            "backbone=ts2vec_encoder has them"
        )
    return backbone, source


@torch.no_grad()
def _encoded(judged: Judged, backbone: SeriesBackbone, whole: Tensor, padding: int, hide_last: bool = False) -> Tensor:
    """``[T, F]``: of each step, from it and the ``padding`` steps before it."""

    def steps(windows: Tensor) -> Tensor:
        keep = torch.ones(windows.shape[:2], dtype=torch.bool, device=windows.device)
        keep[:, -1] = not hide_last
        return backbone.forward_steps(windows, keep)

    return sliding(steps, whole[None].to(judged.device), 1, padding, causal=True)[0].cpu()


def evaluate_forecasting(
    judged: Judged, horizons: Sequence[int] = (24, 48, 168, 336, 720), padding: Count = 200
) -> dict[str, Any]:
    """The protocol of ``conf/protocol/forecasting.yaml``: ridge regression from features of a step to the next ones.

    Returns:
        ``mse_H`` and ``mae_H`` of the standardised test part for each horizon H, and the penalty that was chosen.

    Raises:
        ConfigError: If the data are no long series, or a part is shorter than a horizon.
    """
    backbone, source = _parts(judged, "forecast")
    for horizon in horizons:
        if horizon >= min(source.parts[0] - padding, *source.parts[1:]):
            raise ConfigError(
                f"protocol.horizons: {horizon} steps are no part of the {source.parts[0] - padding} of "
                f"training, {source.parts[1]} of validation and {source.parts[2]} of test"
            )
    features = _encoded(judged, backbone, source.whole, padding).double().numpy()
    found: dict[str, Any] = {"alpha": {}}
    for horizon in horizons:
        pairs = samples_of(features, source.whole[:, source.targets].double().numpy(), source.parts, horizon, padding)
        model, alpha = ridge(*pairs[0], *pairs[1])
        error = _errors(model, *pairs[2])
        found |= {f"mse_{horizon}": float((error**2).mean()), f"mae_{horizon}": float(np.abs(error).mean())}
        found["alpha"][str(horizon)] = alpha
    return {**found, "samples": dict(zip(("train", "val", "test"), source.parts, strict=True))}


def samples_of(
    features: np.ndarray, values: np.ndarray, parts: Sequence[int], horizon: int, drop: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each part the features of a step and the ``horizon`` values after it (``generate_pred_samples``).

    Args:
        features: ``[T, F]``.
        values: ``[T, C]``.
        parts: Steps of training, validation and test.
        drop: Steps at the beginning of the training part that have seen too little.

    Returns:
        Three times ``[n, F]`` and ``[n, horizon * C]``.
    """
    found = []
    for number, (last, length) in enumerate(zip(np.cumsum(parts), parts, strict=True)):
        rows = np.arange(last - length + (drop if number == 0 else 0), last - horizon)
        after = values[rows[:, None] + np.arange(1, horizon + 1)]  # [n, horizon, C]
        found.append((features[rows], after.reshape(len(rows), -1)))
    return found


def ridge(x: np.ndarray, y: np.ndarray, val_x: np.ndarray, val_y: np.ndarray) -> tuple[Ridge, float]:
    """The model of the penalty with the least error on the other samples: root of the squared one plus absolute one."""
    draw = np.random.RandomState(0)
    (x, y), (val_x, val_y) = (_fewer(*pair, draw) for pair in ((x, y), (val_x, val_y)))
    best: tuple[float, Ridge, float] | None = None
    for alpha in ALPHAS:
        model = Ridge(alpha=alpha).fit(x, y)
        error = _errors(model, val_x, val_y)
        score = float(np.sqrt((error**2).mean()) + np.abs(error).mean())
        if best is None or score < best[0]:
            best = score, model, alpha
    assert best is not None
    return best[1], best[2]


def _errors(model: Ridge, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return model.predict(x).reshape(y.shape) - y  # of one target it makes [n]


def _fewer(x: np.ndarray, y: np.ndarray, draw: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= MOST:
        return x, y
    rows = draw.permutation(len(x))[:MOST]
    return x[rows], y[rows]


def evaluate_anomalies(
    judged: Judged, delay: Count = 7, padding: Count = 200, window: Size = 21, deviations: Positive = 4.0
) -> dict[str, Any]:
    """The protocol of ``conf/protocol/anomaly.yaml``: steps whose features change most when the step itself is hidden.

    Returns:
        ``f1``, ``precision`` and ``recall`` in percent, of the test part.

    Raises:
        ConfigError: If the data are no long series of which anomalies are known.
    """
    backbone, source = _parts(judged, "anomaly")
    if source.anomalous is None:
        raise ConfigError(f"protocol={judged.name} needs to know which steps are anomalous; take data=anomaly")
    seen, hidden = (_encoded(judged, backbone, source.whole, padding, hide) for hide in (False, True))
    change = (seen - hidden).abs().sum(1).double().numpy()  # [T]
    found = detected(change, source.parts[0], window, deviations, delay)
    truth = source.anomalous[source.parts[0] :].numpy()
    return {**scores(found, truth, delay), "samples": dict(zip(("train", "val", "test"), source.parts, strict=True))}


def detected(change: np.ndarray, train: int, window: int, deviations: float, delay: int) -> np.ndarray:
    """``[T - train]`` bool: steps that stand out of the ``window`` steps before them more than those of training do.

    A step is not told if one of the ``delay`` steps before it was.
    """
    sums = np.cumsum(np.concatenate([[0.0], change]))
    mean = np.full(len(change), np.nan)
    mean[window:] = (sums[window:-1] - sums[: -window - 1]) / window  # of the steps before
    raised = (change - mean) / mean
    known = raised[window + 1 : train]
    told = raised[train:] > known.mean() + deviations * known.std()
    for i in range(delay, len(told)):
        told[i] &= not told[i - delay : i].any()
    return told


def scores(found: np.ndarray, truth: np.ndarray, delay: int) -> dict[str, float]:
    """An anomaly counts as found as a whole if one of its first ``delay + 1`` steps was told, otherwise as missed.

    ``get_range_proba``, of the competition that KPI was made for.
    """
    counted = found.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], truth, [False]]).astype(int)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        counted[first:last] = found[first : min(first + delay + 1, last)].any()
    right = float((counted & truth).sum())
    precision, recall = right / max(counted.sum(), 1), right / max(truth.sum(), 1)
    return {
        "f1": 100 * 2 * precision * recall / max(precision + recall, 1e-12),
        "precision": 100 * precision,
        "recall": 100 * recall,
    }
