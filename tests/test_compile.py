"""What is done to a method before it trains: memory layout, and compilation with the same numbers up to rounding."""

import csv
from pathlib import Path

import pytest
import torch

from ssl_zoo import worker
from ssl_zoo.worker import prepare
from tests.helpers import tiny_batch, tiny_config, tiny_method, train_step, view_sizes


def test_what_a_graph_writes_into_is_given_out_as_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    method, kept = tiny_method("byol"), torch.zeros(2, 3)
    options = []

    def compile(net: torch.nn.Module, **given: object) -> None:
        options.append(given)
        net._compiled_call_impl = lambda x: (kept.fill_(float(x)), {"patches": kept})

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    prepare(method, torch.device("cuda"), "graphs")
    assert options == [{"dynamic": False, "mode": "reduce-overhead"}] * 2  # the backbone and the teacher
    h, more = method.backbone(torch.tensor(1.0))
    method.backbone(torch.tensor(2.0))
    assert h.eq(1).all() and more["patches"].eq(1).all() and kept.eq(2).all()
    options.clear()
    prepare(method, torch.device("cpu"), "graphs")
    assert options == [{"dynamic": False}] * 2


@pytest.mark.parametrize(
    ("layer", "safe"),
    [
        (torch.nn.Conv2d(4, 8, 1, stride=2), False),
        (torch.nn.Conv2d(16, 16, 1, stride=2, groups=4), False),
        (torch.nn.Conv2d(8, 8, 1, stride=2), True),
        (torch.nn.Conv2d(3, 8, 1), True),
        (torch.nn.Conv2d(3, 8, 3, stride=2), True),
    ],
)
def test_networks_are_channels_last_but_where_torch_corrupts_the_heap(layer: torch.nn.Conv2d, safe: bool) -> None:
    method = tiny_method("simclr", ["backbone.width=8"])
    method.backbone.last = layer
    weights = [p for p in method.parameters() if p.dim() == 4]
    prepare(method, torch.device("cpu"), False)
    assert {p.is_contiguous(memory_format=torch.channels_last) for p in weights if p[0, 0].numel() > 1} == {safe}
    prepare(method, torch.device("cuda"), False)  # moves nothing, only the layout
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["byol", "moco_v2", "simclr"])
def test_compiled_networks_train_like_eager_ones(name):
    found = {}
    for compiled in (False, True):
        method = tiny_method(name)
        names = list(method.state_dict())
        prepare(method, torch.device("cpu"), compiled)
        steps = [train_step(method, tiny_batch(view_sizes(name), step)) for step in range(2)]
        assert list(method.state_dict()) == names
        found[compiled] = [step["loss"] for step in steps], method.state_dict()
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-4, atol=1e-4)
    for key, value in found[False][1].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[True][1][key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.slow
def test_a_compiled_run_is_compiled_for_its_steps_and_not_for_its_evaluations(tmp_path: Path) -> None:
    """With MoCo's grouped batch norm and sizes left open, as evaluations would leave them, it took over ten minutes."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run = ["data.source.samples=48", "data.source.val_samples=20", "trainer=cpu", "trainer.max_epochs=2",
           "trainer.compile=true", "callbacks=default", "logger=csv"]  # fmt: skip
    cfg = tiny_config("moco_v2", run)
    cfg.run_dir = str(tmp_path)
    worker.run(cfg, tmp_path)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # the backbone and the teacher
    (rows,) = tmp_path.rglob("metrics.csv")
    assert [row["knn/top1"] != "" for row in csv.DictReader(rows.open())].count(True) == 3
