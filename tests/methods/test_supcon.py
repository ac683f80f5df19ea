"""SupCon: labels decide who attracts whom."""

import math

import pytest
import torch

from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.methods.supcon import SupCon
from tests.golden.harness import Identity, batch_of, no_recipe
from tests.helpers import tiny_batch, tiny_method, view_sizes


def loss_of(views: list[torch.Tensor], label: list[int], **options: object) -> float:
    batch = batch_of(views)
    batch.label = torch.tensor(label)
    method = SupCon(Identity(views[0].shape[1]), no_recipe(), Identity, base_temperature=0.1, **options)  # type: ignore[arg-type]
    return method.training_loss(batch)["loss"].item()


def test_by_hand_two_views_of_three_samples() -> None:
    # Samples 0 and 1 share a class and the direction e1, sample 2 has e2: at temperature 0.1, e^10 of three positives
    # and 1 of two negatives for the first four anchors; one positive and four negatives for the last two.
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    pair = math.log(3 * math.exp(10) + 2) - 10
    single = math.log(math.exp(10) + 4) - 10
    assert loss_of([z, z], [7, 7, 3]) == pytest.approx((4 * pair + 2 * single) / 6, rel=1e-9)
    assert loss_of([z, z], [7, 7, 3], mode="one") == pytest.approx((2 * pair + single) / 3, rel=1e-9)


def test_without_labels_it_is_simclr() -> None:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(4, 5, dtype=torch.float64, generator=generator) for _ in range(2)]
    a, b = (torch.nn.functional.normalize(view, dim=1) for view in views)
    assert loss_of(views, [-1] * 4) == pytest.approx(nt_xent(a, b, a, b, 0, 0.1).item(), rel=1e-12)


def test_more_views_are_more_positives() -> None:
    method, sizes = tiny_method("supcon"), view_sizes("supcon")
    out = method.training_loss(tiny_batch([sizes[0]] * 3))
    assert out["loss"].isfinite() and out["features"].shape[0] == 8


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="method.mode=two: there are: all, one"):
        SupCon(Identity(2), no_recipe(), Identity, mode="two")  # type: ignore[arg-type]


def test_the_sum_over_positives_inside_the_logarithm_by_hand() -> None:
    # As above: for the anchors of the first class all three positives together are 3 e^10 of 3 e^10 + 2, for the last
    # two one of e^10 + 4.
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    pair = math.log((3 * math.exp(10) + 2) / (3 * math.exp(10)))
    single = math.log((math.exp(10) + 4) / math.exp(10))
    assert loss_of([z, z], [7, 7, 3], inside=True) == pytest.approx((4 * pair + 2 * single) / 6, rel=1e-9)
    assert loss_of([z], [7, 7, 3], inside=True) == pytest.approx(2 / 3 * math.log(1 + math.exp(-10)), rel=1e-9)
