"""Every file of conf/augmentation builds, and makes finite views of the sizes it promises."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.augmentations.views import EvalView, ViewPipeline

CONF = Path(__file__).parents[2] / "conf" / "augmentation"
FILES = [CONF / "gray.yaml", *sorted(CONF.glob("*/*.yaml"))]
NAMES = [str(path.relative_to(CONF).with_suffix("")) for path in FILES]
COUNTS = {
    **{f"{name}/{scale}": (1, 0) for name in ("supervised", "instdisc", "cmc", "spcl") for scale in ("small", "large")},
    **{f"infomin/{scale}": (2, 1) for scale in ("small", "large")},
    **{f"looc/{scale}": (4, 0) for scale in ("small", "large")},
    **{f"mice/{scale}": (3, 0) for scale in ("small", "large")},
    "swav/large": (2, 6),
    "swav/small_multicrop": (2, 4),
}


@pytest.mark.parametrize(("path", "name"), list(zip(FILES, NAMES, strict=True)), ids=NAMES)
def test_file(path, name):
    size, channels = (32, 1) if name == "gray" else (32, 3) if path.stem.startswith("small") else (64, 3)
    config = OmegaConf.create(
        {"augmentation": OmegaConf.load(path), "data": {"image_size": size}, "global_views": 2}
    ).augmentation
    assert set(config) == {"views", "eval", "normalize", "where"}
    pipeline = ViewPipeline(config.views, config.normalize, channels)
    image = torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8)
    views, _ = pipeline(image, Draw(stream_key(0, "train", 0), torch.arange(4)))
    assert pipeline.counts == COUNTS.get(name, (2, 0))
    assert all(view.isfinite().all() for view in views)
    assert EvalView(config.eval.ops, size, config.normalize, channels)(image).shape == (4, channels, size, size)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_small_images_are_not_blurred_and_every_file_names_its_source(path):
    text = path.read_text()
    assert not path.stem.startswith("small") or "gaussian_blur" not in text
    assert any(source in text for source in ("https://", "pytorch/vision references", "Chosen for this project"))
