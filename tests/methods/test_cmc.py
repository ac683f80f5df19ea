"""CMC: towers on channels, the graph of views, and the features that are evaluated."""

import json
from pathlib import Path

import pytest
import torch

from ssl_zoo.backbones.image.tiny import resnet8
from ssl_zoo.backbones.image.towers import Towers
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.cmc import directions
from tests.cli.test_runs import run
from tests.helpers import tiny_batch, tiny_method


def test_each_tower_sees_its_channels_with_the_weights_of_the_given_network():
    network = resnet8(width=4).eval()
    both = Towers(network, [[0], [1, 2]]).eval()
    view = torch.randn(3, 3, 16, 16)
    out = both(view)
    assert out.shape == (3, 2 * network.out_features) and both.out_features == out.shape[1]
    for part, group in zip(out.chunk(2, 1), ([0], [1, 2]), strict=True):
        only = torch.zeros_like(view)
        only[:, group] = view[:, group]
        torch.testing.assert_close(part, network(only))  # the other channels add nothing to a convolution
    assert network.net.conv1.in_channels == 3
    assert [name for name in both.state_dict() if name.endswith("conv1.weight") and "layer" not in name] == [
        "net.towers.0.conv1.weight", "net.towers.1.conv1.weight"]


@pytest.mark.parametrize("name", ["cmc", "cmc_v2"])
def test_towers_have_draws_of_their_own(name):
    method = tiny_method(name)
    one, other = (net.layer1[0].conv1.weight for net in method.backbone.net.towers)
    assert one.shape == other.shape and not (one == other).any()
    assert one.std().item() == pytest.approx(other.std().item(), rel=0.2)


@pytest.mark.parametrize("channels", [[[0], [1, 3]], [[0, 1, 2]], [[], [1]]])
def test_channels_that_the_views_do_not_have_are_refused(channels):
    with pytest.raises(ConfigError, match=r"method.channels=.*: wanted two lists or more of channels 0 to 2"):
        Towers(resnet8(width=4), channels)


def test_core_pairs_the_first_view_with_the_others_and_full_all_of_them():
    assert directions(3, "core") == [(0, 1), (0, 2), (1, 0), (2, 0)]
    assert directions(3, "full") == [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)]
    with pytest.raises(ValueError, match="graph=cor: did you mean 'core'"):
        directions(3, "cor")  # type: ignore[arg-type]


@pytest.mark.parametrize(("graph", "terms"), [("core", 4), ("full", 6)])
def test_three_views_have_a_bank_each_and_the_sum_of_their_terms(graph, terms):
    method = tiny_method("cmc", [f"method.graph={graph}", "method.channels=[[0],[1],[2]]", "method.loss=nce"])
    out = method.training_loss(tiny_batch([16]))
    parts = [value for name, value in out.items() if name.startswith("view")]
    assert len(parts) == terms == len(method.contrasts) and len(method.banks) == 3
    torch.testing.assert_close(out["loss"], sum(parts))
    assert out["features"].shape == (8, 3 * 32)
    method.on_after_backward()
    assert not torch.equal(method.banks[0].keys, method.banks[1].keys)


def test_what_is_evaluated_are_all_towers_side_by_side():
    method = tiny_method("cmc_v2")
    view = torch.randn(2, 3, 16, 16)
    assert method.eval().embed(view).shape == (2, 2 * 32)
    assert method.encoder is method.backbone


@pytest.mark.slow
def test_a_run_is_evaluated_and_exported(tmp_path: Path):
    words = ["method=cmc", "data=synthetic", "data.image_size=16", "data.source.samples=256", "data.batch_size=64"]
    words += ["backbone.width=4", "trainer=cpu", "trainer.max_epochs=1", "logger=csv", "hydra.run.dir=run"]
    done = run("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/views.png").is_file()
    done = run("evaluate.py", "checkpoint=run", "protocol=knn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/evaluation/knn.json").read_text())["features"] == 32
    from ssl_zoo.export import export

    file = export(tmp_path / "run")  # a fresh process computes the same features
    card = json.loads(file.with_suffix(".json").read_text())
    assert "towers(resnet8(" in card["load"] and card["features"] == 32
