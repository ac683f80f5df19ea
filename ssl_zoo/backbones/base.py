"""What every encoder offers to methods, evaluation and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from ssl_zoo.errors import ConfigError

STAGED = "resnet8, resnet18, resnet50, resnet50x2, convnext_tiny, swin_tiny"
WITH_STAGES = f"{STAGED}, other ResNets and ConvNeXts of timm and torchvision, other Swins of timm"
WITH_MAPS = f"{STAGED}, other ResNets and ConvNeXts of torchvision, most networks of timm"
PLAIN = "vit_mini, vit_tiny, vit_small, vit_base, other plain vision transformers of timm"
WITH_TOKENS = f"{PLAIN}, swin_tiny, other Swins of timm"
WITH_DENSE = f"{WITH_STAGES}, {PLAIN}"
WITH_FRAMES = "cpc_encoder"


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


class Frames(NamedTuple):
    """What a network says of a view that has an order, piece by piece, and what it remembers at each of them."""

    pooled: Tensor  # [B, F], the output of ``forward``
    encoded: Tensor  # [B, S, D], each of its piece alone
    context: Tensor  # [B, S, C], of this piece and those before


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


class Backbone(nn.Module):
    """An encoder: views to ``[B, out_features]``.

    The network itself sits in ``net`` without a classifier, so that ``net.state_dict()`` has the names of the library
    it comes from. This class serves any network; subclasses add what views they take, maps or tokens.

    Args:
        net: Network that returns ``[B, out_features]``.
        origin: How to build ``net`` again.
        out_features: Width F of the features.
        classifier: Prefixes under which published weights keep the classifier, which is not loaded.
    """

    again: Callable[[], Backbone] | None = None  # builds it once more, without weights; None where nobody knows how
    size_step: int  # of a transformer of images: pixels of a patch
    pretrained = False  # whether it starts from weights
    told: tuple[str, ...] = ()  # what was taken from their file and what was left, a line each

    def __init__(self, net: nn.Module, origin: Origin, out_features: int, classifier: Sequence[str] = ()) -> None:
        super().__init__()
        self.net = net
        self.origin = origin
        self.out_features = out_features
        self.classifier = tuple(classifier)

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
    def token_size(self) -> int:
        """Pixels of a side of what a token of :meth:`forward_tokens` stands for, and what a mask hides together."""
        return self.size_step

    @property
    def mask_features(self) -> int:
        """Width of the token that :meth:`forward_tokens` puts in the place of hidden patches."""
        return self.out_features

    @property
    def has_dense(self) -> bool:
        return False

    @property
    def has_frames(self) -> bool:
        return False

    def forward(self, view: Any) -> Tensor:
        """A view of B samples -> ``[B, F]``."""
        self.check(view)
        return self.net(view)

    def forward_maps(self, view: Tensor) -> list[Tensor]:
        """Feature maps ``[B, C, h, w]``, finest first; the last one is what ``forward`` pools."""
        raise self._unsupported("feature maps", WITH_MAPS)

    def require_maps(self, by: str) -> None:
        """Raise the ConfigError that says who needs feature maps and which networks have them, if this has none."""
        if not self.has_maps:
            raise ConfigError(f"{by} needs feature maps: {self._unsupported('feature maps', WITH_MAPS)}")

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
        """Tokens of a transformer; see :class:`ssl_zoo.backbones.image.vision_transformer.ViT`."""
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

    def forward_frames(self, view: Any) -> Frames:
        """Pieces of a view in their order, and the context at each of them."""
        raise self._unsupported("frames", WITH_FRAMES)

    @property
    def frame_widths(self) -> tuple[int, int]:
        """Widths of the context and of the pieces that :meth:`forward_frames` gives."""
        raise self._unsupported("frames", WITH_FRAMES)

    def require_frames(self, by: str) -> None:
        """Raise the ConfigError that says who needs frames and which networks have them, if this one has none."""
        if not self.has_frames:
            raise ConfigError(f"{by} needs frames: {self._unsupported('frames', WITH_FRAMES)}")

    def forward_attention(self, view: Tensor) -> Attention:
        """Attention of the last block of a transformer, for a view ``[B, C, H, W]``."""
        raise self._unsupported("attention", PLAIN)

    def built_around(self, network: str, file: str) -> tuple[str, str] | None:
        """How an exported network is built that is more than what the configuration's factory gives.

        Args:
            network: Python that builds what the factory gives, without weights.
            file: Of the weights.

        Returns:
            Lines of imports, and Python that builds this one; None: it is what the factory gives.
        """
        return None

    def require_tokens(self, by: str, dropping: bool = False) -> None:
        """Raise the ConfigError that says who needs tokens and which networks have them, if this one has none.

        Args:
            by: Who needs them.
            dropping: Some are left out (``keep``), which not every network with tokens can do.
        """
        if not self.has_tokens:
            those = PLAIN if dropping else WITH_TOKENS
            raise ConfigError(f"{by} needs a vision transformer: {self._unsupported('tokens', those)}")

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights, by path, with the names that this network has where another library has its own."""
        return dict(state)

    def fit_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt published weights to this network; here they are taken as they are."""
        return state

    def check(self, view: Any) -> None:
        """Raise a ConfigError that names got, wanted and the option to change if ``view`` does not suit the network."""

    def preprocessing(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a user of the exported network must do to his samples before the operations of evaluation.

        Args:
            config: Of the run that trained it, in plain containers.
        """
        views = config["augmentation"]
        return {key: value for key, value in views.items() if key not in ("views", "eval", "where")}

    def example(self) -> Any:
        """A view of two samples of the kind that the network takes, of fixed random numbers.

        Raises:
            ConfigError: If nobody knows any.
        """
        raise ConfigError(f"{type(self).__name__} does not say which views it takes: define example()")

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
