"""Compiled augmentations: one graph, no new one for new draws, and the numbers of the eager ones."""

from pathlib import Path

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.augmentations.image_cases import NAMES, build, eight_bit, largest

CONF = Path(__file__).parents[2] / "conf" / "augmentation"
PIPELINES = ["gray", *sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/*.yaml"))]
# Tracing takes seconds: every day only those whose eager form counts samples on a CPU, and the commonest pipeline.
QUICK = {"image/color_jitter", "image/equalize", "image/flip", "image/gaussian_blur", "image/random_resized_crop",
         "simclr/small"}


def marked(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


class Graphs:
    """A compiler that counts the graphs it is given and runs them as they are."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, example_inputs):
        self.count += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def agree(function, batches, backend, tolerance=1e-5):
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    for batch in batches:
        for got, wanted in zip(compiled(*batch), function(*batch), strict=True):
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            assert largest(got, wanted) <= tolerance


def batches(x, epochs=2):
    return [(x, stream_key(0, "test", epoch), torch.arange(epoch * len(x), (epoch + 1) * len(x)))
            for epoch in range(epochs)]


@pytest.mark.parametrize("name", marked(NAMES))
def test_an_operation_is_one_graph_for_all_draws(name):
    op, graphs = build(name), Graphs()

    @torch.no_grad()
    def function(x, key, slot):
        draw = Draw(key, slot)
        return [op(x, draw), *draw.reports.values()]

    agree(function, batches(eight_bit(16, height=36, width=36)), graphs)
    assert graphs.count == 1


def pipeline_of(name, side=16, channels=3):
    overrides = [f"augmentation={name}", f"data.image_size={side}", f"data.channels={channels}"]
    augmentation = config.load(overrides).augmentation
    return ViewPipeline(augmentation.views, augmentation.get("normalize"), channels)


@pytest.mark.parametrize("name", marked(PIPELINES))
@pytest.mark.slow
def test_a_pipeline_is_one_graph_for_all_draws(name):
    channels = 1 if name == "gray" else 3
    pipeline, graphs = pipeline_of(name, 40 if "large" in name else 16, channels), Graphs()

    def function(x, key, slot):
        views, reports = pipeline(x, Draw(key, slot))
        return [*views, *reports.values()]

    x = torch.randint(0, 256, (4, channels, 48, 40), dtype=torch.uint8)
    agree(function, batches(x), graphs)
    assert graphs.count == 1


@pytest.mark.slow
def test_a_pipeline_is_compiled_by_inductor():
    pipeline = pipeline_of("simclr/large", 32)

    def function(x, key, slot):
        return pipeline(x, Draw(key, slot))[0]

    agree(function, batches(torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)), "inductor", 1e-4)
