"""The kernels for a GPU, in Triton's interpreter against the operations of torch that they stand for; and compiled.

``benchmarks/gpu.py`` compares them on a GPU, where there is one (``views_cpu_gpu``, ``random_numbers``).
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import torch

from ssl_zoo.augmentations import accelerated
from ssl_zoo.augmentations.image.blur import GaussianBlur
from ssl_zoo.augmentations.image.color import ColorJitter
from ssl_zoo.augmentations.image.geometry import RandomResizedCrop
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.helpers import quickly

triton = pytest.importorskip("triton", reason="torch has no Triton on this system")
ROWS = 6


def loaded(interpret: bool) -> ModuleType:
    """A copy of the module; Triton reads its variable when a kernel is defined."""
    spec = importlib.util.find_spec("ssl_zoo.augmentations.kernels")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", str(int(interpret)))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return loaded(interpret=True)


@pytest.fixture
def used(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Operations on CPU tensors take the kernels."""
    for module in ("rng", "image.geometry", "image.color", "image.blur"):
        monkeypatch.setattr(f"ssl_zoo.augmentations.{module}.kernels_for", lambda x: kernels)
    return kernels


def draw(rows: int = ROWS, seed: int = 0) -> Draw:
    return Draw(stream_key(seed, "train", 1), torch.arange(rows))


