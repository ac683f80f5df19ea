"""(a) Views of images in memory, and the share of the random numbers in their time."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from ssl_zoo import config
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.data.image.synthetic import synthetic

SIZE = 32
SCALE = (0.08, 1.0)
JITTER = (0.4, 0.4, 0.4, 0.1)
JITTER_P, GRAY_P = 0.8, 0.2


def images(count: int) -> Tensor:
    """``uint8 [count, 3, 32, 32]``."""
    source: Any = synthetic(SIZE, 3, samples=count, val_samples=0).train
    return source.images


def pipeline(augmentation: str) -> ViewPipeline:
    """The views of ``conf/augmentation/NAME`` for small images."""
    cfg = config.plain(config.load(["data=synthetic", f"augmentation={augmentation}", f"data.image_size={SIZE}"]))
    return ViewPipeline(cfg["augmentation"]["views"], cfg["augmentation"]["normalize"])


def ours(x: Tensor, augmentation: str) -> Callable[[], list[Tensor]]:
    views, slots = pipeline(augmentation), torch.arange(len(x))
    return lambda: views(x, Draw(stream_key(0, "train", 0), slots))[0]


def torchvision_transform(transforms: Any, pil: bool) -> Callable[[Any], Tensor]:
    """SimCLR's recipe in torchvision, ``transforms`` of either generation."""
    bicubic = transforms.InterpolationMode.BICUBIC
    ops = [
        transforms.RandomResizedCrop(SIZE, SCALE, interpolation=bicubic, antialias=True),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([transforms.ColorJitter(*JITTER)], p=JITTER_P),
        transforms.RandomGrayscale(p=GRAY_P),
    ]
    return transforms.Compose([*ops, transforms.ToTensor()] if pil else ops)


def on_pil(x: Tensor) -> Callable[[], list[Tensor]]:
    """Two views of each PIL image, one by one, as ``torchvision.datasets`` with a transform makes them."""
    from torchvision import transforms
    from torchvision.transforms.functional import to_pil_image

    change, pictures = torchvision_transform(transforms, pil=True), [to_pil_image(image) for image in x]
    return lambda: [torch.stack([change(picture) for picture in pictures]) for _ in range(2)]


def on_tensors(x: Tensor) -> Callable[[], list[Tensor]]:
    """torchvision v2 on each uint8 tensor; a batch in one call would share one draw."""
    from torchvision.transforms import v2

    change = torchvision_transform(v2, pil=False)
    return lambda: [torch.stack([change(image) for image in x]).float() / 255 for _ in range(2)]


def on_kornia(x: Tensor) -> Callable[[], list[Tensor]]:
    """The whole batch at once, draws per sample; ``slice`` is kornia's default and its advice for speed."""
    import kornia.augmentation as K

    crop = K.RandomResizedCrop((SIZE, SIZE), SCALE, resample="bicubic", align_corners=False, cropping_mode="slice")
    color, gray = K.ColorJitter(*JITTER, p=JITTER_P), K.RandomGrayscale(p=GRAY_P)
    change = K.AugmentationSequential(crop, K.RandomHorizontalFlip(), color, gray, data_keys=["input"])

    def views() -> list[Tensor]:
        pixels = x.float() / 255
        with torch.no_grad():
            return [change(pixels) for _ in range(2)]

    return views


def race(run: Run, augmentation: str = "simclr", peer: Callable[[Tensor], Any] | None = None) -> Measured:
    x = images(run.pick(512, 16))
    make = None if peer is None else functools.partial(peer, x)
    return run.race(ours(x, augmentation), make).per_second(len(x))


class Noted(Draw):
    """Draws as usual and remembers every call, so that the same calls can be made again without the pixels."""

    def __init__(self, *args: Any, calls: list[Callable[[], Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls = calls

    def child(self, name: Hashable, path: str | None = None) -> Draw:
        self.calls.append(functools.partial(Draw.child, self, name, path))
        made = super().child(name, path)
        return Noted(made.key, made.slot, made.device, made.reports, made.path, calls=self.calls)

    def uniform(self, name: Hashable, *shape: int) -> Tensor:
        self.calls.append(functools.partial(Draw.uniform, self, name, *shape))
        return super().uniform(name, *shape)

    def normal(self, name: Hashable, *shape: int) -> Tensor:
        self.calls.append(functools.partial(Draw.normal, self, name, *shape))
        return super().normal(name, *shape)

    def integers(self, name: Hashable, high: int, *shape: int) -> Tensor:
        self.calls.append(functools.partial(Draw.integers, self, name, high, *shape))
        return super().integers(name, high, *shape)

    def permutation(self, n: int, name: Hashable = "") -> Tensor:
        self.calls.append(functools.partial(Draw.permutation, self, n, name))
        return super().permutation(n, name)


def rng_share(run: Run) -> Measured:
    """All draws of SimCLR's views alone, against the views with their draws; milliseconds a batch."""
    x = images(run.pick(512, 16))
    calls: list[Callable[[], Any]] = []
    pipeline("simclr")(x, Noted(stream_key(0, "train", 0), torch.arange(len(x)), calls=calls))

    def draws() -> None:
        for call in calls:
            call()

    return run.race(draws, lambda: ours(x, "simclr"), rounds=15).times(1e3)


PIL = functools.partial(race, peer=on_pil)
KORNIA = functools.partial(race, peer=on_kornia)
V2 = functools.partial(race, peer=on_tensors)
RATE = "images/s"  # of which each gives all views of the pipeline

CASES = [
    Case("augment_32_vs_pil", PIL, RATE, "torchvision v1 on PIL images", bar=">= 7"),
    Case("augment_32_vs_kornia", KORNIA, RATE, "kornia on the batch", needs="kornia", bar=">= 1.6"),
    Case("augment_32_vs_torchvision_v2", V2, RATE, "torchvision v2 on each tensor"),
    Case("augment_32_byol", functools.partial(race, augmentation="byol"), RATE),
    Case("augment_32_swav", functools.partial(race, augmentation="swav"), RATE),
    Case("rng_share", rng_share, "ms", "the whole pipeline", bar="<= 0.05", note="512 images, two views"),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
