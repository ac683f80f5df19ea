"""Swin transformers of timm: attention within windows; maps, stages, and tokens that can be hidden."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import resample_patch_embed, resize_rel_pos_bias_table
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torchvision.ops import Permute

from ssl_zoo.backbones.base import PLAIN, Dense, Tokens
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.image.vision_transformer import replaced
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side, height_width

LARGEST, SMALLEST = 7, 4  # sides of a window in patches that are chosen by themselves; the authors' is 7
STAGES = 4
TABLE = "relative_position_bias_table"
# What torchvision calls parts, and timm the same.
OF_PATCHES = {"0": "proj", "2": "norm"}
OF_BLOCKS = {"mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2."}
DERIVED = ("relative_position_index", "attn_mask")  # buffers of other libraries, which follow from the sizes


class Swin(Staged):
    """timm's ``SwinTransformer``, https://arxiv.org/abs/2103.14030: four maps, whose last one is normalised.

    Its tokens are the places of the last map. Each is of a square of ``token_size`` pixels (32; 8 with ``stem=small``),
    and a mask hides all patches of its squares, as SimMIM's authors hide squares of 32 pixels. The mean of the tokens
    stands for the whole, as in iBOT's ``swin_transformer.py``.
    """

    def __init__(self, net: nn.Module, *given: Any, **named: Any) -> None:
        super().__init__(net, *given, **named)
        for block in net.modules():
            if type(block) is SwinTransformerBlock:
                block.__class__ = _Block

    @property
    def has_tokens(self) -> bool:
        return True

    @property
    def token_size(self) -> int:
        return self.min_size  # of the last map's places

    @property
    def mask_features(self) -> int:
        return int(cast(Any, self.net).embed_dim)

    def stages(self) -> list[nn.Module]:
        net = cast(Any, self.net)
        first, *rest = net.layers
        parts = [[net.patch_embed, first], *([Permute([0, 2, 3, 1]), layer] for layer in rest)]  # [B, h, w, C] inside
        parts[-1].append(net.norm)
        return [nn.Sequential(*part, Permute([0, 3, 1, 2])) for part in parts]

    def forward_dense(self, view: Tensor) -> Dense:
        pooled, patches, grid = self.forward_tokens(view)
        return Dense(cast(Tensor, pooled), patches, grid)

    def require_tokens(self, by: str, dropping: bool = False) -> None:
        if dropping:
            raise ConfigError(
                f"{by} leaves patches out, and the windows of backbone {self.name!r} need all of them; these can do "
                f"without: {PLAIN}"
            )
        self._check_squares(by, *height_width(self.image_size))

    def forward_tokens(
        self,
        view: Tensor,
        keep: Tensor | None = None,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        layers: int = 1,
    ) -> Tokens:
        """Places of the last map after the final norm, and their mean.

        Args:
            view: ``[B, C, H, W]``; with a mask the sides are multiples of ``token_size``.
            keep: None: windows need all patches.
            mask: ``[B, N]`` bool, squares of ``token_size`` pixels whose patches are replaced by ``mask_token``.
            mask_token: ``mask_features`` numbers of any shape that ends in these; belongs to the method.
            layers: 1: the other maps have other grids.

        Returns:
            ``cls [B, F]`` (the mean), ``patches [B, N, F]``, ``grid (h, w)``.

        Raises:
            ConfigError: If the view does not suit the network, or patches are to be left out.
            ValueError: If ``mask`` lacks its token or has another number of squares, or ``layers`` is not 1.
        """
        if keep is not None:
            self.require_tokens("forward_tokens(keep=...)", dropping=True)
        if layers != 1:
            raise ValueError(f"layers={layers}: backbone {self.name!r} has tokens of its last layer only; set it to 1")
        self.check(view)
        net = cast(Any, self.net)
        x = net.patch_embed(view)  # [B, H / p, W / p, C]
        if mask is not None:
            self._check_squares("a mask", *view.shape[2:])
            x = replaced(x, mask, mask_token, self.token_size // net.patch_embed.patch_size[0])
        x = net.norm(net.layers(x))  # [B, h, w, F]
        patches = x.flatten(1, 2)
        return Tokens(patches.mean(1), patches, (x.shape[1], x.shape[2]))

    def _check_squares(self, by: str, height: int, width: int) -> None:
        size = self.token_size
        if height % size or width % size:
            below = max(height - height % size, size)
            raise ConfigError(
                f"{by} reads squares of {size} px of backbone {self.name!r}, into which views of {height} x {width} px "
                f"do not divide; set data.image_size to {below} or {below + size}"
            )

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Under timm's names what torchvision and the authors (Swin's, SimMIM's) call otherwise."""
        authors = any(re.search(r"(^|\.)layers\.0\.downsample\.", name) for name in state)
        renamed = {_of_torchvision(name): value for name, value in state.items() if not name.endswith(DERIVED)}
        return {_moved(name): value for name, value in renamed.items()} if authors else renamed

    def fit_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Also resample patches and relative positions that were trained at another patch or window size."""
        state, own = super().fit_weights(state), self.net.state_dict()
        windows = {name: part.window_size for name, part in self.net.named_modules() if hasattr(part, TABLE)}
        for name, value in state.items():
            if name not in own or value.shape == own[name].shape:
                continue
            if name.endswith(TABLE) and value.shape[1] == own[name].shape[1]:
                size = windows[name.removesuffix(f".{TABLE}")]
                state[name] = resize_rel_pos_bias_table(value, size, own[name].shape)
            elif name == "patch_embed.proj.weight" and value.shape[1] == own[name].shape[1]:
                state[name] = resample_patch_embed(value, list(own[name].shape[2:]))
        return state


class _Block(SwinTransformerBlock):
    """timm's block for maps of any size, padded where windows do not tile them and shifted after that.

    As torchvision's ``shifted_window_attention`` and the authors' code for detection. timm shifts first, so that
    windows beside the padding would join opposite borders of the map, and shifts maps that fit into one window. Where
    the windows tile the map the three are the same.
    """

    def _attn(self, x: Tensor) -> Tensor:
        """``[B, h, w, C]`` -> the same."""
        height, width = x.shape[1:3]
        window = self.window_size
        x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        padded = (x.shape[1], x.shape[2])
        every_other = any(self.target_shift_size)
        shift = [w // 2 if every_other and side > w else 0 for side, w in zip(padded, window, strict=True)]
        x = x.roll([-by for by in shift], (1, 2))
        windows = window_partition(x, window).flatten(1, 2)  # [B * n, w * w, C]
        windows = self.attn(windows, mask=_apart(padded, window, shift, x) if any(shift) else None)
        x = window_reverse(windows.unflatten(1, window), window, *padded)
        return x.roll(shift, (1, 2))[:, :height, :width]


def _apart(padded: Sequence[int], window: tuple[int, int], shift: Sequence[int], x: Tensor) -> Tensor:
    """What keeps borders that a shift brings into one window apart: ``[n, w * w, w * w]``, 0 or -100."""
    zones = []
    for side, w, by in zip(padded, window, shift, strict=True):
        place = torch.arange(side, device=x.device)
        zones.append((place >= side - w).long() + (place >= side - by).long())
    zone = (3 * zones[0][:, None] + zones[1])[None, :, :, None]
    inside = window_partition(zone, window).flatten(1)  # [n, w * w]
    return torch.where(inside[:, :, None] == inside[:, None], 0.0, -100.0).to(x.dtype)


def tiling_window(image_size: Side, patch: int) -> int:
    """Side of the largest window of 4 to 7 patches that tiles the map of each stage, or holds all of it; else 7."""
    maps = {-(-side // patch // 2**i) for side in height_width(image_size) for i in range(STAGES)}
    tiles = (w for w in range(LARGEST, SMALLEST - 1, -1) if all(side % w == 0 or side <= w for side in maps))
    return next(tiles, LARGEST)


def _of_torchvision(name: str) -> str:
    """``features.0.2.bias`` -> ``patch_embed.norm.bias``; behind it merging and the blocks of a stage take turns."""
    found = re.fullmatch(r"(?P<before>.*\.)?features\.(?P<part>\d+)\.(?P<rest>.+)", name)
    if found is None:
        return name
    before, part = found["before"] or "", int(found["part"])
    first, _, rest = found["rest"].partition(".")
    if part == 0:
        return f"{before}patch_embed.{OF_PATCHES.get(first, first)}.{rest}"
    if part % 2 == 0:
        return f"{before}layers.{part // 2}.downsample.{first}.{rest}"
    for theirs, ours in OF_BLOCKS.items():
        rest = rest.replace(theirs, ours)
    return f"{before}layers.{part // 2}.blocks.{first}.{rest}"


def _moved(name: str) -> str:
    """The authors merge patches at the end of a stage, timm at the beginning of the next."""
    return re.sub(r"layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.", name)
