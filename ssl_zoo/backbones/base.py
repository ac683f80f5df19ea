"""What every encoder offers to methods, evaluation and export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side, height_width

STAGED = "resnet8, resnet18, resnet50, resnet50x2, convnext_tiny"
WITH_STAGES = f"{STAGED}, other ResNets and ConvNeXts of timm and torchvision"
WITH_MAPS = f"{STAGED}, other ResNets and ConvNeXts of torchvision, most networks of timm"
WITH_TOKENS = "vit_mini, vit_tiny, vit_small, vit_base, other plain vision transformers of timm"
WITH_DENSE = f"{WITH_STAGES}, {WITH_TOKENS}"


class Tokens(NamedTuple):
    """Output of a transformer; a named tuple, so that it survives DDP and ``torch.compile``."""

    cls: Tensor | None  # [B, F]; None for a network without class token
    patches: Tensor  # [B, N, F], row by row; [B, K, F] if only K patches were kept
    grid: tuple[int, int]  # rows and columns of the whole view, h * w = N before dropping

    @property
    def features(self) -> Tensor:
        """``[B, F]``: the class token, or the mean of the patches in a network without one."""
        return self.patches.mean(1) if self.cls is None else self.cls


class Attention(NamedTuple):
    """Where the tokens of a transformer's last block look."""

    weights: Tensor  # [B, heads, P + N, P + N], rows sum to 1; P prefix tokens (class, registers), then patches
    prefix: int  # P
    grid: tuple[int, int]  # rows and columns, h * w = N


class Dense(NamedTuple):
    """What a network says of a view as a whole, and of each of its places."""

    pooled: Tensor  # [B, F], the output of ``forward``
    patches: Tensor  # [B, h * w, F], row by row
    grid: tuple[int, int]  # rows and columns


@dataclass(frozen=True)
class Origin:
    """How to build the wrapped network again without ssl_zoo's wrapper; the export card holds it.

    ``timm.create_model(name, **arguments)``, ``torchvision.models.get_model(name, **arguments)`` (then without its
    classifier), or for ``library="ssl_zoo"`` the factory of that dotted name called with the arguments.
    """

    library: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    in_channels: int = 3
    stem: str = "standard"


def _adapt_input(weight: Tensor, channels: int) -> Tensor:
    """``[F, K, h, w]`` of an input convolution -> ``[F, channels, h, w]``, whose outputs are about as large.

    timm's rule for colour, here for any K: one channel gets the sum, more get the K in turn, times ``K / channels``.
    """
    from timm.models import adapt_input_conv

    given = weight.shape[1]
    if given == 3:
        return adapt_input_conv(channels, weight)
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = [i % given for i in range(channels)]
    return weight[:, turns] * (given / channels)