def images(channels: int = 3) -> torch.Tensor:
    x = torch.rand(ROWS, channels, 40, 37, generator=torch.Generator().manual_seed(0))
    x[0, :, :5], x[1, :, :5], x[2] = 0.0, 1.0, 0.5  # black, white and grey have no hue
    return x


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def test_random_bits_are_the_same(used: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers() -> list[torch.Tensor]:
        child = draw(700).child("view")
        return [child.uniform("u"), child.uniform("u", 3, 2), child.normal("n", 5), child.integers("i", 1000),
                child.permutation(7, "p"), child.uniform("none", 0)]  # fmt: skip

    ours = numbers()
    monkeypatch.setattr("ssl_zoo.augmentations.rng.kernels_for", lambda x: None)
    for one, other in zip(ours, numbers(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize(
    ("scale", "ratio", "sides"),
    [
        pytest.param((0.08, 1), (3 / 4, 4 / 3), (40, 37), id="usual"),
        pytest.param((0.9, 1), (3.0, 4.0), (40, 37), id="most do not fit", marks=pytest.mark.slow),
        pytest.param((0.05, 0.3), (0.5, 2.0), (500, 375), id="large", marks=pytest.mark.slow),
    ],
)
def test_boxes_are_the_same(
    scale: tuple[float, float], ratio: tuple[float, float], sides: tuple[int, int], used: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    crops = [RandomResizedCrop(16, scale, ratio, misfit=misfit) for misfit in ("redraw", "clamp")]
    ours = [crop.boxes(draw(3000), *sides) for crop in crops]
    monkeypatch.setattr("ssl_zoo.augmentations.image.geometry.kernels_for", lambda x: None)
    assert all(torch.equal(boxes, crop.boxes(draw(3000), *sides)) for boxes, crop in zip(ours, crops, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mirrored", [None, torch.arange(ROWS) % 2 == 0], ids=["as it is", "flipped"])
@pytest.mark.parametrize("size", [16, pytest.param(48, marks=pytest.mark.slow)])
@pytest.mark.parametrize("interpolation", ["bilinear", pytest.param("bicubic", marks=pytest.mark.slow)])
def test_crops_are_the_same(
    interpolation: str, size: int, mirrored: torch.Tensor | None, channels: int, used: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    crop, x = RandomResizedCrop(size, interpolation=interpolation), images(channels)
    ours = crop(x, draw(), mirrored=mirrored)
    monkeypatch.setattr("ssl_zoo.augmentations.image.geometry.kernels_for", lambda x: None)
    assert apart(ours, crop(x, draw(), mirrored=mirrored)) < 1e-6


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_without_antialiasing_are_the_same(
    interpolation: str, used: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop, x = RandomResizedCrop(9, interpolation=interpolation, antialias=False), images()
    ours = crop(x, draw())
    monkeypatch.setattr("ssl_zoo.augmentations.image.geometry.kernels_for", lambda x: None)
    assert apart(ours, crop(x, draw())) < 1e-6
    assert apart(ours, RandomResizedCrop(9, interpolation=interpolation)(x, draw())) > 0.1


@pytest.mark.parametrize("hue", [0.0, 0.5])
@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))])
def test_jitter_is_the_same(seed: int, hue: float, used: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    jitter, x = ColorJitter(0.8, 0.8, 0.8, hue, p=0.8), images()
    ours = jitter(x, draw(seed=seed))
    monkeypatch.setattr("ssl_zoo.augmentations.image.color.kernels_for", lambda x: None)
    assert apart(ours, jitter(x, draw(seed=seed))) < 1e-5
    assert apart(ours, x) > 0.1


@pytest.mark.parametrize(("channels", "padding"), [(1, "reflect"), (3, "reflect"), (3, "zeros")])
@pytest.mark.parametrize("kernel", quickly([3, 9, 21], [9]))
def test_blur_is_the_same(
    kernel: int, channels: int, padding: str, used: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    blur, x = GaussianBlur(37, p=0.5, kernel=kernel, padding=padding), images(channels)
    ours = blur(x, draw())
    monkeypatch.setattr("ssl_zoo.augmentations.image.blur.kernels_for", lambda x: None)
    assert apart(ours, blur(x, draw())) < 1e-6
    assert [bool((ours[i] != x[i]).any()) for i in range(ROWS)].count(True) in range(1, ROWS)


FLOAT, LONG, NUMBER = "*fp32", "*i64", "i32"
SIGNATURES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "_bits_kernel": ({"counter": LONG, "key": "i64", "out": FLOAT}, {"uniform": True}),
    "_boxes_kernel": ({"shapes": FLOAT, "places": FLOAT, "limits": "*fp64", "out": LONG},
                      {"attempts": 10, "clamps": True}),
    "_crop_kernel": (
        {"x": FLOAT, "out": FLOAT, "boxes": LONG, "mirrored": "*i8"},
        {"channels": 3, "bicubic": True, "flips": True, "widens": False},
    ),
    "_mean_kernel": ({"x": FLOAT, "order": LONG, "factors": FLOAT, "sums": FLOAT}, {}),
    "_jitter_kernel": ({"x": FLOAT, "out": FLOAT, "order": LONG, "factors": FLOAT, "means": FLOAT}, {}),
    "_blur_kernel": ({"x": FLOAT, "out": FLOAT, "weights": FLOAT, "applied": "*i8"},
                     {"across": True, "mirrors": False}),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_it_compiles_for_a_gpu_that_is_not_there(name: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(loaded(interpret=False), name)
    pointers, constants = SIGNATURES[name]
    constants = {**constants, "block": 512}
    kinds = {arg: "constexpr" if arg in constants else pointers.get(arg, NUMBER) for arg in kernel.arg_names}
    values = {(kernel.arg_names.index(arg),): value for arg, value in constants.items()}
    made = triton.compile(ASTSource(kernel, kinds, values), target=GPUTarget("cuda", 90, 32))
    assert len(made.asm["cubin"]) > 1000


def test_kernels_are_for_gpus_and_not_for_code_that_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = ModuleType("kernels")
    monkeypatch.setattr(accelerated, "_kernels", lambda device: marker)
    assert accelerated.kernels_for(torch.zeros(1)) is None
    there = torch._subclasses.fake_tensor.FakeTensorMode()
    with there:
        x, exact = torch.empty(1, device="cuda:0"), torch.empty(1, device="cuda:0", dtype=torch.float64)
    assert accelerated.kernels_for(x) is marker
    assert accelerated.kernels_for(exact) is None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert accelerated.kernels_for(x) is None
