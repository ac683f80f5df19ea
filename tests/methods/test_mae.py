"""MAE and SimMIM: losses of networks that paint one grey, what an encoder may see, pictures, and wrong numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_zoo.backbones.image import tiny
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.reconstruction import patchify
from tests.helpers import SIZE, tiny_batch, tiny_method

BOTH = ["mae", "simmim"]
PATCH = 2  # tiny_method's: 8 x 8 patches of 16 px


def painter(name: str, *extra: str) -> Any:
    """In float64, with a last layer that paints 0 everywhere."""
    standard = [] if name == "simmim" or extra else ["method.normalize_pixels=true"]
    method: Any = tiny_method(name, [*standard, *extra], torch.float64)
    last = method.decoder.pred if name == "mae" else method.head
    last.weight.data.zero_()
    last.bias.data.zero_()
    return method


def batch() -> Any:
    return tiny_batch([SIZE], dtype=torch.float64)


def test_mae_that_paints_zeros_pays_the_variance_of_standard_patches() -> None:
    # Unbiased variance 1 over 12 values: their mean square is 11 / 12, less the 1e-6 below the root.
    assert painter("mae").training_loss(batch())["loss"].item() == pytest.approx(11 / 12, abs=1e-5)


def test_without_standard_pixels_it_pays_their_squares() -> None:
    method, data = painter("mae", "method.normalize_pixels=false"), batch()
    data.views = [torch.full_like(data.views[0], 3.0)]
    assert method.training_loss(data)["loss"].item() == pytest.approx(9.0)


def test_simmim_that_paints_zeros_pays_the_absolute_value_of_hidden_pixels() -> None:
    method, data = painter("simmim"), batch()
    hidden = method.draw(data.views[0], data.rng)
    patches = patchify(data.views[0], PATCH)
    assert hidden.sum(1).tolist() == [4 * 10] * len(hidden)  # 60 % of 16 squares, rounded up, of four patches each
    wanted = patches[hidden].abs().mean().item()
    assert method.training_loss(data)["loss"].item() == pytest.approx(wanted, rel=1e-12)


def test_simmim_equals_the_authors_pixel_by_pixel() -> None:
    method, data = tiny_method("simmim", dtype=torch.float64), batch()
    (view,) = data.views
    hidden = method.draw(view, data.rng)  # type: ignore[operator]
    tokens = method.backbone.forward_tokens(view, mask=hidden, mask_token=method.mask_token).patches
    maps = tokens.transpose(1, 2).unflatten(2, (8, 8))  # their head: a 1 x 1 convolution and a pixel shuffle
    rows = method.head.weight.unflatten(0, (PATCH, PATCH, 3)).permute(2, 0, 1, 3).flatten(0, 2)
    bias = method.head.bias.unflatten(0, (PATCH, PATCH, 3)).permute(2, 0, 1).flatten()
    painted = torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(maps, rows[..., None, None], bias), PATCH)
    mask = hidden.view(-1, 8, 8).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).unsqueeze(1)
    wanted = ((view - painted).abs() * mask).sum() / mask.sum() / 3
    assert method.training_loss(data)["loss"].item() == pytest.approx(wanted.item(), rel=1e-10)


def test_evaluation_reads_the_class_token_of_mae_and_the_mean_patch_of_simmim() -> None:
    view = batch().views[0].float()
    for name in BOTH:
        method = tiny_method(name).eval()
        tokens = method.backbone.forward_tokens(view)
        wanted = tokens.cls if name == "mae" else tokens.patches.mean(1)
        assert wanted is not None
        torch.testing.assert_close(method.embed(view), wanted)


def drawn(method: Any, view: Tensor, rng: Any) -> tuple[Any, Tensor]:
    """What ``predict`` takes, and the mask ``[B, N]`` in it."""
    got = method.draw(view, rng)
    return got, getattr(got, "mask", got)


@pytest.mark.parametrize("name", BOTH)
def test_predictions_do_not_depend_on_hidden_pixels(name: str) -> None:
    method: Any = tiny_method(name, dtype=torch.float64)
    data = batch()
    view = data.views[0].requires_grad_()
    argument, mask = drawn(method, view, data.rng)
    method.predict(view, argument).square().sum().backward()
    gradient = patchify(view.grad, PATCH)
    assert not gradient[mask].any() and gradient[~mask].abs().amax(1).min() > 0


@pytest.mark.parametrize("name", BOTH)
def test_masks_differ_between_samples_and_steps_and_repeat(name: str) -> None:
    method: Any = tiny_method(name)
    masks = [drawn(method, tiny_batch([SIZE], step).views[0], tiny_batch([SIZE], step).rng)[1] for step in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0][0], masks[0][1])


@pytest.mark.parametrize("name", BOTH)
def test_a_reconstruction_keeps_what_was_seen(name: str) -> None:
    method, data = painter(name), batch()
    (view,) = data.views
    masked, image = method.reconstruct(view, data.rng)
    _, mask = drawn(method, view, data.rng)
    patches, seen, painted = (patchify(x, PATCH) for x in (view, masked, image))
    assert not seen[mask].any() and torch.equal(seen[~mask], patches[~mask])
    assert torch.equal(painted[~mask], patches[~mask])
    # Painting zeros, standardised patches become their own mean; pixels are painted as they are.
    grey = patches.mean(-1, keepdim=True).expand_as(patches) if name == "mae" else torch.zeros_like(patches)
    torch.testing.assert_close(painted[mask], grey[mask])


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("mae", "method.mask_ratio=1.0", "mask_ratio=1.0 keeps 0 of 64 patches; wanted a share from 0 to 1"),
        ("simmim", "method.mask_ratio=0", "mask_ratio=0 must be above 0 and at most 1"),
        ("simmim", "method.mask_block=3", "mask_block=3: squares of so many patches do not tile 8 x 8 patches"),
        ("mae", "backbone=resnet8", "MAE needs a vision transformer: backbone 'resnet8' has no tokens"),
    ],
)
def test_wrong_numbers_are_told_before_the_run(name: str, option: str, words: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=words):
        tiny_method(name, [option], tiny=False)


def test_vit_mae_starts_as_the_authors() -> None:
    torch.manual_seed(0)
    net: Any = tiny.vit_mini(image_size=32, positions="sincos_mae", start="mae").net
    qkv = net.blocks[0].attn.qkv
    assert qkv.weight.abs().max().item() == pytest.approx((6 / (128 + 3 * 128)) ** 0.5, rel=1e-3)  # one matrix
    assert net.patch_embed.proj.weight.abs().max().item() == pytest.approx((6 / (48 + 128)) ** 0.5, rel=1e-2)
    assert not qkv.bias.any() and net.patch_embed.proj.bias.any()
    assert net.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert not net.pos_embed.requires_grad