class Backbone(nn.Module):
    """An encoder: ``[B, C, H, W]`` views to ``[B, out_features]``.

    The network itself sits in ``net`` without a classifier, so that ``net.state_dict()`` has the names of the library
    it comes from. This class serves any network; subclasses add maps or tokens.

    Args:
        net: Network that returns ``[B, out_features]``.
        origin: How to build ``net`` again.
        out_features: Width F of the features.
        image_size: Size of the (global) views, checked at once so that a run fails before it starts.
        min_size: Smallest side that leaves at least one position (pixels).
        size_step: The sides of a view must be multiples of this (patch size; 1: any size).
        fixed_size: The only size the network takes, or None.
        classifier: Prefixes under which published weights keep the classifier, which is not loaded.

    Raises:
        ConfigError: If ``image_size`` does not suit the network.
    """

    again: Callable[[], Backbone] | None = None  # builds it once more, without weights; None where nobody knows how
    pretrained = False  # whether it starts from weights
    told: tuple[str, ...] = ()  # what was taken from their file and what was left, a line each

    def __init__(
        self,
        net: nn.Module,
        origin: Origin,
        out_features: int,
        image_size: Side,
        min_size: int,
        size_step: int = 1,
        fixed_size: Side | None = None,
        classifier: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.net = net
        self.origin = origin
        self.out_features = out_features
        self.min_size = min_size
        self.size_step = size_step
        self.fixed_size = fixed_size
        self.classifier = tuple(classifier)
        self._check_size(*height_width(image_size))

    @property
    def name(self) -> str:
        return self.origin.name.rsplit(".", 1)[-1] if self.origin.library == "ssl_zoo" else self.origin.name

    @property
    def has_maps(self) -> bool:
        return False

    @property
    def has_tokens(self) -> bool:
        return False

    @property
    def has_dense(self) -> bool:
        return False

    def forward(self, view: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, F]``."""
        self.check(view)
        return self.net(view)

    def forward_maps(self, view: Tensor) -> list[Tensor]:
        """Feature maps ``[B, C, h, w]``, finest first; the last one is what ``forward`` pools."""
        raise self._unsupported("feature maps", WITH_MAPS)

    def stages(self) -> list[nn.Module]:
        """Parts that, applied one after another to a view, give the maps of :meth:`forward_maps`.

        The modules are the network's own (shared parameters), in new containers.
        """
        raise self._unsupported("stages", WITH_STAGES)

    def forward_tokens(
        self,
        view: Tensor,
        keep: Tensor | None = None,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        layers: int = 1,
    ) -> Tokens:
        """Tokens of a transformer; see :class:`ssl_zoo.backbones.vit.ViT`."""
        raise self._unsupported("tokens", WITH_TOKENS)

    def redrawn(self) -> Backbone:
        """The network once more, as its own constructor starts it, from other random numbers.

        Raises:
            ConfigError: If nobody knows how it was built.
        """
        if self.again is None:
            raise ConfigError(
                f"backbone {self.name!r} cannot be drawn anew, because no configuration built it; set backbone.again "
                "to a function that builds it"
            )
        return self.again()

    def forward_dense(self, view: Tensor) -> Dense:
        """The output of ``forward`` and the features that it is pooled from, in one pass."""
        raise self._unsupported("dense features", WITH_DENSE)

    def require_dense(self, by: str) -> None:
        """Raise the ConfigError that says who needs features of places and which networks have them."""
        if not self.has_dense:
            raise ConfigError(f"{by} needs features of places: {self._unsupported('dense features', WITH_DENSE)}")

    def forward_attention(self, view: Tensor) -> Attention:
        """Attention of the last block of a transformer, for a view ``[B, C, H, W]``."""
        raise self._unsupported("attention", WITH_TOKENS)

    def require_tokens(self, by: str) -> None:
        """Raise the ConfigError that says who needs tokens and which networks have them, if this one has none."""
        if not self.has_tokens:
            raise ConfigError(f"{by} needs a vision transformer: {self._unsupported('tokens', WITH_TOKENS)}")

    def fit_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt published weights to this network's channels (the input convolution to fewer or more channels)."""
        own = self.net.state_dict()
        channels = self.origin.in_channels
        fitted = dict(state)
        for name, value in state.items():
            wanted = own[name].shape if name in own else value.shape
            first = value.ndim == len(wanted) == 4 and wanted[1] == channels != value.shape[1]
            if first and (value.shape[0], *value.shape[2:]) == (wanted[0], *wanted[2:]):
                fitted[name] = _adapt_input(value, channels)
        return fitted

    def check(self, view: Tensor) -> None:
        """Raise a ConfigError that names got, wanted and the option to change if ``view`` does not suit the network."""
        if view.ndim != 4 or view.shape[1] != self.origin.in_channels:
            raise ConfigError(
                f"backbone {self.name!r} got a view of shape {list(view.shape)}, wanted [B, {self.origin.in_channels}, "
                "H, W]; set backbone.in_channels (default: data.channels) to the channels of the images"
            )
        self._check_size(view.shape[2], view.shape[3])

    def _check_size(self, height: int, width: int) -> None:
        got = f"backbone {self.name!r} got {height} x {width} px"
        small = " (or backbone.stem=small)" if self.origin.stem == "standard" and self.min_size > 8 else ""
        if min(height, width) < self.min_size:
            raise ConfigError(
                f"{got}, wanted at least {self.min_size} x {self.min_size}; set data.image_size={self.min_size} "
                f"or more{small}, and local crops to no less"
            )
        only = None if self.fixed_size is None else height_width(self.fixed_size)
        if only is not None and (height, width) != only:
            wanted = height if height == width else f"[{height},{width}]"
            raise ConfigError(
                f"{got}, but it takes only the size it was built for, {only[0]} x {only[1]}; "
                f"set data.image_size={wanted}, and use it without crops of another size"
            )
        if height % self.size_step or width % self.size_step:
            below = max(height - height % self.size_step, self.min_size)
            raise ConfigError(
                f"{got}, wanted a multiple of its patch of {self.size_step} px; "
                f"set data.image_size (or the size of that view) to {below} or {below + self.size_step}"
            )

    def _unsupported(self, what: str, those: str) -> ConfigError:
        return ConfigError(f"backbone {self.name!r} has no {what}; these have: {those}")


def backbone_of(encoder: nn.Module) -> Backbone:
    """The backbone inside an encoder, which may be a teacher that wraps it."""
    inner: Any = encoder
    while not isinstance(inner, Backbone):
        inner = getattr(inner, "net", None)
        if inner is None:
            raise ConfigError(
                f"the encoder is a {type(encoder).__name__} without a ssl_zoo Backbone inside; one is needed, "
                "because it says how the network is built"
            )
    return inner
