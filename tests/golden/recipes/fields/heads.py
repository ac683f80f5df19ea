"""Projectors, predictors and whatever else stands behind the network: their layers in order, how they start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import NONE, NOTES, same
from tests.golden.recipes.layers import Layer, NotALayer, layers_of
from tests.golden.recipes.real import real_method
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.starts import PHRASES, normal
from tests.golden.recipes.trial import trial
from tests.golden.recipes.words import Grammar

# Where a head of a recorded name may stand in a method, the first that exists.
PLACES: dict[str, tuple[str, ...]] = {
    "projector": ("projector", "projectors"),
    "projector, one per view": ("projectors.heads",),
    "predictor": ("predictor", "token_predictor"),
    "map_projector": ("map_projector",),
    "patch_projector": ("patch_projector",),
    "pre_feature": ("pre_feature", "backbone.pre_feature", "backbone.net.pre_feature"),
    "student_embedding": ("embed_student",),
    "teacher_embedding": ("embed_teacher",),
    "context": ("context",),
    "experts": ("projector.heads",),
    "gate": ("gate",),
    "jigsaw": ("jigsaw_projector.tile",),
    "rkhs": ("blocks",),
    "decoder": ("decoder", "head"),
    "neck": ("neck",),
}
CONTAINERS = ("projector", "projectors", "predictor", "map_projector", "patch_projector", "token_predictor", "decoder")
L2 = re.compile(r"l2(?: without eps)?")  # F.normalize's eps of 1e-12 shows in no embedding
STARTS = Grammar(*PHRASES)


@field("heads")
def heads(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if not isinstance(value, list) and value != NONE:
        yield unmapped("heads", value)
        return
    seen: set[str] = set()
    for head in [] if value == NONE else value:
        path = _place(str(head.get("name")), composed)
        if path is None:
            yield f"heads.{head.get('name')}: our method has no part of this name"
            continue
        seen.add(path.partition(".")[0])
        yield from _head(f"heads.{head['name']}", head, path, composed)
    others = {name for name, part in composed.method.named_children() if name in CONTAINERS} - seen
    for name in sorted(others):
        yield f"heads.{name}: ours has one, which is not recorded"


def _place(name: str, composed: Composed) -> str | None:
    for path in PLACES.get(name, ()):
        try:
            if composed.method.get_submodule(path) is not None:
                return path
        except AttributeError:
            continue
    return None


def _head(subject: str, head: dict[str, Any], path: str, composed: Composed) -> Iterator[str]:
    part = composed.method.get_submodule(path)
    alike = list(part) if isinstance(part, nn.ModuleList) else [part]
    readers = {"layers": _layers, "kind": _kind, "output": _output, "then": _output, "count": _count, "init": _init}
    for key, wanted in head.items():
        if key in ("name", *NOTES) or wanted is None or (key == "layers" and not wanted):
            continue
        if key in readers:
            yield from readers[key](f"{subject}.{key}", wanted, alike, path, composed)
        elif head.get("kind") is not None:
            yield from _of_a_kind(f"{subject}.{key}", wanted, path, composed)
        else:
            yield unmapped(f"{subject}.{key}", wanted)


def _layers(subject: str, wanted: list[Any], alike: list[nn.Module], path: str, composed: Composed) -> Iterator[str]:
    for one in alike:
        try:
            ours = layers_of(one)
        except NotALayer as error:
            yield f"{subject}: cannot map our {type(one).__name__} ({error})"
            return
        if len(ours) != len(wanted):
            widths = [layer.linear for layer in ours]
            yield unequal(subject, widths, [layer.get("linear") for layer in wanted])
        for i, (layer, theirs) in enumerate(zip(ours, wanted, strict=False)):
            yield from _layer(f"{subject}.{i}", layer, theirs, i, path, composed)


def _layer(subject: str, ours: Layer, theirs: dict[str, Any], i: int, path: str, composed: Composed) -> Iterator[str]:
    affine = ours.scale is True and ours.offset is True
    found = {"linear": ours.linear, "bias": ours.bias, "norm": ours.norm, "act": ours.act}
    norms = {"norm_affine": affine or None if ours.norm is None else affine, "bn_offset": ours.offset}
    found |= {**norms, "bn_scale": ours.scale}
    implied = {"norm": None, "act": None, **_implied(theirs)}
    for key, wanted in {**implied, **theirs}.items():
        if key == "then":
            yield from _output(f"{subject}.{key}", wanted, [], path, composed, ours.module)
        elif key == "init_std":
            real = layers_of(_first(real_method(composed).get_submodule(path)))[i]
            if not normal(real.weight, wanted):
                yield f"{subject}.init_std: {float(real.weight.detach().std()):.4f}, recorded {wanted}"
        elif key in NOTES or (wanted is None and key not in ("norm", "act")):
            continue
        elif key not in found:
            yield unmapped(f"{subject}.{key}", wanted)
        elif not same(found[key], wanted):
            yield unequal(f"{subject}.{key}", found[key], wanted)


def _implied(theirs: dict[str, Any]) -> dict[str, Any]:
    """A norm trains scale and offset where nothing else is recorded."""
    told = {"norm_affine", "bn_offset", "bn_scale"} & theirs.keys()
    return {"norm_affine": True} if theirs.get("norm") in ("bn", "ln") and not told else {}


def _first(part: nn.Module) -> nn.Module:
    return part[0] if isinstance(part, nn.ModuleList) else part


def _output(
    subject: str, wanted: str, alike: list[nn.Module], path: str, composed: Composed, layer: nn.Module | None = None
) -> Iterator[str]:
    """Whether what the head, or its layer, gives goes on at length 1."""
    if not L2.fullmatch(str(wanted)):
        yield unmapped(subject, wanted)
        return
    names = {name for name, module in composed.method.named_modules() if module is layer}
    asked = names | {path} | {f"{path}.{i}" for i in range(len(alike) if len(alike) > 1 else 0)}
    run = trial(composed)
    reached = [name for name in asked if run.called(name)]
    if not reached:
        yield f"{subject}: cannot tell, the head was not reached ({run.error})"
    elif not run.normalised & asked:
        yield unequal(subject, "as it is", wanted)


def _count(subject: str, wanted: int, alike: list[nn.Module], path: str, composed: Composed) -> Iterator[str]:
    if len(alike) != wanted:
        yield unequal(subject, len(alike), wanted)


def _init(subject: str, wanted: str, alike: list[nn.Module], path: str, composed: Composed) -> Iterator[str]:
    for one in {path: real_method(composed).get_submodule(path)}.values():
        yield from STARTS.differences(subject, wanted, one)


def _kind(subject: str, wanted: str, alike: list[nn.Module], path: str, composed: Composed) -> Iterator[str]:
    yield from KINDS.differences(subject, wanted, (alike, path, composed))


def _of_a_kind(subject: str, wanted: Any, path: str, composed: Composed) -> Iterator[str]:
    """Sizes of a transformer, how its tokens start, and what else a head of some kind has."""
    key, part = subject.rpartition(".")[2], composed.method.get_submodule(path)
    blocks = [m for m in part.modules() if isinstance(m, Block)]
    sizes = {
        "depth": lambda: len(blocks),
        "width": lambda: blocks[0].norm1.normalized_shape[0],
        "heads": lambda: blocks[0].attn.num_heads,
        "target_dim": lambda: composed.method.target.out_channels,
        "embed_scale": lambda: composed.method.scale,
    }
    if key in sizes:
        if not same(sizes[key](), wanted):
            yield unequal(subject, sizes[key](), wanted)
    elif key == "mask_token":
        yield from TOKENS.differences(subject, wanted, real_method(composed).get_submodule(path))
    elif key == "positions":
        yield from POSITIONS.differences(subject, wanted, part)
    else:
        yield unmapped(subject, wanted)


def _token(match: re.Match[str], part: Any) -> str | None:
    std, token = float(match.group(1)), part.mask_token.detach()
    return None if 0.8 < float(token.std()) / std < 1.25 else f"the mask token has a deviation of {token.std():.3g}"


def _fixed(match: re.Match[str], part: nn.Module) -> str | None:
    learned = [name for name, _ in part.named_parameters() if "pos" in name]
    return f"{learned[0]} is trained" if learned else None


TOKENS = Grammar((r"(?:trunc_normal |N\(0, )(\d*\.\d+)\)?", _token))
POSITIONS = Grammar((r"fixed sin-cos", _fixed))


def _transformer(match: re.Match[str], asked: Any) -> str | None:
    blocks = [m for m in asked[0][0].modules() if isinstance(m, Block) and isinstance(m.mlp, Mlp)]
    return None if blocks else f"a {type(asked[0][0]).__name__} without blocks"


def _named(*kinds: str) -> Any:
    def ask(match: re.Match[str], asked: Any) -> str | None:
        own = type(asked[0][0]).__name__
        return None if own in kinds else f"a {own}"

    return ask


def _pixels(match: re.Match[str], asked: Any) -> str | None:
    (head, *_), _, composed = asked
    size = eval_product(match.group(1))
    outs = [m.weight.shape[0] for m in head.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return None if outs == [size] else f"linear maps to {outs}"


def eval_product(text: str) -> int:
    """``16*16*3``."""
    found = 1
    for part in text.split("*"):
        found *= int(part)
    return found


def _maps(match: re.Match[str], asked: Any) -> str | None:
    """A block for each map that is compared, named by the sides of the maps; the whole view has side 1."""
    method = asked[2].method
    sides = sorted({1, *(grid for grid in method.grids if grid)})
    wanted = sorted(int(side) for side in match.group(1).split(","))
    return None if sides == wanted and len(asked[0][0]) == len(wanted) else f"blocks for maps of {sides}"


def _last_norm(match: re.Match[str], asked: Any) -> str | None:
    ends = [isinstance(getattr(block, "norm", None), _BatchNorm) for block in asked[0][0].children()]
    return None if ends and all(ends) else "a block does not end in a batch norm"


def _second_zero(match: re.Match[str], asked: Any) -> str | None:
    blocks = real_method(asked[2]).get_submodule(asked[1]).children()
    branches = [block.residual for block in blocks if hasattr(block, "residual")]  # the whole may have a norm alone
    convs = [[m for m in branch.modules() if isinstance(m, nn.Conv2d)] for branch in branches]
    zero = convs and not any(bool(c[1].weight.any()) for c in convs)
    return None if zero else "a second convolution does not start at 0"


def _frozen_offset(match: re.Match[str], asked: Any) -> str | None:
    norm = asked[0][0]
    still = isinstance(norm, _BatchNorm) and not (isinstance(norm.bias, nn.Parameter) and norm.bias.requires_grad)
    return None if still else f"{type(norm).__name__} with an offset that is trained"


def _unit(match: re.Match[str], asked: Any) -> str | None:
    return None if asked[1] in trial(asked[2]).normalised else "is not brought to length 1"


KINDS = Grammar(
    (r"transformer", _transformer),
    (r"PixelCNN", _named("PixelCNN")),
    (r"FakeRKHSConvNet per map \(([\d, ]+)\)", _maps),
    (r"batch norm of outputs", _last_norm),
    (r"second convolution starts at 0", _second_zero),
    (r"1x1 convolution to ([\d*]+), then pixel shuffle", _pixels),
    (r"batch norm of the pooled features, bias frozen at 0", _frozen_offset),
    (r"then l2", _unit),
)
