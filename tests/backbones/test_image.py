"""Every named factory: widths, names, sizes, channels, messages."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torchvision import models

from ssl_zoo import config
from ssl_zoo.backbones import base, image
from ssl_zoo.backbones.image import tiny
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.backbones.image.selective import resnet_sk
from ssl_zoo.errors import ConfigError
from ssl_zoo.signatures import locate, problems
from tests.helpers import of_images, quickly

CONF = Path(__file__).parents[2] / "conf" / "backbone"
FILES = of_images("backbone")
SMALL = {"image_size": 32, "stem": "small"}
# factory, features, parameters (SimCLR's 2x: Table 1 of SimCLR v2 says 94 M), smallest side with the small stem
NAMED = [
    (tiny.resnet8, 128, 307_360, 4),
    (tiny.vit_mini, 128, 808_064, 4),
    (image.resnet18, 512, 11_168_832, 8),
    (image.resnet50, 2048, 23_500_352, 8),
    (image.resnet50x2, 4096, 93_891_712, 8),
    (image.vit_tiny, 192, 5_360_832, 4),
    (image.vit_small, 384, 21_338_496, 4),
    (image.vit_base, 768, 85_144_320, 4),
    (image.convnext_tiny, 768, 27_815_808, 8),
    (image.swin_tiny, 768, 27_498_474, 8),
]
CHEAP = [tiny.resnet8, tiny.vit_mini, image.resnet18, image.vit_tiny]
IDS = [factory.__name__ for factory, *_ in NAMED]


@pytest.mark.parametrize(("factory", "features", "parameters", "min_size"), NAMED, ids=IDS)
def test_named_networks_have_their_width_size_and_parameters(factory, features, parameters, min_size):
    with torch.device("meta"):
        backbone = factory(**SMALL)
        out = backbone(torch.empty(2, 3, 32, 32))
    assert out.shape == (2, features) and backbone.out_features == features
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.min_size == min_size


@pytest.mark.parametrize(("factory", "features"), [row[:2] for row in NAMED], ids=IDS)
def test_standard_stems_take_224_pixels_and_no_less_than_one_position(factory, features):
    with torch.device("meta"):
        backbone = factory(image_size=224, stem="standard")
        assert backbone(torch.empty(2, 3, 224, 224)).shape == (2, features)
        assert backbone.min_size == {tiny.resnet8: 16}.get(factory, 32 if backbone.has_maps else 16)


@pytest.mark.parametrize("factory", CHEAP)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(factory, channels, views):
    backbone = factory(in_channels=channels, **SMALL)
    assert backbone(views(32, channels)).shape == (2, backbone.out_features)
    with pytest.raises(ConfigError, match=rf"shape \[2, 3, 32, 32\], wanted \[B, {channels}, H, W\].*in_channels"):
        backbone(views(32, 3))


def test_torchvision_input_convolution_keeps_its_stride_in_other_channels():
    backbone = image.resnet18(in_channels=1)
    assert backbone.net.conv1.weight.shape == (64, 1, 7, 7) and backbone.net.conv1.stride == (2, 2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_state_names_are_torchvisions_and_timms(name):
    with torch.device("meta"):
        ours = {k: v.shape for k, v in getattr(image, name)().net.state_dict().items()}
        theirs = models.get_model(name).state_dict()
        timms = timm.create_model(name, num_classes=0).state_dict()
    assert ours == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}
    assert ours == {k: v.shape for k, v in timms.items()}


@pytest.mark.parametrize("factory", [image.vit_tiny, image.vit_small, image.vit_base, image.convnext_tiny])
def test_timm_state_names_are_timms(factory):
    with torch.device("meta"):
        backbone = factory()
        theirs = timm.create_model(backbone.origin.name, num_classes=0).state_dict()
    assert {k: v.shape for k, v in backbone.net.state_dict().items()} == {k: v.shape for k, v in theirs.items()}


def test_features_equal_torchvisions_network(views):
    backbone = image.resnet18(image_size=64).eval()
    theirs = models.resnet18().eval()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(backbone.net.state_dict())
    assert torch.equal(backbone(views(64)), theirs(views(64)))


@pytest.mark.parametrize(
    ("block", "name", "depths"), [("BasicBlock", "resnet18", (2, 2, 2, 2)), ("Bottleneck", "resnet50", (3, 4, 6, 3))]
)
def test_own_resnet_at_width_64_is_torchvisions(block, name, depths, views):
    ours = ResNet(getattr(models.resnet, block), depths).eval()
    theirs = models.get_model(name).eval()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(views(32)), theirs(views(32)))


def test_origin_builds_the_network_again(views):
    for factory in (image.vit_tiny, image.convnext_tiny):
        origin = factory(**SMALL).origin
        with torch.device("meta"):
            again = timm.create_model(origin.name, **origin.arguments)
            assert again.state_dict().keys() == factory(**SMALL).net.state_dict().keys()
    origin = tiny.resnet8(width=16).origin
    assert origin.library == "ssl_zoo" and origin.name == "ssl_zoo.backbones.image.tiny.resnet8"
    assert tiny.resnet8(**origin.arguments).out_features == 64


def test_residual_branches_start_at_zero_unless_told():
    last = {zero: image.resnet18(**SMALL, zero_init_residual=zero).net.layer4[1].bn2.weight for zero in (True, False)}
    assert last[True].abs().sum() == 0 and last[False].sum() == 512
    assert tiny.resnet8().net.layer3[0].bn2.weight.abs().sum() == 0
    assert tiny.resnet8(zero_init_residual=False).net.layer3[0].bn2.weight.sum() == 128


@pytest.mark.parametrize(
    ("uniform", "wanted"), [(False, [0.0, 0.1, 0.2, 0.3]), (True, [0.3] * 4)], ids=["growing", "uniform"]
)
def test_stochastic_depth_grows_with_the_blocks_or_is_the_same_in_all(uniform, wanted):
    blocks = tiny.vit_mini(**SMALL, drop_path_rate=0.3, drop_path_uniform=uniform).net.blocks
    for part in ("drop_path1", "drop_path2"):
        rates = [getattr(getattr(block, part), "drop_prob", 0.0) for block in blocks]
        assert rates == pytest.approx(wanted)


def test_uniform_stochastic_depth_is_of_vision_transformers_only():
    message = "backbone.drop_path_uniform=true of 'convnext_tiny': only timm's plain vision transformers have it"
    with pytest.raises(ConfigError, match=message):
        image.convnext_tiny(**SMALL, drop_path_uniform=True)


def test_small_stem_keeps_the_resolution(views):
    backbone = image.resnet18(**SMALL)
    assert [m.shape[-1] for m in backbone.forward_maps(views(32))] == [32, 16, 8, 4]
    assert isinstance(backbone.net.maxpool, torch.nn.Identity) and backbone.net.conv1.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenetv3_small_050", 64),
        ("regnety_002", 64),
        ("resnet18d", 64),
        ("swin_tiny_patch4_window7_224", 64),
        ("mixer_s32_224", 64),
        ("vgg11", 64),
        ("deit_tiny_distilled_patch16_224", 64),
    ],
)
def test_generic_timm_networks(name, size):
    with torch.device("meta"):
        backbone = image.timm_model(name, in_channels=1, image_size=size).eval()
        assert backbone(torch.empty(2, 1, size, size)).shape == (2, backbone.out_features)
        assert backbone.has_maps and backbone.forward_maps(torch.empty(2, 1, size, size))[-1].ndim == 4


@pytest.mark.parametrize("name", ["convnext_tiny", "mobilenet_v3_small", "vit_b_32", "densenet121", "swin_t"])
def test_generic_torchvision_networks(name):
    with torch.device("meta"):
        backbone = image.torchvision_model(name, in_channels=4, image_size=64)
        assert backbone(torch.empty(2, 4, 64, 64)).shape == (2, backbone.out_features)


def test_a_network_of_one_size_says_so():
    with torch.device("meta"):
        for backbone in (
            image.torchvision_model("vit_b_32", image_size=64),
            image.timm_model("mixer_s32_224", image_size=64),
        ):
            with pytest.raises(ConfigError, match=r"got 96 x 96 px, but it takes only .* 64 x 64; set data.im"):
                backbone(torch.empty(2, 3, 96, 96))


def test_too_small_images_name_got_wanted_and_the_option():
    with pytest.raises(ConfigError) as error:
        image.resnet18(image_size=28)
    assert str(error.value) == (
        "backbone 'resnet18' got 28 x 28 px, wanted at least 32 x 32; set data.image_size=32 or more "
        "(or backbone.stem=small), and local crops to no less"
    )
    with pytest.raises(ConfigError, match=r"'resnet8' got 3 x 5 px, wanted at least 4 x 4; set data.image_size=4 or"):
        tiny.resnet8()(torch.rand(2, 3, 3, 5))


def test_sizes_that_patches_do_not_divide():
    with pytest.raises(ConfigError, match=r"got 30 x 32 px, wanted a multiple of its patch of 4 px.* to 28 or 32"):
        tiny.vit_mini()(torch.rand(2, 3, 30, 32))
    with pytest.raises(ConfigError, match=r"which 28 px do not divide into; set data.image_size=24 or 32"):
        tiny.vit_mini(image_size=28)


def test_wrong_names_offer_the_nearest():
    with pytest.raises(ConfigError, match="timm has no such network; did you mean 'resnet50'"):
        image.timm_model("resnet-50")
    with pytest.raises(ConfigError, match="torchvision has no such network; did you mean 'resnet101'"):
        image.torchvision_model("resnet_101")
    with pytest.raises(ConfigError, match=r"backbone.stem=smal: did you mean 'small'\?"):
        image.resnet18(stem="smal")


def test_wrong_arguments_and_stems_are_config_errors():
    with pytest.raises(ConfigError, match="'vit_tiny_patch16_224' does not take these arguments.*dropp_path"):
        image.vit_tiny(dropp_path=0.1)
    for build in (image.timm_model, image.torchvision_model):
        with pytest.raises(ConfigError, match=r"stem=small is not defined for 'densenet121'.*backbone.stem=standard"):
            build("densenet121", image_size=32, stem="small")
    with pytest.raises(ConfigError, match="several convolutions"):
        image.timm_model("resnet18d", image_size=32, stem="small")
    with pytest.raises(ConfigError, match="'squeezenet1_0' has no linear classifier"):
        image.torchvision_model("squeezenet1_0")
    with pytest.raises(ConfigError, match="does not take these arguments.*dim should be divisible by num_heads"):
        tiny.vit_mini(embed_dim=30, num_heads=4)


def test_a_padded_stem_widens_the_maps_of_a_resnet() -> None:
    net = image.resnet18(image_size=32, stem="small_padded").net
    plain = image.resnet18(image_size=32, stem="small").net
    plain.conv1.load_state_dict(net.conv1.state_dict())
    x = torch.rand(2, 3, 32, 32)
    wide = net.conv1(x)
    assert wide.shape == (2, 64, 34, 34) and isinstance(net.maxpool, torch.nn.Identity)
    torch.testing.assert_close(wide[:, :, 1:-1, 1:-1], plain.conv1(x))
    assert image.timm_model("resnet18", image_size=32, stem="small_padded").net.conv1.padding == (2, 2)
    assert tiny.resnet8(stem="small_padded").net.conv1.padding == (2, 2)


def test_a_padded_stem_is_a_resnets() -> None:
    told = "backbone.stem=small_padded pads the first convolution of a plain ResNet, which '{}' is not"
    with pytest.raises(ConfigError, match=told.format("vit_tiny_patch16_224")):
        image.vit_tiny(image_size=32, stem="small_padded")
    with pytest.raises(ConfigError, match=told.format("resnet_sk")):
        resnet_sk(image_size=32, stem="small_padded")


def test_unsupported_calls_name_those_that_have_it(views):
    vit, resnet = tiny.vit_mini(), tiny.resnet8()
    assert (vit.has_maps, vit.has_tokens, resnet.has_maps, resnet.has_tokens) == (False, True, True, False)
    with pytest.raises(ConfigError, match="'vit_tiny_patch16_224' has no feature maps; these have: resnet8, resnet18"):
        vit.forward_maps(views(32))
    with pytest.raises(ConfigError, match="has no stages; these have: resnet8"):
        vit.stages()
    with pytest.raises(ConfigError, match="'resnet8' has no tokens; these have: vit_mini, vit_tiny"):
        resnet.forward_tokens(views(32))


def test_the_lists_in_messages_are_right():
    with torch.device("meta"):
        built = {factory.__name__: factory(**SMALL) for factory, *_ in NAMED}
    assert sorted(name for name, b in built.items() if b.has_maps) == sorted(base.STAGED.split(", "))
    assert sorted(name for name, b in built.items() if b.has_tokens) == sorted(
        name for name in base.WITH_TOKENS.split(", ") if not name.startswith("other ")
    )


@pytest.mark.parametrize("name", quickly(FILES, FILES[::4]))
def test_yaml_lists_every_scalar_argument(name):
    values = OmegaConf.to_container(config.load([f"backbone={name}"]).backbone, resolve=False)
    factory = locate(values["_target_"])
    wanted = {p.name for p in inspect.signature(factory).parameters.values() if p.kind is not p.VAR_KEYWORD}
    assert wanted - values.keys() == set()
    assert values["in_channels"] == "${data.channels}" and values["image_size"] == "${data.image_size}"
    assert values["weights"] is None
    if "stem" in wanted:
        assert values["stem"] == "${scale.stem}"
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")


def test_there_is_a_yaml_for_every_named_factory():
    assert set(IDS) | {"timm", "torchvision"} <= {path.stem for path in CONF.glob("*.yaml")}


def test_a_network_whose_pooling_leaves_nothing_of_a_small_image_says_so():
    with pytest.raises(ConfigError, match=r"name=alexnet: cannot take images of 32 pixels \(.*; set a larger"):
        image.torchvision_model("alexnet", image_size=32)
    net = image.torchvision_model("alexnet", image_size=64)
    assert net.training and net(torch.zeros(2, 3, 64, 64)).shape == (2, net.out_features)


def test_a_last_stage_may_keep_the_size_of_its_map():
    with torch.device("meta"):
        maps = [
            image.resnet50(image_size=[64, 32], last_stride=s).forward_maps(torch.empty(1, 3, 64, 32))
            for s in (None, 1)
        ]
    assert [[tuple(x.shape[2:]) for x in found][-2:] for found in maps] == [[(4, 2), (2, 1)], [(4, 2), (4, 2)]]


def test_networks_take_rectangles_or_say_so():
    with torch.device("meta"):
        assert tiny.resnet8(image_size=[32, 16], width=4)(torch.empty(1, 3, 32, 16)).shape == (1, 16)
        net = tiny.vit_mini(image_size=[32, 16], embed_dim=16, depth=1, num_heads=2)
        assert net(torch.empty(1, 3, 32, 16)).shape == (1, 16)
    with pytest.raises(ConfigError, match="backbone.name=vit_b_16 takes square images only; set data.image_size=64"):
        image.torchvision_model("vit_b_16", image_size=[64, 32])
    given = config.plain(config.load(["backbone=amdim_encoder", "data.image_size=[32,16]"]))
    assert any("backbone.image_size=[32, 16]: amdim_encoder wants a whole number" in line for line in problems(given))
