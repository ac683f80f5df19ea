"""Pictures of time series and their views."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ssl_zoo import build, config
from ssl_zoo.report.series import grid
from ssl_zoo.report.views import draw_views


def test_a_row_for_each_series_and_a_column_for_each_view() -> None:
    series = torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0))
    figure = grid([series, series * 2], ["original", "view 0"])
    assert len(figure.axes) == 6 and [len(axis.lines) for axis in figure.axes] == [3] * 6
    lines = [axis.lines[1].get_ydata().tolist() for axis in figure.axes[:2]]  # of channel 1
    assert lines == [series[0, :, 1].tolist(), (2 * series[0, :, 1]).tolist()]
    assert figure.get_supxlabel() == "channels 0 to 2 of 5"


def test_the_views_of_a_configuration_are_drawn(tmp_path: Path) -> None:
    data = build.build_data(config.load(["method=ts_tcc", "data=synthetic_series"]))
    path = draw_views(data, tmp_path / "new" / "views.png")
    assert path is not None
    with Image.open(path) as image:
        assert image.size == (3 * 260, 6 * 110 + 40)
