"""Tiny methods and batches, and Lightning's order of hooks without a trainer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig

from ssl_zoo import build, config
from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.data.image.source import image_info
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.schedules import Progress
from ssl_zoo.signatures import locate

CONF = Path(__file__).parent.parent / "conf"
ALL_METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def of_images(group: str) -> list[str]:
    """The backbones or augmentations that are not for samples of another kind."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / group).glob("*.yaml"))}
    wanted = "ssl_zoo.backbones.image." if group == "backbone" else "ssl_zoo.augmentations.image."
    return [name for name, file in files.items() if file.get("_target_", wanted).startswith(wanted)]


def method_file(name: str) -> dict[str, Any]:
    """The method's own YAML, not composed: for what a test is collected by, which must not take seconds."""
    return yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())["method"]


def modality(name: str) -> str | None:
    """The only kind of samples that a method is for; a file that names no class builds on another method's."""
    file = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())
    target = file["method"].get("_target_")
    return locate(target).modality if target else modality(file["defaults"][0])


def trains(name: str) -> bool:
    """Whether a run of the method takes steps."""
    file = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())
    target = file["method"].get("_target_")
    return locate(target).trains if target else trains(file["defaults"][0])


IMAGE_METHODS = [name for name in ALL_METHODS if modality(name) is None]
METHODS = [name for name in IMAGE_METHODS if trains(name)]  # tried with images, step by step
STILL = [name for name in IMAGE_METHODS if not trains(name)]
# Of each kind of state one: a queue, a teacher, prototypes, banks of an epoch, masks, decorrelation, pairs of a batch.
ONE_OF_EACH = ("barlow_twins", "byol", "deepcluster_v2", "dino", "ibot", "instdisc", "mae", "moco_v2", "simclr", "swav")


def quickly(names: Sequence[str], fast: Sequence[str] = ONE_OF_EACH) -> list[Any]:
    """All ``names`` as parameters of a test; those that are not ``fast`` are slow ones."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


SIZE, ROWS, CLASSES = 16, 8, 4
TINY = ["data=synthetic", f"data.image_size={SIZE}", f"data.batch_size={ROWS}", "report=false"]
TINY_RESNET = ["backbone.width=8", "backbone.zero_init_residual=false"]
TINY_VIT = ["backbone.embed_dim=16", "backbone.depth=2", "backbone.num_heads=2"]


def tiny_config(name: str, extra: Sequence[str] = (), tiny: bool = True) -> DictConfig:
    """A method at the small scale, with every head and memory narrow enough for a test of milliseconds."""
    return deepcopy(_composed(name, (*(tiny_backbone(name, (*extra,)) if tiny else []), *extra)))


@cache
def tiny_backbone(name: str, extra: tuple[str, ...] = ()) -> list[str]:
    """Overrides that make the method's own kind of backbone tiny."""
    search = [word for word in extra if word.startswith("hydra.searchpath")]
    vit = config.load([f"method={name}", *TINY, *search]).backbone._target_.endswith("vit_mini")
    return TINY_VIT if vit else TINY_RESNET


@cache
def _composed(name: str, extra: tuple[str, ...]) -> DictConfig:
    cfg = config.load([f"method={name}", *TINY, *extra])
    _narrow(cfg.method)
    if not any(word.startswith("batch_norm.group=") for word in extra):
        cfg.batch_norm.group = cfg.batch_norm.group and 2
    return cfg


def _narrow(node: Any) -> None:
    for key, value in node.items():
        if key == "extraction":
            _narrow(value)
        if key in ("projector", "predictor", "map_projector", "patch_projector") and value:
            value.hidden = [min(width, 16) for width in value.hidden]
            value.out_features = min(value.out_features, 8)  # -1, the width of the input, stays
        if key in ("queue_size", "prototypes") and value:
            node[key] = 2 * ROWS
        if key in ("queue_start", "mix_start"):
            node[key] = 0
        if key in ("hardest_of", "pairs", "with_query"):
            node[key] = min(value, 4)
        if key == "negatives" and isinstance(value, int):  # rows drawn from a memory bank
            node[key] = 2 * ROWS
        if key == "sub_batch":  # rows that are whitened together: more than the dimensions
            node[key], node.projector.out_features = ROWS, 4
        if key == "clusters" and value:
            node[key] = 2 * ROWS if isinstance(value, int) else [3 * ROWS, 4 * ROWS]
        if key in ("decoder", "token_predictor"):
            value.update({name: small for name, small in (("width", 16), ("depth", 1), ("heads", 2)) if name in value})
        if key == "teacher":
            value.checkpoint, value.timm = None, "test_resnet"


