"""Seven methods and SimCLR as users of lightly write them: its losses, heads, transforms and momentum.

Widths, rates, momenta and temperatures are those of lightly's CIFAR-10 benchmark (lightly-ai/lightly,
docs/source/getting_started/benchmarks/cifar10_benchmark.py: batch 128, SGD of 0.06 with weight decay 5e-4, SwAV Adam of
1e-3, cosine to 0 over the run, no blur at 32 pixels). VICReg is not in it: here its head is Barlow Twins' and its
optimizer that of the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightly import loss as losses
from lightly import transforms
from lightly.models import utils
from lightly.models.modules import heads
from torch import Tensor, nn

HIDDEN, WIDE, MOMENTUM = 512, 2048, 0.99


class Peer(nn.Module):
    """A method of two views.

    Args:
        backbone: ``[B, 3, H, W] -> [B, features]``.
        features: Width of the backbone.
    """

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.build(features)

    def build(self, features: int) -> None:
        raise NotImplementedError

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        raise NotImplementedError

    def before_step(self) -> None:
        """Where a teacher moves."""

    def optimizer(self) -> torch.optim.Optimizer:
        trained = (p for p in self.parameters() if p.requires_grad)
        return torch.optim.SGD(trained, lr=0.06, momentum=0.9, weight_decay=5e-4)

    @staticmethod
    def transform(size: int) -> Any:
        return transforms.SimCLRTransform(input_size=size, gaussian_blur=0.0)


def teacher_of(*nets: nn.Module) -> nn.Sequential:
    copied = nn.Sequential(*map(copy.deepcopy, nets))
    utils.deactivate_requires_grad(copied)
    return copied


def follow(teacher: nn.Sequential, *nets: nn.Module) -> None:
    for mine, theirs in zip(nets, teacher, strict=True):
        utils.update_momentum(mine, theirs, MOMENTUM)


class SimCLR(Peer):
    def build(self, features: int) -> None:
        self.head = heads.SimCLRProjectionHead(features, HIDDEN, 128)
        self.criterion = losses.NTXentLoss()

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        return self.criterion(*(self.head(self.backbone(view)) for view in views))


class MoCo(Peer):
    """Symmetric, a bank of 4,096 keys, shuffled keys."""

    def build(self, features: int) -> None:
        self.head = heads.MoCoProjectionHead(features, HIDDEN, 128)
        self.teacher = teacher_of(self.backbone, self.head)
        self.criterion = losses.NTXentLoss(temperature=0.1, memory_bank_size=(4096, 128))

    def before_step(self) -> None:
        follow(self.teacher, self.backbone, self.head)

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        return 0.5 * (self._one(views[0], views[1]) + self._one(views[1], views[0]))

    def _one(self, query: Tensor, key: Tensor) -> Tensor:
        shuffled, order = utils.batch_shuffle(key)
        keys = utils.batch_unshuffle(self.teacher(shuffled), order)
        return self.criterion(self.head(self.backbone(query)), keys)


class SimSiam(Peer):
    def build(self, features: int) -> None:
        norm = nn.BatchNorm1d
        layers = [(features, WIDE, norm(WIDE), nn.ReLU(inplace=True)), (WIDE, WIDE, norm(WIDE), None)]
        self.head = heads.ProjectionHead(layers)
        self.predictor = heads.SimSiamPredictionHead(WIDE, HIDDEN, WIDE)
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        z = [self.head(self.backbone(view)) for view in views]
        p = [self.predictor(x) for x in z]
        return 0.5 * (self.criterion(z[0].detach(), p[1]) + self.criterion(z[1].detach(), p[0]))


class BYOL(Peer):
    def build(self, features: int) -> None:
        self.head = heads.BYOLProjectionHead(features, 1024, 256)
        self.predictor = heads.BYOLPredictionHead(256, 1024, 256)
        self.teacher = teacher_of(self.backbone, self.head)
        self.criterion = losses.NegativeCosineSimilarity()

    def before_step(self) -> None:
        follow(self.teacher, self.backbone, self.head)

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        p = [self.predictor(self.head(self.backbone(view))) for view in views]
        z = [self.teacher(view).detach() for view in views]
        return 0.5 * (self.criterion(p[0], z[1]) + self.criterion(p[1], z[0]))


class Redundancy(Peer):
    criterion_class: Callable[[], nn.Module]

    def build(self, features: int) -> None:
        layers = [(features, WIDE, nn.BatchNorm1d(WIDE), nn.ReLU(inplace=True)), (WIDE, WIDE, None, None)]
        self.head = heads.ProjectionHead(layers)
        self.criterion = type(self).criterion_class()

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        return self.criterion(*(self.head(self.backbone(view)) for view in views))


class BarlowTwins(Redundancy):
    criterion_class = losses.BarlowTwinsLoss


class VICReg(Redundancy):
    criterion_class = losses.VICRegLoss


class SwAV(Peer):
    """Two crops; 512 prototypes."""

    def build(self, features: int) -> None:
        self.head = heads.SwaVProjectionHead(features, HIDDEN, 128)
        self.prototypes = heads.SwaVPrototypes(128, 512)
        self.criterion = losses.SwaVLoss()

    def before_step(self) -> None:
        self.prototypes.normalize()

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        scores = [self.prototypes(F.normalize(self.head(self.backbone(view)), dim=1)) for view in views]
        return self.criterion(scores, [])

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-6)

    @staticmethod
    def transform(size: int) -> Any:
        one: Any = {"crop_sizes": (size,), "crop_counts": (2,), "crop_min_scales": (0.14,), "crop_max_scales": (1.0,)}
        return transforms.SwaVTransform(**one, gaussian_blur=0.0)


class DINO(Peer):
    """Two crops."""

    def build(self, features: int) -> None:
        self.head, self.teacher_head = (self._head(features) for _ in range(2))
        self.teacher_backbone = teacher_of(self.backbone)
        utils.deactivate_requires_grad(self.teacher_head)
        self.criterion = losses.DINOLoss(output_dim=WIDE)

    def before_step(self) -> None:
        follow(nn.Sequential(*self.teacher_backbone, self.teacher_head), self.backbone, self.head)

    @staticmethod
    def _head(features: int) -> nn.Module:
        """With one hidden layer, as the benchmark has it."""
        head = heads.DINOProjectionHead(features, WIDE, 256, WIDE, batch_norm=True)
        layers = [(features, WIDE, nn.BatchNorm1d(WIDE), nn.GELU()), (WIDE, 256, None, None)]
        head.layers = heads.ProjectionHead(layers).layers
        return head

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        wanted = [self.teacher_head(self.teacher_backbone(view)) for view in views]
        return self.criterion(wanted, [self.head(self.backbone(view)) for view in views], epoch=epoch)

    @staticmethod
    def transform(size: int) -> Any:
        return transforms.DINOTransform(global_crop_size=size, n_local_views=0, gaussian_blur=(0.0, 0.0, 0.0))


PEERS: dict[str, type[Peer]] = {
    "simclr": SimCLR, "moco_v2": MoCo, "swav": SwAV, "byol": BYOL, "simsiam": SimSiam, "barlow_twins": BarlowTwins,
    "vicreg": VICReg, "dino": DINO,
}  # fmt: skip


def train(peer: Peer, epochs: Iterable[Iterable[list[Tensor]]], total: int) -> None:
    """All epochs of lists of views; the rate falls to 0 after ``total`` epochs, a step an epoch as lightly's."""
    optimizer = peer.optimizer()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for epoch, batches in enumerate(epochs):
        for views in batches:
            peer.before_step()
            optimizer.zero_grad()
            peer.loss(views, epoch).backward()
            optimizer.step()
        schedule.step()
