from functools import partial

import pytest
import timm
import torch
from hydra.utils import instantiate
from torch import nn
from torchvision import models

from ssl_zoo import config
from ssl_zoo.optim.layer_decay import layer_ids, layer_scales
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Progress, WarmupCosine

MIDDLE = Progress(step=50, total=100, steps_per_epoch=10)


def ids_of(net, prefix=""):
    names = [prefix + name for name, _ in net.named_parameters()]
    ids, last = layer_ids(names)
    return dict(zip(names, ids, strict=True)), last


def test_layers_of_timms_vit():
    net = timm.create_model("vit_tiny_patch16_224", depth=3, embed_dim=12, num_heads=2, num_classes=2)
    ids, last = ids_of(net, "backbone.net.")
    assert last == 4
    assert {ids[f"backbone.net.{name}"] for name in ("cls_token", "pos_embed", "patch_embed.proj.bias")} == {0}
    assert [ids[f"backbone.net.blocks.{i}.attn.qkv.weight"] for i in range(3)] == [1, 2, 3]
    assert ids["backbone.net.norm.weight"] == ids["backbone.net.head.weight"] == 4


@pytest.mark.parametrize(
    ("build", "stem", "blocks", "between", "rest"),
    [
        (partial(timm.create_model, "resnet18"), "conv1.weight", "layer3.1.conv2.weight",
         "layer2.0.downsample.0.weight", "fc.weight"),
        (models.resnet18, "bn1.weight", "layer3.1.bn1.weight", "layer2.0.downsample.1.bias", "fc.bias"),
        (partial(timm.create_model, "convnext_atto", depths=(2, 2, 2, 2)), "stem.0.weight",
         "stages.2.blocks.1.conv_dw.weight", "stages.1.downsample.1.weight", "head.fc.weight"),
        (partial(timm.create_model, "swin_tiny_patch4_window7_224", depths=(2, 2, 2, 2)), "patch_embed.norm.bias",
         "layers.2.blocks.1.attn.qkv.weight", "layers.1.downsample.reduction.weight", "head.fc.weight"),
        (models.convnext_tiny, "features.0.0.weight", None, "features.2.1.weight", "classifier.2.weight"),
    ],
)  # fmt: skip
def test_layers_of_networks_with_stages(build, stem, blocks, between, rest):
    with torch.device("meta"):
        ids, last = ids_of(build())
    assert (ids[stem], ids[rest]) == (0, last)
    if blocks:  # two blocks a stage: block 1 of the third stage is the sixth, and the second stage begins at the third
        assert (last, ids[blocks], ids[between]) == (9, 6, 3)
    else:  # ConvNeXt-T: 3, 3, 9 and 3 blocks
        assert (last, ids[between], ids["features.3.0.layer_scale"], ids["features.7.2.layer_scale"]) == (19, 4, 4, 18)


def test_layers_of_torchvisions_vit():
    with torch.device("meta"):
        ids, last = ids_of(models.vit_b_16())
    assert (ids["class_token"], ids["encoder.pos_embedding"], ids["conv_proj.weight"], last) == (0, 0, 0, 13)
    assert (ids["encoder.layers.encoder_layer_4.ln_1.weight"], ids["encoder.ln.weight"]) == (5, 13)


def test_a_decoder_and_a_teacher_are_no_layers_of_the_backbone():
    names = ["backbone.net.blocks.0.a", "decoder.blocks.0.a", "predictor.layers.0.a", "teacher.net.0.net.blocks.0.a"]
    assert layer_ids(names) == ([1, 2, 2, 2], 2)


def small_vit():
    return nn.ModuleDict(
        {
            "backbone": timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=8, num_heads=2, num_classes=0),
            "head": nn.Linear(8, 3),
        }
    )


def bind(decay, rules=None, module=None):
    values = {"lr": WarmupCosine(1.0), "weight_decay": 0.1}
    recipe = OptimizerRecipe(partial(torch.optim.AdamW), values, rules or {}, "absolute", decay)
    module = module or small_vit()
    return recipe.bind(module.named_parameters(), 256), module


def test_it_multiplies_rates_and_leaves_the_rules_their_weight_decay():
    rules = {
        "patches": {"match": r"patch_embed\.proj\.weight", "lr_factor": 0.2},  # DINOv2
        "biases_and_norms": {"ndim_at_most": 1, "weight_decay": 0.0},
    }
    bound, module = bind(0.5, rules)
    bound.apply(MIDDLE)  # cosine: half way
    found = {id(p): group for group in bound.optimizer.param_groups for p in group["params"]}
    rates = {name: (found[id(p)]["lr"], found[id(p)]["weight_decay"]) for name, p in module.named_parameters()}
    assert len(found) == len(rates)
    assert rates["head.weight"] == pytest.approx((0.5, 0.1))
    assert rates["head.bias"] == rates["backbone.norm.weight"] == pytest.approx((0.5, 0.0))
    assert rates["backbone.blocks.1.attn.qkv.weight"] == pytest.approx((0.25, 0.1))
    assert rates["backbone.blocks.0.attn.qkv.bias"] == pytest.approx((0.125, 0.0))
    assert rates["backbone.pos_embed"] == rates["backbone.cls_token"] == pytest.approx((0.0625, 0.1))
    assert rates["backbone.patch_embed.proj.weight"] == pytest.approx((0.0125, 0.1))
    assert bound.lr(MIDDLE) == 0.5  # what is told of the run is the rate of the last layer
    names = [group["name"] for group in bound.optimizer.param_groups]
    assert names[:3] == ["default", "default x 0.5", "default x 0.25"] and len(set(names)) == len(names)


def test_frozen_blocks_still_count():
    module = small_vit()
    module["backbone"].blocks[0].requires_grad_(False)
    bound, _ = bind(0.5, module=module)
    assert [group.options["lr"].peak for group in bound.groups] == [1.0, 0.5, 0.125]


def test_without_it_nothing_changes():
    (one, _), (none, _) = bind(1.0), bind(None)
    assert [len(bound.groups) for bound in (one, none)] == [1, 1]


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
def test_a_decay_out_of_range_is_told(decay):
    with pytest.raises(ValueError, match=f"optimizer.layer_decay={decay} must be above 0 and at most 1"):
        OptimizerRecipe(torch.optim.SGD, {"lr": 1.0}, layer_decay=decay)


def test_a_network_without_known_layers_is_told():
    with pytest.raises(ValueError, match="none of 2 parameters is of one; their names look like: 0.weight"):
        layer_scales(["0.weight", "0.bias"], 0.75)


def test_it_is_an_option_of_the_command_line():
    cfg = config.load(["method=moco_v3", "backbone=vit_mini", "optimizer=moco_v3_vit", "optimizer.layer_decay=0.75"])
    assert instantiate(cfg.optimizer).layer_decay == 0.75
