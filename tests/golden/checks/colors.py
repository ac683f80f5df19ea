"""Colour operations and blur of the authors' TensorFlow and JAX pipelines, where ours (torchvision's) equal them.

The recordings are not clipped to [0, 1]; ours are, as the authors' pipelines after each operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.image.blur import GaussianBlur
from ssl_zoo.augmentations.image.color import ColorJitter, Grayscale, Solarize, rotate_hue
from ssl_zoo.augmentations.image.color_hsv import ColorJitterHSV
from ssl_zoo.augmentations.rng import RecordedDraw
from tests.golden.compare import close
from tests.golden.harness import Values


def picture(array: np.ndarray) -> Tensor:
    return torch.tensor(array).permute(2, 0, 1)[None]


def clipped(array: np.ndarray) -> np.ndarray:
    return picture(array).clamp(0, 1).numpy()


def always(**values: Any) -> RecordedDraw:
    """A draw that applies the operation, with the given numbers for one sample."""
    return RecordedDraw({"apply": torch.zeros(1), "order": torch.arange(4)[None], **values})


def blurred(image: Tensor, sigma: float, kernel: float) -> tuple[Tensor, int]:
    """Blur with the authors' taps, ``2 * int(kernel / 2) + 1``, and its radius."""
    radius = int(kernel / 2)
    blur = GaussianBlur(image.shape[-1], 1.0, [sigma, sigma], 2 * radius + 1)
    return blur(image, always(sigma=torch.zeros(1))), radius


def check_blur(image: Tensor, sigma: float, kernel: float, wanted: np.ndarray, what: str) -> None:
    """Inside the border: the authors pad with zeros, which darkens it, where torchvision and we mirror the image."""
    got, radius = blurred(image, sigma, kernel)
    inner = slice(radius, image.shape[-1] - radius)
    close(got[..., inner, inner], picture(wanted)[..., inner, inner].numpy(), what)


def check_shared(h: Any, arrays: Values) -> Tensor:
    image = picture(arrays["image"])
    grey = Grayscale(1.0)(image, always())
    close(grey, picture(arrays["grayscale"]).numpy(), "grayscale")
    close(rotate_hue(image, torch.tensor([h["hue_delta"]])).clamp(0, 1), clipped(arrays["hue"]), "hue")
    return image


def check_hsv(h: Any, arrays: Values, image: Tensor, **recorded: tuple[float, str]) -> None:
    """TensorFlow's contrast is about each channel's mean, its saturation HSV's; BYOL adds to the brightness."""
    for name, (value, array) in recorded.items():
        jitter = ColorJitterHSV(**{name: [value, value]})
        close(jitter(image.clone(), always(factors=torch.zeros(1, 4))), clipped(arrays[array]), name)


def check_simclr(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    image = check_shared(h, arrays)
    check_hsv(
        h, arrays, image, contrast=(h["contrast_factor"], "contrast"), saturation=(h["saturation_factor"], "saturation")
    )
    factor = h["brightness_factor"]
    jitter = ColorJitter(brightness=[factor, factor])
    close(jitter(image, always(factors=torch.zeros(1, 4))), clipped(arrays["brightness_v2"]), "brightness")
    for i, sigma in enumerate(h["sigmas"]):
        check_blur(image, sigma, h["blur_kernel_size_arg"], arrays[f"blur_{i}"], f"blur of sigma {sigma}")


def check_byol(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    image = check_shared(h, arrays)
    factors = {name: (h[f"{name}_factor"], name) for name in ("contrast", "saturation")}
    check_hsv(h, arrays, image, brightness=(h["brightness_delta"], "brightness"), **factors)
    close(Solarize(1.0)(image, always()), picture(arrays["solarized"]).numpy(), "solarize")
    check_blur(image, h["sigma"], h["kernel_size"], arrays["blur"], "blur")


CHECKS = {"simclr": {"augment_ops*": check_simclr}, "byol": {"augment_ops*": check_byol}}
