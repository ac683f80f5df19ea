"""RandAugment as Google's TPU code has it, with Cutout among its operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image import rand_augment as ops
from ssl_zoo.augmentations.image.common import full_precision
from ssl_zoo.augmentations.image.erasing import inside
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.ranges import NonNegative, Size

CUTOUT = 16  # behind the operations of ops
LEVELS = 10.0  # of magnitude; larger ones go on in the same lines
GREY = 128 / 255  # of what comes from outside


@register("image/rand_augment_tpu")
class TPURandAugment(nn.Module):
    """``num_ops`` of 16 operations, all of one magnitude (randaugment.py of google-research/noisystudent).

    As theirs, contrast blends with a grey of (height x width / 256) / 255, not with the image's mean brightness.

    Args:
        num_ops: steps.
        magnitude: of 10 levels, and beyond: 27 is 2.7 times what level 10 is.
        translate, cutout: at level 10, in pixels: a translation, and half the side of a grey square.
    """

    rounds = True
    colour_step = True

    def __init__(self, num_ops: Size = 2, magnitude: NonNegative = 10.0, translate: NonNegative = 100.0,
                 cutout: NonNegative = 40.0):
        super().__init__()
        self.num_ops, self.level, self.cutout = num_ops, magnitude / LEVELS, cutout
        self.ranges = ops.Ranges(0.3, translate, translate, 30.0, whole_pixels=False)

    def parameters_of(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """``[B, num_ops]`` operations and their magnitudes."""
        op = 1 + draw.integers("op", CUTOUT, self.num_ops)
        level = torch.full_like(op, self.level, dtype=torch.float64)
        value = self.ranges.magnitudes(op, level, draw.uniform("sign", self.num_ops) < 0.5)
        value = torch.where((op >= ops.BRIGHTNESS) & (op <= ops.SHARPNESS), 0.1 + 1.8 * level, value)
        value = torch.where(op == ops.POSTERIZE, (4.0 * level).floor().clamp(max=8.0), value)
        value = torch.where(op == ops.SOLARIZE, (256.0 * level).floor() / 255.0, value)
        return op, torch.where(op == ops.SOLARIZE_ADD, (110.0 * level).floor() / 255.0, value)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        op, magnitude = self.parameters_of(draw)
        centre = draw.uniform("place", self.num_ops, 2).double()                             # [B, num_ops, 2]
        for step in range(self.num_ops):
            x = self.applied(x, op[:, step], magnitude[:, step], centre[:, step])
        return x

    def applied(self, x: Tensor, op: Tensor, magnitude: Tensor, centre: Tensor) -> Tensor:
        """One operation for each sample; ``centre [B, 2]`` in [0, 1): of a square."""
        height, width = x.shape[-2:]
        half = int(self.level * self.cutout)
        sides = torch.full_like(op, 2 * half)
        top, left = ((centre[:, i] * side).floor().long() - half for i, side in enumerate((height, width)))
        hidden = (op == CUTOUT).view(-1, 1, 1, 1) & inside(torch.stack((top, left, sides, sides), 1), x)
        grey = min(height * width / 256, 255.0) / 255
        blended = (grey + magnitude.to(x.dtype).view(-1, 1, 1, 1) * (x - grey)).clamp(0.0, 1.0)
        contrast = op == ops.CONTRAST
        others = ops.apply_step(x, torch.where(contrast, ops.IDENTITY, op), magnitude, fill=GREY)
        return torch.where(hidden, GREY, torch.where(contrast.view(-1, 1, 1, 1), blended, others))
