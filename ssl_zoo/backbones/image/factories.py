"""Image networks by name. Every keyword argument is a key of ``conf/backbone/*.yaml``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, cast

from torch import nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged, TimmMaps, split
from ssl_zoo.backbones.image.relative import use_relative
from ssl_zoo.backbones.image.resnet import ResNet, use_small_stem
from ssl_zoo.backbones.image.starts import STARTS
from ssl_zoo.backbones.image.surgery import check_size, drop_classifier, keep_last_size, replace_input
from ssl_zoo.backbones.image.vision_transformer import (
    INTERPOLATIONS,
    ViT,
    freeze_patches,
    use_interpolation,
    use_sincos,
    use_uniform_drop_path,
)
from ssl_zoo.backbones.image.windows import Swin, tiling_window
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError, nearest, require
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side, height_width, plain_side

STEMS = ("standard", "small", "small_padded")
PADDINGS = {"small": 1, "small_padded": 2}  # of the 3 x 3 convolution that replaces a ResNet's stem
POSITIONS = ("learned", "sincos", "sincos_mae", "relative")
SMALL_PATCHES = 8  # a small-stem ViT sees 8 x 8 patches


def timm_model(
    name: str,
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    drop_path_uniform: bool = False,
    **arguments: Any,
) -> ImageBackbone:
    """Any network of timm; plain vision transformers have tokens, most others have maps.

    Args:
        name: ``timm.list_models()``.
        in_channels: Channels of the views.
        image_size: Side of the global views (pixels), or their height and width.
        stem: ``small`` for images of about 32 px: ResNet 3 x 3 stride 1 without pooling, ViT patches of
            ``image_size / 8`` (the shorter side's), ConvNeXt and Swin patches of 1 (as much work as a small-stem
            ResNet-50). ``small_padded``: that of a ResNet with two pixels of padding (solo-learn's CIFAR runs).
        weights: null, ``timm:NAME``, ``torchvision:NAME`` or a file.
        drop_path_uniform: ``drop_path_rate`` is that of all blocks of a vision transformer (DINOv2), not of the last.
        **arguments: timm's own, for example ``drop_path_rate=0.1``. With ``num_classes=512`` the features are those of
            a linear layer of that width behind the network (LeJEPA's MINIMAL.md); tokens and maps are not to be had.

    Raises:
        ConfigError: Unknown name, argument or stem, or a size or weights that do not suit the network.
    """
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"backbone.name={name}: timm has no such network; {nearest(name, timm.list_models())}")
    kind, accepted = _signature(timm.model_entrypoint(name))
    options = {"num_classes": 0, "in_chans": in_channels}
    if "img_size" in accepted:
        options["img_size"] = plain_side(image_size)
    if "dynamic_img_size" in accepted:
        options["dynamic_img_size"] = True  # crops of several sizes in one batch
    if _wants_small(stem):
        options.update(_small_timm(kind, name, image_size, stem))
    options.update(arguments)
    net = _build(timm.create_model, name, options)
    if drop_path_uniform:
        _check_uniform(net, name)
        use_uniform_drop_path(net, options.get("drop_path_rate", 0.0))
    origin = Origin("timm", name, options, in_channels, stem)
    reduction = max(info["reduction"] for info in net.feature_info) if getattr(net, "feature_info", None) else 32
    if _wants_small(stem) and kind is timm.models.ResNet:
        use_small_stem(net, name, PADDINGS[stem])
        reduction //= 4
    embedding = options["num_classes"]
    backbone = (ImageBackbone if embedding else _timm_wrapper(net))(
        net,
        origin,
        out_features=embedding or net.head_hidden_size,
        image_size=image_size,
        min_size=reduction,
        classifier=() if embedding else _names(net.pretrained_cfg.get("classifier")),
        **_timm_sizes(net, image_size),
    )
    return _started(backbone, weights)


def torchvision_model(
    name: str,
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    **arguments: Any,
) -> ImageBackbone:
    """Any classification network of torchvision without its last linear layer; arguments as in :func:`timm_model`."""
    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"backbone.name={name}: torchvision has no such network; {nearest(name, known)}")
    kind, accepted = _signature(models.get_model_builder(name))
    if "image_size" in accepted and not isinstance(image_size, int):
        raise ConfigError(f"backbone.name={name} takes square images only; set data.image_size={max(image_size)}")
    options = {"image_size": image_size} if "image_size" in accepted else {}
    options.update(arguments)
    net = _build(models.get_model, name, options)
    classifier, out_features = drop_classifier(net, name)
    if in_channels != 3:
        replace_input(net, in_channels)
    reduction = getattr(net, "patch_size", 32)
    if _wants_small(stem):
        if kind is not models.ResNet:
            raise _no_small_stem(name)
        use_small_stem(net, name, PADDINGS[stem])
        reduction //= 4
    if split(net) is None and not hasattr(net, "image_size"):
        check_size(net, name, in_channels, image_size)
    backbone = (ImageBackbone if split(net) is None else Staged)(
        net,
        Origin("torchvision", name, options, in_channels, stem),
        out_features=out_features,
        image_size=image_size,
        min_size=reduction,
        fixed_size=getattr(net, "image_size", None),
        classifier=(classifier,),
    )
    return _started(backbone, weights)


def resnet18(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
    **arguments: Any,
) -> ImageBackbone:
    """torchvision's ResNet-18: 512 features."""
    arguments["zero_init_residual"] = zero_init_residual
    return torchvision_model("resnet18", in_channels, image_size, stem, weights, **arguments)


def resnet50(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
    last_stride: Literal[1, 2] | None = None,
    **arguments: Any,
) -> ImageBackbone:
    """torchvision's ResNet-50: 2048 features.

    Args:
        last_stride: 1: the last stage does not halve the map (re-identification); None: 2.
    """
    arguments["zero_init_residual"] = zero_init_residual
    backbone = torchvision_model("resnet50", in_channels, image_size, stem, weights, **arguments)
    if last_stride == 1:
        keep_last_size(backbone.net)
    return backbone


def resnet50x2(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
) -> ImageBackbone:
    """SimCLR's ResNet-50 (2x), every width doubled: 4096 features. Not the libraries' ``wide_resnet50_2``."""
    net = ResNet(Bottleneck, (3, 4, 6, 3), 128, in_channels, zero_init_residual)
    arguments = {"in_channels": in_channels, "image_size": image_size, "stem": stem}
    origin = Origin("ssl_zoo", f"{__name__}.resnet50x2", arguments, in_channels, stem)
    return own_resnet(net, origin, image_size, weights)


def vit_tiny(
    in_channels: Size = 3, image_size: Side = 224, stem: str = "standard", weights: str | None = None, **arguments: Any
) -> ImageBackbone:
    """ViT-Ti/16 of DeiT, https://arxiv.org/abs/2012.12877: 12 blocks, 3 heads, 192 features."""
    return vit("vit_tiny_patch16_224", in_channels, image_size, stem, weights, **arguments)


def vit_small(
    in_channels: Size = 3, image_size: Side = 224, stem: str = "standard", weights: str | None = None, **arguments: Any
) -> ImageBackbone:
    """ViT-S/16 of DeiT and DINO: 12 blocks, 6 heads, 384 features (MoCo v3's ViT-S has 12 heads: num_heads=12)."""
    return vit("vit_small_patch16_224", in_channels, image_size, stem, weights, **arguments)


def vit_base(
    in_channels: Size = 3, image_size: Side = 224, stem: str = "standard", weights: str | None = None, **arguments: Any
) -> ImageBackbone:
    """ViT-B/16, https://arxiv.org/abs/2010.11929: 12 blocks, 12 heads, 768 features."""
    return vit("vit_base_patch16_224", in_channels, image_size, stem, weights, **arguments)


def vit_large(
    in_channels: Size = 3, image_size: Side = 224, stem: str = "standard", weights: str | None = None, **arguments: Any
) -> ImageBackbone:
    """ViT-L/16, https://arxiv.org/abs/2010.11929: 24 blocks, 16 heads, 1024 features."""
    return vit("vit_large_patch16_224", in_channels, image_size, stem, weights, **arguments)


def vit_huge(
    in_channels: Size = 3, image_size: Side = 224, stem: str = "standard", weights: str | None = None, **arguments: Any
) -> ImageBackbone:
    """ViT-H/14, https://arxiv.org/abs/2010.11929: 32 blocks, 16 heads, 1280 features."""
    return vit("vit_huge_patch14_224", in_channels, image_size, stem, weights, **arguments)


def vit(
    name: str,
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    positions: str = "learned",
    start: str = "timm",
    freeze_patch_embed: bool = False,
    interpolation: str = "timm",
    patch_size: Size | None = None,
    **arguments: Any,
) -> ImageBackbone:
    """A plain vision transformer of timm, as in :func:`timm_model`, with the choices of methods' authors.

    Args:
        positions: ``learned``; fixed and not trained: ``sincos`` (MoCo v3), ``sincos_mae`` (MAE and I-JEPA, whose
            first half of the numbers is of the column); ``relative``: none of the patches', a bias of attention that
            all blocks share (SimMIM).
        start: ``timm``: truncated normal weights; of the authors: ``xavier`` (MoCo v3), ``mae``, ``dino`` (and iBOT),
            ``msn``, ``ijepa``, ``beit`` (SimMIM); see :mod:`ssl_zoo.backbones.image.starts`.
        freeze_patch_embed: The patch projection is not trained (MoCo v3, https://arxiv.org/abs/2104.02057, Sec. 4.3).
        interpolation: Of the positions for views of another size: ``timm``: bicubic with anti-aliasing; ``dino``: as
            the authors of DINO, iBOT and DINOv2 do it (:func:`ssl_zoo.backbones.image.vit.bicubic_positions`); ``msn``:
            bicubic without anti-aliasing.
        patch_size: Side of a patch in pixels; None: the name's, or what ``stem`` says.
    """
    choices = (("positions", positions, POSITIONS), ("start", start, STARTS))
    for key, value, known in (*choices, ("interpolation", interpolation, INTERPOLATIONS)):
        require(f"backbone.{key}", value, known, ConfigError)
    if patch_size is not None:
        arguments["patch_size"] = patch_size
    backbone = timm_model(name, in_channels, image_size, stem, None, **arguments)
    STARTS[start](backbone.net)
    if positions == "relative":
        use_relative(backbone.net)
    elif positions != "learned":
        use_sincos(backbone.net, columns_first=positions == "sincos_mae")
    if freeze_patch_embed:
        freeze_patches(backbone.net)
    use_interpolation(backbone.net, interpolation)
    return _started(backbone, weights)


def convnext_tiny(
    in_channels: Size = 3, image_size: Side = 224, stem: str = "standard", weights: str | None = None, **arguments: Any
) -> ImageBackbone:
    """ConvNeXt-T, https://arxiv.org/abs/2201.03545: 768 features."""
    return timm_model("convnext_tiny", in_channels, image_size, stem, weights, **arguments)


def own_resnet(net: ResNet, origin: Origin, image_size: Side, weights: str | None) -> ImageBackbone:
    """Wrap our :class:`ResNet`, with the stem that ``origin`` names."""
    reduction = 2 ** (net.layers + 1)
    if _wants_small(origin.stem):
        use_small_stem(net, origin.name, PADDINGS[origin.stem])
        reduction //= 4
    backbone = Staged(net, origin, net.out_features, image_size, min_size=reduction, classifier=("fc",))
    return _started(backbone, weights)


def _started(backbone: ImageBackbone, weights: str | None) -> ImageBackbone:
    if weights is not None:
        start_from(backbone, weights)
    return backbone


def _signature(factory: Callable[..., Any]) -> tuple[Any, set[str]]:
    """Class that a library's factory says it returns, and the names of its constructor's arguments."""
    kind = inspect.signature(factory).return_annotation
    names: set[str] = set()
    for ancestor in inspect.getmro(kind):  # a constructor of *args and **kwargs passes them on to its parent's
        parameters = inspect.signature(cast(Any, ancestor).__init__).parameters
        names.update(parameters)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return kind, names


def _build(create: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    try:
        return create(name, **options)
    except (TypeError, AssertionError) as error:  # timm asserts that heads divide the width
        raise ConfigError(f"backbone {name!r} does not take these arguments: {options} ({error})") from error


def _wants_small(stem: str) -> bool:
    require("backbone.stem", stem, STEMS, ConfigError)
    return stem in PADDINGS


def _no_small_stem(name: str) -> ConfigError:
    return ConfigError(
        f"backbone.stem=small is not defined for {name!r}, only for ResNets, timm's plain vision transformers, "
        "ConvNeXts and Swins; set backbone.stem=standard"
    )


def no_padded_stem(name: str) -> ConfigError:
    return ConfigError(
        f"backbone.stem=small_padded pads the first convolution of a plain ResNet, which {name!r} is not; set "
        "backbone.stem=small"
    )


def _small_timm(kind: Any, name: str, image_size: Side, stem: str) -> dict[str, int]:
    """timm's own arguments for small images; a ResNet has none, its stem is replaced after building."""
    import timm

    if stem != "small" and kind is not timm.models.ResNet:
        raise no_padded_stem(name)
    if issubclass(kind, (timm.models.VisionTransformer, timm.models.Eva)):
        shorter, longer = sorted(height_width(image_size))
        if shorter % SMALL_PATCHES:
            below = max(shorter - shorter % SMALL_PATCHES, SMALL_PATCHES)
            across = SMALL_PATCHES if shorter == longer else "more"
            raise ConfigError(
                f"backbone {name!r} with stem=small has {SMALL_PATCHES} x {across} patches, which {shorter} px do not "
                f"divide into; set data.image_size={below} or {below + SMALL_PATCHES}"
            )
        return {"patch_size": shorter // SMALL_PATCHES}
    if kind is timm.models.SwinTransformer:
        return {"patch_size": 1, "window_size": tiling_window(image_size, 1)}
    if issubclass(kind, timm.models.ConvNeXt):
        return {"patch_size": 1}  # timm gives a stem of stride 2 a second reduction, which would end at 1 x 1
    if kind is timm.models.ResNet:
        return {}
    raise _no_small_stem(name)


def _check_uniform(net: nn.Module, name: str) -> None:
    from timm.models import VisionTransformer

    if type(net) is not VisionTransformer:
        raise ConfigError(
            f"backbone.drop_path_uniform=true of {name!r}: only timm's plain vision transformers have it; set it to "
            "false, and backbone.drop_path_rate to what the last block should have"
        )


def _timm_wrapper(net: nn.Module) -> type[ImageBackbone]:
    import timm

    if type(net) is timm.models.VisionTransformer:  # subclasses (distilled) embed other tokens
        return ViT
    if type(net) is timm.models.SwinTransformer:
        return Swin
    if split(net) is not None:
        return Staged
    return TimmMaps if hasattr(net, "forward_intermediates") else ImageBackbone


def _timm_sizes(net: nn.Module, image_size: Side) -> dict[str, Any]:
    """Which sizes a network with patches takes: multiples of the patch, or the one it was built for."""
    from timm.layers import PatchEmbed

    patch = next((module for module in net.modules() if isinstance(module, PatchEmbed)), None)
    if patch is None or patch.img_size is None:
        return {}
    if patch.strict_img_size:
        return {"fixed_size": image_size}
    return {"size_step": 1 if patch.dynamic_img_pad else patch.patch_size[0]}


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
