"""Positions of a transformer: learned, fixed or relative, and what becomes of them in views of another size."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.networks import is_vit, nets_of
from tests.golden.recipes.real import real_backbone
from tests.golden.recipes.registry import unequal, unmapped
from tests.golden.recipes.starts import normal
from tests.golden.recipes.words import Grammar

SIDES = (6, 7)  # of grids that positions are interpolated to: crops of 96 and 98 to 112 pixels


def _learned(match: re.Match[str], net: Any) -> str | None:
    position = getattr(net, "pos_embed", None)
    return None if position is not None and position.requires_grad else "they are not trained"


def _spread(match: re.Match[str], net: Any) -> str | None:
    std = float(match.group(1))
    return None if normal(net.pos_embed, std) else f"they have a deviation of {float(net.pos_embed.detach().std()):.3g}"


def _fixed(match: re.Match[str], net: Any) -> str | None:
    """Sines and cosines of the row and of the column, in either order."""
    position = getattr(net, "pos_embed", None)
    if position is None or position.requires_grad:
        return "they are trained" if position is not None else "there are none"
    grid, width = net.patch_embed.grid_size, net.embed_dim
    own = position.detach()[:, position.shape[1] - math.prod(grid) :]
    tables = [sincos_positions(grid, width, columns_first=first) for first in (False, True)]
    return None if any(torch.allclose(own, table, atol=1e-5) for table in tables) else "they are not sines and cosines"


def _zero_row(match: re.Match[str], net: Any) -> str | None:
    own = net.pos_embed.detach()
    grid = math.prod(net.patch_embed.grid_size)
    return None if own.shape[1] == grid + 1 and not bool(own[:, 0].any()) else "the class token has a position"


def _none(match: re.Match[str], net: Any) -> str | None:
    position = getattr(net, "pos_embed", None)
    return None if position is None else "there are absolute ones"


def _shared_bias(match: re.Match[str], net: nn.Module) -> str | None:
    tables = {id(p) for name, p in net.named_parameters(remove_duplicate=False) if "relative_position_bias" in name}
    return None if len(tables) == 1 else f"{len(tables)} tables of relative positions"


KINDS = Grammar(
    (r"(?:timm, )?learned", _learned),
    (r"trunc_normal (\d*\.\d+)", _spread),
    (r"fixed sin-cos 2d", _fixed),
    (r"class token's row 0", _zero_row),
    (r"none absolute", _none),
    (r"relative position bias shared by all blocks", _shared_bias),
)


def kind(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    net = nets_of(real_backbone(composed))[0]
    if not is_vit(net):
        yield unequal(subject, f"a {type(net).__name__}", wanted)
        return
    yield from KINDS.differences(subject, wanted, net)


def interpolation(subject: str, wanted: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Random positions on another grid, by our network and by ``F.interpolate`` with the recorded arguments."""
    known = {"mode", "scale_factor", "antialias", "align_corners"}
    net = nets_of(real_backbone(composed))[0]
    for key in wanted.keys() - known:
        yield unmapped(f"{subject}.{key}", wanted[key])
    if not is_vit(net) or getattr(net, "pos_embed", None) is None:
        yield unequal(subject, "no positions to interpolate", wanted)
        return
    drawn = torch.randn(net.pos_embed.shape, generator=torch.Generator().manual_seed(0))
    kept = net.pos_embed.data
    try:
        net.pos_embed.data = drawn
        for side in SIDES:
            try:
                theirs = _theirs(drawn, net, side, wanted)
            except (ValueError, NotImplementedError, KeyError, SyntaxError, TypeError) as error:
                yield f"{subject}: cannot map {wanted!r} ({error})"
                return
            off = float((_ours(net, side) - theirs).abs().max()) if theirs is not None else math.inf
            if off > 1e-4:
                yield f"{subject}: {side} x {side} positions differ by {off:.2g}, recorded {wanted!r}"
                return
    finally:
        net.pos_embed.data = kept


def _ours(net: Any, side: int) -> Tensor:
    with torch.no_grad():
        out = net._pos_embed(torch.zeros(1, side, side, net.embed_dim))
    return out[:, out.shape[1] - side * side :]


def _theirs(positions: Tensor, net: Any, side: int, wanted: dict[str, Any]) -> Tensor | None:
    """``[1, side^2, F]``; None: their arguments give a grid of another size."""
    rows = net.patch_embed.grid_size[0]
    own = positions[:, positions.shape[1] - rows * rows :]
    factor = _value(str(wanted["scale_factor"]), {"side": side, "n": side * side, "N": rows * rows})
    arguments = {key: wanted[key] for key in ("mode", "antialias", "align_corners") if wanted.get(key) is not None}
    maps = own.mT.unflatten(2, (rows, rows))
    made = F.interpolate(maps, scale_factor=(factor, factor), **arguments)
    return made.flatten(2).mT if made.shape[-1] == side else None


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _value(formula: str, names: dict[str, float]) -> float:
    """A formula of sums, products, quotients and roots of ``names``; anything else is a ValueError."""

    def of(node: Any) -> float:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return float(OPERATORS[type(node.op)](of(node.left), of(node.right)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "sqrt" and len(node.args) == 1:
            return math.sqrt(of(node.args[0]))
        if isinstance(node, ast.Name):
            return names[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        raise ValueError(f"{formula!r} is no formula of {', '.join(names)}")

    return of(ast.parse(formula, mode="eval").body)
