"""A second look at an image, by which features are judged without labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image.views import EvalView

MARGIN = 8  # an eighth of the image is cut off on each side


class SecondLook(EvalView):
    """The evaluation view of the mirrored middle of an image: what stays the same thing and becomes other pixels.

    Args:
        plain: The evaluation view.
    """

    def __init__(self, plain: EvalView) -> None:
        nn.Module.__init__(self)
        self.plain = plain

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> views, as the evaluation view gives them."""
        return self.plain(self._look(images))

    def one(self, image: Tensor) -> Tensor:
        """``[C, H, W]`` of any size -> its view."""
        return self.plain.one(self._look(image[None])[0])

    def hint(self) -> Callable[[int, int], int]:
        """By how much a file may be decoded smaller, as the evaluation view says it of the middle."""
        shrink = self.plain.hint()
        return lambda height, width: shrink(height - 2 * (height // MARGIN), width - 2 * (width // MARGIN))

    def _look(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        down, across = height // MARGIN, width // MARGIN
        # Stored values are moved and never mixed: some may stand for missing pixels.
        rows, columns = torch.arange(down, height - down), torch.arange(across, width - across).flip(0)
        if not self.plain.view.crops_first:  # which would make the size of the view
            rows = rows[torch.arange(height) * len(rows) // height]
            columns = columns[torch.arange(width) * len(columns) // width]
        return images[..., rows.to(images.device)[:, None], columns.to(images.device)]
