"""Every file of conf/augmentation builds, and makes finite views of the sizes it promises."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import ssl_zoo.conf  # noqa: F401  (its resolvers)
from ssl_zoo import config
from ssl_zoo.augmentations.image.views import EvalView, ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key

CONF = Path(__file__).parents[2] / "conf" / "augmentation"
FILES = [CONF / "gray.yaml", *sorted(CONF.glob("*/*.yaml"))]
NAMES = [str(path.relative_to(CONF).with_suffix("")) for path in FILES]
SINGLE = (
    "supervised", "instdisc", "cmc", "spcl", "deepcluster", "cpc_v2", "distill", "ijepa", "mae", "noisy_student",
    "rotation", "simmim",
)  # fmt: skip
SEVERAL = {"infomin": (2, 1), "looc": (4, 0), "mice": (3, 0), "fastsiam": (4, 0)}
COUNTS = {
    **{f"{name}/{scale}": (1, 0) for name in SINGLE for scale in ("small", "large")},
    **{f"{name}/{scale}": counts for name, counts in SEVERAL.items() for scale in ("small", "large")},
    "dino/large": (2, 8),
    "dino/small": (2, 4),
    "dinov2/large": (2, 8),
    "dinov2/small": (2, 4),
    "ressl/large_five": (6, 0),
    "emp_ssl/large": (20, 0),
    "emp_ssl/small": (12, 0),
    "ibot/large": (2, 10),
    "ibot/small": (2, 4),
    "lejepa/large": (2, 6),
    "lejepa/minimal": (4, 0),
    "lejepa/small": (4, 0),
    "msn/large": (2, 10),
    "msn/small": (2, 4),
    "solo_cifar/reconstruction": (1, 0),
    "swav/large": (2, 6),
    "swav/large_160": (2, 4),
    "swav/small_multicrop": (2, 4),
    "vicregl/large_multicrop": (2, 6),
}


def config_of(path, name):
    """A file that changes another one is composed with it."""
    node = OmegaConf.load(path)
    return config.load([f"augmentation={name}"]).augmentation if "defaults" in node else node


@pytest.mark.parametrize(("path", "name"), list(zip(FILES, NAMES, strict=True)), ids=NAMES)
def test_file(path, name):
    size, channels = (32, 1) if name == "gray" else (32, 3) if path.stem.startswith("small") else (64, 3)
    node = config_of(path, name)
    others = {"data": {"image_size": size, "batch_size": 4}, "global_views": 2, "backbone": {"_target_": "vit"}}
    conf = OmegaConf.create({"augmentation": node, **others}).augmentation
    assert set(conf) == {"views", "eval", "normalize", "where"}
    pipeline = ViewPipeline(conf.views, conf.normalize, channels)
    image = torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8)
    views, _ = pipeline(image, Draw(stream_key(0, "train", 0), torch.arange(4)))
    assert pipeline.counts == COUNTS.get(name, (2, 0))
    assert all(view.isfinite().all() for view in views)
    evaluated = EvalView(conf.eval.ops, size, conf.normalize, channels)(image)
    assert evaluated.shape == (4, views[0].shape[-3], size, size)  # channels as in training: 2 behind a Sobel filter


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_small_images_are_not_blurred_and_every_file_names_its_source(path):
    text = path.read_text()
    assert not path.stem.startswith("small") or "gaussian_blur" not in text
    assert any(source in text for source in ("https://", "pytorch/vision references", "Chosen for this project"))
