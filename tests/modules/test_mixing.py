"""Mixed inputs: the sampler's distribution, the images, and who is whose partner on any number of processes."""

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import own_rows
from ssl_zoo.modules.mixing import Mixer, cutmix, flat_dirichlet, input_mix, input_weights, mixup, symmetric_beta
from tests.pool import GlooPool

ROWS = 4
VIEW = torch.randn(ROWS, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rng(rows: torch.Tensor | None = None) -> BatchRNG:
    return BatchRNG(seed=0, epoch=0, micro=0, slot=torch.arange(ROWS) if rows is None else rows)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 30.0])
def test_symmetric_beta_has_the_beta_distribution(alpha):
    draw = BatchRNG(0, 0, 0, torch.arange(20000)).sample("beta").uniform("share", 2)
    found = symmetric_beta(draw, alpha)
    assert found.dtype == torch.float64 and ((found >= 0) & (found <= 1)).all()
    assert stats.kstest(found.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_symmetric_beta_of_the_corners_is_finite():
    corners = torch.tensor([[0.0, 0.0], [0.0, 0.25], [1 - 2.0**-24, 0.25], [0.0, 0.5]])
    assert torch.isfinite(symmetric_beta(corners, 0.1)).all()


def test_flat_dirichlet_is_uniform_on_the_simplex():
    shares = flat_dirichlet(BatchRNG(0, 0, 0, torch.arange(20000)).sample("shares").uniform("shares", 3))
    torch.testing.assert_close(shares.sum(1), torch.ones(20000, dtype=torch.float64))
    assert stats.kstest(shares[:, 0].numpy(), stats.beta(1, 2).cdf).pvalue > 0.01


def test_mixup_mixes_each_row_by_its_own_share():
    x, other = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    assert mixup(x, other, torch.tensor([0.75, 1.0])).flatten(1).mean(1).tolist() == [0.75, 1.0]


@pytest.mark.parametrize(
    ("share", "centre", "box", "left"),
    # Sides 8 and 4; the box has sides 2 * (int(side * sqrt(1 - share)) // 2), less what hangs over the border.
    [(0.75, (4, 2), (slice(2, 6), slice(1, 3)), 0.75), (0.75, (0, 0), (slice(0, 2), slice(0, 1)), 0.9375),
     (1.0, (4, 2), (slice(0, 0), slice(0, 0)), 1.0)],
)
def test_cutmix_pastes_a_box_and_counts_what_is_left(share, centre, box, left):
    x, other = torch.zeros(2, 1, 8, 4), torch.ones(2, 1, 8, 4)
    mixed, found = cutmix(x, other, torch.tensor(share), torch.tensor(centre))
    wanted = x.clone()
    wanted[..., box[0], box[1]] = 1
    assert torch.equal(mixed, wanted) and found.item() == left == 1 - wanted[0].mean().item()


def test_input_mix_keeps_at_least_half_of_the_image():
    shares = torch.tensor([[0.2, 0.8], [0.9, 0.1]])
    assert torch.equal(input_weights(shares), torch.tensor([[0.8, 0.2], [0.9, 0.1]]))
    three = input_weights(torch.tensor([[0.2, 0.2, 0.6]]))
    torch.testing.assert_close(three, torch.tensor([[0.6, 0.1, 0.3]]))
    images = [torch.full((1, 1), value) for value in (1.0, 10.0, 100.0)]
    assert input_mix(images[0], images[1:], three).item() == pytest.approx(0.6 + 1 + 30)


def test_imixup_says_whose_image_is_where():
    mixed = Mixer("imixup").mix(VIEW, rng(), "mix0")
    share, partner = mixed.weights[:, 0], mixed.positives[:, 1]
    assert torch.equal(mixed.positives[:, 0], torch.arange(ROWS)) and sorted(partner.tolist()) == list(range(ROWS))
    assert ((share >= 0.5) & (share <= 1)).all() and torch.allclose(mixed.weights.sum(1), torch.ones(ROWS).double())
    for i in range(ROWS):
        torch.testing.assert_close(mixed.view[i], share[i] * VIEW[i] + (1 - share[i]) * VIEW[partner[i]])


def test_no_mixing_is_one_positive():
    mixed = Mixer("none").mix(VIEW, rng(), "mix0")
    assert mixed.view is VIEW and mixed.positives.tolist() == [[i] for i in range(ROWS)] and (mixed.weights == 1).all()


def mix_all(kind: str, scope: str, inputmix: int) -> list[np.ndarray]:
    mixer = Mixer(kind, 0.7, scope, inputmix)
    rows = own_rows(torch.arange(ROWS))
    batch = Batch([own_rows(VIEW), own_rows(VIEW + 9)], rows, None, rng(rows))
    batch = mixer.inputs(batch)
    mixed = mixer.mix(batch.views[0], batch.rng, "mix0")
    return [x.numpy() for x in (mixed.view, mixed.positives, mixed.weights, batch.views[1])]


@pytest.mark.parametrize(("kind", "inputmix"), [("imixup", 0), ("icutmix", 0), ("imixup", 2)])
def test_two_processes_mix_what_one_does(kind: str, inputmix: int, pool: GlooPool) -> None:
    one, two = mix_all(kind, "global", inputmix), pool.run(mix_all, kind, "global", inputmix)
    for i, wanted in enumerate(one):
        np.testing.assert_array_equal(np.concatenate([two[0][i], two[1][i]]), wanted)


def test_partners_of_the_same_process_stay_there(pool: GlooPool) -> None:
    for rank, (_, positives, _, _) in enumerate(pool.run(mix_all, "imixup", "rank", 0)):
        half = ROWS // 2
        assert sorted(positives[:, 1].tolist()) == list(range(rank * half, (rank + 1) * half))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "mixup"}, "method.mixer.kind=mixup: did you mean 'imixup'"), ({"scope": "world"}, "method.mixer.scope"),
     ({"alpha": 0.0}, "alpha=0.0 and inputmix=0; wanted more than 0"), ({"inputmix": -1}, "inputmix=-1")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Mixer(**options)
