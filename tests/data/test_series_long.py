"""Long series: their parts and pieces, dates, forecasts and anomalies by hand, and the protocols on a network."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_zoo.backbones.series.ts2vec_encoder import ts2vec_encoder
from ssl_zoo.backbones.series.ts_tcc_encoder import ts_tcc_encoder
from ssl_zoo.data.series.judged import (
    detected,
    evaluate_anomalies,
    evaluate_forecasting,
    ridge,
    samples_of,
    scores,
)
from ssl_zoo.data.series.long import LongSeries, anomalies, forecast
from ssl_zoo.data.series.synthetic import synthetic_series
from ssl_zoo.errors import ConfigError


def table(folder: Path, steps: int = 100) -> Path:
    rows = [f"2016-07-01 {i % 24:02d}:00:00,{math.sin(i / 3):.6f},{i}" for i in range(steps)]
    path = folder / "ett.csv"
    path.write_text("\n".join(["date,HUFL,OT", *rows]) + "\n")
    return path


def judged(source: Any, backbone: Any) -> Any:
    return SimpleNamespace(
        method=SimpleNamespace(encoder=backbone.eval()),
        datamodule=SimpleNamespace(train=source),
        device=torch.device("cpu"),
        name="forecasting",
    )


def long(splits: Any) -> LongSeries:
    assert splits.val is None and isinstance(splits.train, LongSeries)
    return splits.train


def test_a_table_is_cut_into_parts_and_pieces_and_standardised_by_the_first(tmp_path: Path) -> None:
    source = long(forecast(piece=20, root=str(table(tmp_path))))
    assert source.parts == (60, 20, 20) and source.values.shape == (3, 20, 9) and source.targets.start == 7
    assert source.decisions[0] == "the first 60 of 100 steps are trained on, in 3 piece(s)"
    assert source.whole[:60, 8].mean().abs() < 1e-6 and torch.equal(source.values.flatten(0, 1), source.whole[:60])
    assert source.whole[99, 8].item() == pytest.approx((99 - 29.5) / np.arange(60).std(), rel=1e-5)
    hours = source.whole[:, 1]  # minute, hour, ...
    assert hours[0] == hours[24] and hours[0] < hours[1] and (source.whole[:, 0] == 0).all()
    alone = long(forecast(parts=[50, 30, 10], target="OT", covariates=False, root=str(table(tmp_path))))
    assert alone.whole.shape == (90, 1) and alone.parts == (50, 30, 10) and len(alone) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "OP"}, r"data.source.target=OP: .*ett.csv has no such column: there are: HUFL, OT"),
        ({"parts": [0.9, 0.2, 0.2]}, r"parts=\[0.9, 0.2, 0.2\]: wanted three shares of at most 1 together"),
        ({"parts": [90, 10, 10]}, r"90 \+ 10 \+ 10 steps, and there are 100"),
        ({"root": "nothing.csv"}, r"data.root=nothing.csv: wanted the .csv file of a series"),
    ],
)
def test_what_cannot_be_cut_is_a_sentence(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        forecast(**{"root": str(table(tmp_path)), **options})


def test_lines_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = table(tmp_path, 3)
    path.write_text(path.read_text() + "2016-07-02 00:00:00,1\n")
    with pytest.raises(ConfigError, match=r"ett.csv line 5: 2 values, and there are 3 columns"):
        forecast(root=str(path))
    path.write_text("date,a\nyesterday,1\ntoday,2\n")
    with pytest.raises(ConfigError, match=r"ett.csv line 2: 'yesterday' is no date, wanted 2016-07-01 00:00:00"):
        forecast(root=str(path))


def test_features_of_a_step_are_paired_with_what_follows_within_its_part() -> None:
    steps = np.arange(20.0)[:, None]
    parts = samples_of(steps, np.concatenate([steps, -steps], 1), (10, 5, 5), horizon=2, drop=3)
    assert [x[:, 0].tolist() for x, _ in parts] == [[3, 4, 5, 6, 7], [10, 11, 12], [15, 16, 17]]
    assert parts[1][1].tolist() == [[11, -11, 12, -12], [12, -12, 13, -13], [13, -13, 14, -14]]


def test_ridge_takes_the_penalty_that_serves_the_other_samples() -> None:
    rng = np.random.RandomState(0)
    x = rng.normal(size=(300, 4))
    y = x @ rng.normal(size=(4, 2))
    model, alpha = ridge(x[:200], y[:200], x[200:], y[200:])
    assert alpha == 0.1 and np.abs(model.predict(x) - y).max() < 0.01
    noise = rng.normal(size=(300, 100))
    assert ridge(noise[:60], y[:60], noise[60:], y[60:])[1] > 100


def test_forecasts_of_a_wave_are_better_than_its_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = long(forecast(target="HUFL", covariates=False, root=str(table(tmp_path, 300))))
    found = evaluate_forecasting(judged(source, ts2vec_encoder(1, 32, 16, 4)), [1, 5], padding=30)
    assert found["mse_1"] < found["mse_5"] < 0.3 and found["samples"] == {"train": 180, "val": 60, "test": 60}
    assert 0 < found["mae_1"] and set(found["alpha"]) == {"1", "5"}
    with pytest.raises(ConfigError, match=r"protocol.horizons: 60 steps are no part of the 150 of training"):
        evaluate_forecasting(judged(source, ts2vec_encoder(1, 8, 8, 1)), [60], padding=30)
    with pytest.raises(ConfigError, match="ts_tcc_encoder has none; backbone=ts2vec_encoder has them"):
        evaluate_forecasting(judged(source, ts_tcc_encoder(1, 20)))
    with pytest.raises(ConfigError, match="judges one long series; take data=forecast"):
        evaluate_forecasting(judged(synthetic_series().train, ts2vec_encoder(2, 8, 8, 1)))


def test_a_step_is_told_where_it_stands_out_of_those_before_it_and_only_once() -> None:
    change = np.ones(100) + 0.01 * np.sin(np.arange(100))
    change[[60, 62, 90]] = 5.0
    told = detected(change, 50, window=21, deviations=4.0, delay=7)
    assert told.nonzero()[0].tolist() == [10, 40]  # 62 is told with 60


def test_an_anomaly_counts_as_a_whole_if_it_is_told_soon_enough() -> None:
    truth = np.zeros(20, dtype=bool)
    truth[[2, 3, 4, 5, 10, 11, 12, 13, 18, 19]] = True
    found = np.zeros(20, dtype=bool)
    found[[4, 13, 16]] = True  # in time, too late, and a false alarm
    got = scores(found, truth, delay=2)
    assert got["precision"] == pytest.approx(100 * 4 / 5) and got["recall"] == pytest.approx(100 * 4 / 10)
    assert got["f1"] == pytest.approx(100 * 2 * 0.8 * 0.4 / 1.2)
    assert scores(~truth & False, truth, 2)["f1"] == 0


def test_anomalies_of_a_folder_and_of_one_file(tmp_path: Path) -> None:
    wave = [f"{i},{math.sin(i / 2) + (3 if 130 <= i < 134 else 0):.5f},{int(130 <= i < 134)}" for i in range(160)]
    for name, rows in (("s_TRAIN", wave[:100]), ("s_TEST", wave[100:]), ("whole", wave)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["timestamp,value,is_anomaly", *rows]) + "\n")
    source = long(anomalies(root=str(tmp_path)))
    assert source.parts == (100, 0, 60) and source.anomalous is not None
    assert source.anomalous.nonzero().flatten().tolist() == [130, 131, 132, 133] and source.whole.shape == (160, 1)
    assert long(anomalies(root=str(tmp_path / "whole.csv"))).parts == (80, 0, 80)
    torch.manual_seed(0)
    found = evaluate_anomalies(judged(source, ts2vec_encoder(1, 16, 16, 3)), padding=20)
    assert found["recall"] == 100 and found["f1"] > 50
    with pytest.raises(ConfigError, match="data.source.label=odd: .* has no such column"):
        anomalies(label="odd", root=str(tmp_path))
    (tmp_path / "s_TEST.csv").unlink()
    with pytest.raises(ConfigError, match=r"wanted \*_TRAIN.csv and \*_TEST.csv in it; one of them is not there"):
        anomalies(root=str(tmp_path))