def info(image_size: int = SIZE) -> DataInfo:
    return image_info(samples=64, classes=CLASSES, image_size=image_size, channels=3, batch_size=ROWS)


def tiny_method(name: str, extra: Sequence[str] = (), dtype: torch.dtype = torch.float32, tiny: bool = True) -> Method:
    """Built from the configuration, bound to its optimizer, in training mode; ``tiny``: with the smallest backbone."""
    cfg = tiny_config(name, extra, tiny)
    method = build.build_method(cfg, info(cfg.data.image_size)).to(dtype)
    method.progress = Progress(step=2, total=10, steps_per_epoch=4)  # past the first step of a warm-up, whose rate is 0
    method.bind(ROWS)
    return method.train()


def view_sizes(name: str, extra: Sequence[str] = ()) -> list[Any]:
    """The side of each view; (tiles, side) of one that ends in ``image/jigsaw``, [C, side, side] in ``image/sobel`` or
    ``image/lab``."""
    views = config.plain(tiny_config(name, extra))["augmentation"]["views"]
    views = sorted(views, key=lambda view: view.get("kind", "global") != "global")
    return [_size(view) for view in views for _ in range(view.get("count", 1))]


def _size(view: Any) -> Any:
    side, last = round(view["size"] * view.get("fraction", 1.0)), view["ops"][-1]
    if "image/sobel" in last:
        return [2, side, side]
    if "image/lab" in last:
        return [len(last["image/lab"].get("keep", range(3))), side, side]
    if "image/patch_grid" in last:
        return (((view["size"] - side) // (side // 2) + 1) ** 2, side)
    grid = last["image/jigsaw"]["grid"] if "image/jigsaw" in last else None
    return side if grid is None else (grid**2, side)


def _shape(size: Any) -> Sequence[int]:
    if isinstance(size, list):
        return size
    return (*size[:-1], 3, size[-1], size[-1]) if isinstance(size, tuple) else (3, size, size)


def tiny_batch(sizes: Sequence[Any], step: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """The local rows of a global batch of ``ROWS`` that is the same for any number of processes."""
    generator = torch.Generator().manual_seed(100 + step)
    share = ROWS // world_size()
    own = slice(rank() * share, (rank() + 1) * share)
    shapes = [_shape(size) for size in sizes]
    drawn = [torch.randn(ROWS, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    views = [view.to(dtype)[own] for view in drawn]
    index = torch.randperm(64, generator=generator)[:ROWS][own]
    label = torch.randint(0, CLASSES, (ROWS,), generator=generator)[own]
    slot = torch.arange(ROWS)[own] + step * ROWS
    corner, sides = (torch.randint(low, 8, (ROWS, 2), generator=generator)[own] for low in (0, 4))
    boxes = {f"{v}/image/random_resized_crop/box": torch.cat([corner + v, sides], 1) for v in range(len(sizes))}
    return Batch(views, index, label, BatchRNG(seed=0, epoch=0, micro=step, slot=slot), boxes)


def train_step(method: Method, batch: Batch) -> dict[str, Any]:
    """One optimizer step in the order that Lightning and the base keep."""
    torch.manual_seed(0)
    method.begin_micro_batch(first=True)
    out = method.training_loss(batch)
    method.bound.optimizer.zero_grad(set_to_none=True)
    out["loss"].backward()
    method.on_after_backward()
    _average_gradients(method)
    method.configure_gradient_clipping(method.bound.optimizer)
    gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.bound.optimizer.step()
    step = method.progress.step + 1
    method.progress = Progress(step, method.progress.total, method.progress.steps_per_epoch)
    return {"loss": out["loss"].detach(), "gradients": gradients}


def _average_gradients(method: Method) -> None:
    """What DDP does."""
    if world_size() > 1:
        for p in method.parameters():
            if p.grad is not None:
                torch.distributed.all_reduce(p.grad)
                p.grad /= world_size()


def over_ranks(method: Method, outs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the steps that :func:`train_step` took: mean losses over all ranks, first gradients, and the state now."""
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
        losses /= world_size()
    state = {key: value for key, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    return {"losses": losses, "gradients": outs[0]["gradients"], "state": state}
