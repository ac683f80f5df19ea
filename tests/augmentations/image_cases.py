"""Images, draws and one set of options for every image operation, for the tests beside it."""

import torch

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, stream_key

# Only what the defaults leave out, or what makes an operation do more; an operation that is not here takes no options.
OPTIONS = {
    "image/color_jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8},
    "image/color_jitter_hsv": {"brightness": 0.4, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8},
    "image/cutout": {"side": 9, "p": 0.7, "value": [0.2, 0.4, 0.6]},
    "image/grayscale": {"p": 0.4},
    "image/jigsaw": {"size": 8},
    "image/noisy_rand_augment": {"magnitude": 5, "p": 0.8, "fill": [0.485, 0.456, 0.406]},
    "image/patch_grid": {"size": 8},
    "image/posterize": {"bits": [2, 6]},
    "image/random_affine": {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": [-5, 5, -9, 9],
                            "interpolation": "bilinear"},
    "image/resize_random_crop": {"shorter": 40},
    "image/spaced_tiles": {"size": 8},
    "image/random_erasing": {"p": 0.7, "value": "random"},
    "image/random_resized_crop": {"interpolation": "bicubic"},
    "image/random_rotation": {"degrees": 45, "interpolation": "bilinear", "fill": 0.3},
    "image/sharpness": {"factor": [0.0, 2.0]},
}
NAMES = [name for name in registry.names() if name.startswith("image/")]


def build(name, size=32, **options):
    return registry.build({name: options or OPTIONS.get(name, {})}, size)


def images(batch=32, channels=3, height=32, width=32, seed=0):
    """Noise over a gradient, with grey, black, white and saturated pixels among them: where hues are undefined."""
    x = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    x[:, :, 0, :8] = x[:, :1, 0, :8]
    x[:, :, 1, :4], x[:, :, 1, 4:8] = 0.0, 1.0
    x[:, 0, 2, :8] = 1.0
    return x


def eight_bit(batch=32, channels=3, height=32, width=32):
    """The same images on the 8-bit grid, with an image of one value and one of two values among them."""
    x = images(batch, channels, height, width)
    x[-1], x[0] = 0.3, 0.0
    x[0, :, : height // 2] = 0.7
    return (x * 255).round() / 255


def as_uint8(x):
    return (x * 255).round().to(torch.uint8)


def draw(batch=32, epoch=0):
    return Draw(stream_key(0, "test", epoch), torch.arange(batch))


def largest(a, b):
    return (a.double() - b.double()).abs().max().item()
