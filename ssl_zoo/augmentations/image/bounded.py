"""Boxes of TensorFlow's crop."""

from __future__ import annotations

import torch
from torch import Tensor

COVERED = 0.1   # least share of the image, tf.image's min_object_covered where the object is the image


def bounded_boxes(shapes: Tensor, places: Tensor, height: int, width: int, scale: tuple[float, float],
                  ratio: tuple[float, float]) -> Tensor:
    """``[B, 4]`` int64 boxes (top, left, height, width) as ``tf.image.sample_distorted_bounding_box`` draws them.

    The ratio is uniform, and then the height among those with which a box of this ratio lies in the image and in the
    range of areas: boxes are smaller than torchvision's, whose area is uniform. A box that covers less than a tenth of
    the image is drawn again, and after the last attempt (the authors of SimCLR allow 100) it is the whole image.

    Args:
        shapes: ``[B, attempts, 2]`` uniform numbers for ratio and height.
        places: ``[B, 2]`` uniform numbers for top and left.
        scale: range of the share of the image's area.
        ratio: range of width / height.
    """
    slope, rise = shapes.double().unbind(2)                                                      # 2 x [B, attempts]
    slope = ratio[0] + (ratio[1] - ratio[0]) * slope
    small, large = (share * height * width for share in scale)
    most = (large / slope).sqrt().round()
    most = torch.where((most * slope).round() > width, ((width + 0.5) / slope).floor(), most)
    most = (most - ((most * slope).round() > width).double()).clamp(max=height)
    least = torch.minimum((small / slope).sqrt().round(), most)
    h = least + (rise * (most - least + 1)).floor()
    h = h + (h * (h * slope).round() < small).double()
    h = h - (h * (h * slope).round() > large).double()
    w = (h * slope).round()
    fits = (h * w >= max(small, COVERED * height * width)) & (h * w <= large) & (h <= height) & (w <= width)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1, keepdim=True)
    h = torch.where(found, h.gather(1, first), float(height))                                    # [B, 1]
    w = torch.where(found, w.gather(1, first), float(width))
    spare = torch.cat([height - h, width - w], dim=1)                                            # [B, 2]
    corner = (places.double() * spare).floor()   # the last place is never taken, as there
    return torch.cat([corner, h, w], dim=1).long()
