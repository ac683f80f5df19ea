"""Which layer of an encoder is judged: by number, during training and afterwards, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssl_zoo import cli, config, worker
from ssl_zoo.backbones.graph.isomorphism import gin
from ssl_zoo.backbones.image import tiny
from ssl_zoo.callbacks.observe import batch_features, forget_validation, validation_features
from ssl_zoo.errors import ConfigError
from ssl_zoo.layers import LayerFeatures, layers_of, read_at
from tests.helpers import TINY, tiny_batch, tiny_method

RUN = [
    *TINY, "method=rotation", "backbone.width=4", "data.source.samples=32", "data.source.val_samples=16",
    "trainer.max_epochs=1", "trainer=cpu", "logger=csv",
]  # fmt: skip


def test_a_layer_is_the_mean_of_its_map_counted_from_either_end():
    backbone, view = tiny.resnet8(width=4).eval(), torch.randn(2, 3, 16, 16)
    maps = backbone.forward_maps(view)
    for layer, place in ((1, 0), (2, 1), (3, 2), (-1, 2), (-3, 0)):
        torch.testing.assert_close(LayerFeatures(backbone, layer).embed(view), maps[place].mean((2, 3)))
    torch.testing.assert_close(LayerFeatures(backbone, -1).embed(view), backbone(view))


def test_a_layer_of_a_transformer_is_the_output_of_one_that_ends_there():
    torch.manual_seed(0)
    backbone, view = tiny.vit_mini(embed_dim=16, depth=3, num_heads=2).eval(), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(LayerFeatures(backbone, 3).embed(view), backbone(view))
    second = backbone.net.get_intermediate_layers(view, n=[1], norm=True, return_prefix_tokens=True)[0][1][:, 0]
    torch.testing.assert_close(LayerFeatures(backbone, 2).embed(view), second)


def test_counting_layers_leaves_modes_and_statistics_as_they_are():
    backbone = tiny.resnet8(width=4)
    backbone.net.layer1.eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    modes = [part.training for part in backbone.modules()]
    assert layers_of(backbone) == 3
    assert [part.training for part in backbone.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("layer", [0, 4, -4, 1.5, True, "last"])
def test_layers_that_there_are_not_are_refused(layer):
    words = rf"layer={layer}: backbone 'resnet8' has the layers 1 to 3, or .* -1 to -3; layer=null judges"
    with pytest.raises(ConfigError, match=words):
        LayerFeatures(tiny.resnet8(width=4), layer)


def test_networks_without_maps_are_refused_with_those_that_have_them():
    words = r"layer \(null judges the method's features\) needs feature maps: backbone 'gin' has no feature maps; these"
    with pytest.raises(ConfigError, match=words):
        LayerFeatures(gin(node_features=3), 1)


def test_observers_read_the_layer_and_keep_one_pass_for_each():
    method, batch = tiny_method("rotation"), tiny_batch([16])
    own = torch.ones(8, 2)
    assert batch_features(method, {"features": own}, batch) is not None
    assert torch.equal(batch_features(method, {"features": own}, batch), own)
    method.eval()
    middle = method.backbone.forward_maps(batch.views[0])[1].mean((2, 3))
    torch.testing.assert_close(batch_features(method, {"features": own}, batch, 2), middle.detach())
    passes = []

    def loader():
        passes.append(1)
        return [(batch.views[0], batch.label, batch.index)]

    trainer = SimpleNamespace(global_step=3, datamodule=SimpleNamespace(val_loader=loader))
    for layer, width in ((2, 16), (2, 16), (None, 32), (None, 32)):
        assert validation_features(trainer, method, layer)[0].shape[1] == width
    assert len(passes) == 2
    forget_validation(method)
    assert read_at(method, None) is method


def test_a_run_and_its_evaluations_judge_the_layer_that_is_asked_for(tmp_path: Path, capsys):
    assert cli.train([*RUN, f"hydra.run.dir={tmp_path}"]) == 0

    def width(*words: str) -> tuple[int, int | None]:
        given = [f"checkpoint={tmp_path}", "protocol=knn", "protocol.k=5", "protocol.also=[]", "device=cpu", *words]
        assert cli.evaluate([*given, f"output={tmp_path / 'knn.json'}"]) == 0
        found = json.loads((tmp_path / "knn.json").read_text())
        return found["features"], found["layer"]

    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    probe = next(state for name, state in checkpoint["callbacks"].items() if name.startswith("OnlineProbe"))
    assert probe["probe"]["weight"].shape == (4, 8)
    assert [width(), width("layer=1"), width("layer=output"), width("layer=-1")] == [
        (8, -2), (4, 1), (16, None), (16, -1)]  # fmt: skip
    capsys.readouterr()
    for words, message in {
        ("layer=4",): "layer=4: backbone 'resnet8' has the layers 1 to 3",
        ("layer=middle",): "layer='middle': wanted a whole number (1 the first, -1 the last), output, or null",
        ("layer=2", "layers=4"): "layer=2 and layers=4: both say what is judged; leave one of them out",
    }.items():
        assert cli.evaluate([f"checkpoint={tmp_path}", "protocol=knn", *words]) == 1
        assert message in capsys.readouterr().err


def test_a_run_with_a_layer_that_there_is_not_ends_before_it_begins():
    with pytest.raises(ConfigError, match="layer=5: backbone 'resnet8' has the layers 1 to 3"):
        worker.build_run(config.load([*RUN, "layer=5"]))
