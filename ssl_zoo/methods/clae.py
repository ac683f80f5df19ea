"""CLAE: contrast with an adversarial view, which is normalised by batch norms of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import require
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.losses.mixed_targets import n_pair
from ssl_zoo.losses.spread import instance_spread
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dual_norm import DualNorm
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Share, Size


def _plain(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Each row of ``a`` finds its partner among the rows of ``b``."""
    return n_pair(a, gather(b), torch.arange(len(a), device=a.device) + rank() * len(a), temperature)


def _uel(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """InvaSpread's, without gradient of the second factor."""
    z = torch.cat([a, b])                                                            # [2B, D]
    row = torch.arange(len(z), device=z.device)
    own, partner = (rank() * len(z) + place for place in (row, row.roll(len(a))))
    return instance_spread(z, gather(z.detach()), own, partner, temperature)


def _simclr(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """NT-Xent, averaged over the 2B anchors."""
    return nt_xent(a, b, gather(a), gather(b), rank() * len(a), temperature)


BASES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"plain": _plain, "uel": _uel, "simclr": _simclr}


class CLAE(Method):
    """Contrastive learning with adversarial examples, Ho & Vasconcelos 2020, https://arxiv.org/abs/2010.12050.

    As the authors' code: the adversarial view starts equal to view 1 and takes one step of ``epsilon`` along the sign
    of the gradient that makes it unlike view 1 and like the others; it is not clipped to the range of images; its batch
    norms have weights and statistics of their own (:class:`ssl_zoo.modules.dual_norm.DualNorm`), and serve view 1 as
    the anchor of the attack.

    Args:
        projector: Head on the features.
        base: Loss of a pair of views: ``plain`` (one direction), ``uel`` (InvaSpread) or ``simclr`` (NT-Xent).
        temperature: > 0; 0.5 for ``simclr``, 0.1 for the others.
        epsilon: Length of the step in units of the normalised view.
        strength: Of the adversarial term (alpha).
        adversarial_momentum: Of the running statistics of the adversarial batch norms.
        repeat_anchor: Embed view 1 a second time for the adversarial term, as the authors' ``plain`` does: the same
            loss, but its running statistics move twice.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    tensor_views = True
    compares = "batch"
    unsplittable = "takes a gradient inside of its step (the attack), behind which FSDP takes the parameters apart"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        base: Literal["plain", "uel", "simclr"] = "simclr",
        temperature: Positive = 0.5,
        epsilon: NonNegative = 0.03,
        strength: NonNegative = 1.0,
        adversarial_momentum: Share = 0.01,
        repeat_anchor: bool = False,
        grad_cache: Size = 1,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.base", base, BASES)
        self.projector = projector(backbone.out_features)
        self.adversarial = DualNorm(self.student, adversarial_momentum)
        self.contrast = BASES[base]
        self.temperature = temperature
        self.epsilon, self.strength = epsilon, strength
        self.repeat_anchor, self.grad_cache = repeat_anchor, grad_cache

    def encode(self, view: Tensor) -> tuple[Tensor, Tensor]:
        h = self.backbone(view)                                                      # [B, F]
        return h, nn.functional.normalize(self.projector(h), dim=1)                  # [B, D]

    def encode_adversarial(self, view: Tensor) -> tuple[Tensor, Tensor]:
        with self.adversarial.inside(self.student):
            return self.encode(view)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        x = [*batch.views, self.attack(batch.views[0])]                              # 3 x [B, ...]
        h, a = in_chunks(self, self.encode, x[0], self.grad_cache)                   # [B, F], [B, D]
        _, b = in_chunks(self, self.encode, x[1], self.grad_cache)                   # -, [B, D]
        loss = self.contrast(a, b, self.temperature)
        if self.repeat_anchor:
            _, a = in_chunks(self, self.encode, x[0], self.grad_cache)
        _, c = in_chunks(self, self.encode_adversarial, x[2], self.grad_cache)       # -, [B, D]
        adversarial = self.contrast(a, c, self.temperature)
        return {"loss": loss + self.strength * adversarial, "features": h, "clean": loss, "adversarial": adversarial}

    def attack(self, view: Tensor) -> Tensor:
        """``[B, C, H, W]`` view moved by ``epsilon`` in every pixel, up the gradient of the method's own loss."""
        anchor = in_chunks(self, self.encode_adversarial, view, self.grad_cache)[1].detach()
        start = view.detach().clone().requires_grad_()
        moved = in_chunks(self, self.encode_adversarial, start, self.grad_cache)[1]
        loss = len(view) * self.contrast(anchor, moved, self.temperature)  # of a mean it would underflow in float16
        (gradient,) = torch.autograd.grad(loss, start)
        return view.detach() + self.epsilon * gradient.sign()
