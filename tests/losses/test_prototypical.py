"""ProtoNCE by hand and as loops; concentrations as the paper's formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses.prototypical import concentration_of, proto_nce


def test_one_sample_between_two_prototypes() -> None:
    # Similarity 1 at temperature 0.5 against 0 at any other: -log(e^2 / (e^2 + 1)).
    q, prototypes = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    value = proto_nce(q, prototypes, torch.tensor([0.5, 0.1]), torch.tensor([0]), torch.tensor([1]), 0)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_proto_nce_equals_the_paper_written_as_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    q, prototypes = (F.normalize(torch.randn(n, 5, generator=generator).double(), dim=1) for n in (3, 9))
    phi = torch.rand(9, generator=generator).double() + 0.1
    positives, negatives = torch.tensor([4, 0, 4, 7]), torch.tensor([2, 8])
    total = 0.0
    for i in range(3):
        columns = [*positives.tolist(), *negatives.tolist()]
        scores = [math.exp(float(q[i] @ prototypes[c]) / float(phi[c])) for c in columns]
        total -= math.log(scores[1 + i] / sum(scores)) / 3
    assert proto_nce(q, prototypes, phi, positives, negatives, 1).item() == pytest.approx(total, rel=1e-12)


def test_rows_outside_the_positives() -> None:
    with pytest.raises(ValueError, match=r"rows 2 to 4 do not lie inside 3 positives; offset is rank \* B"):
        proto_nce(torch.zeros(2, 2), torch.eye(2), torch.ones(2), torch.zeros(3).long(), torch.tensor([1]), 2)


def test_concentration_of_two_clusters_and_a_single_sample() -> None:
    # phi = mean distance / log(samples + 10); the single sample's cluster gets the largest; no percentile bites at 3.
    distance, assignment = torch.tensor([1.0, 9.0, 4.0, 4.0, 0.25]).double(), torch.tensor([0, 0, 1, 1, 2])
    raw = [2 / math.log(12), 2 / math.log(12), 2 / math.log(12)]
    phi = concentration_of(distance, assignment, 3, 0.2)
    torch.testing.assert_close(phi, torch.tensor(raw).double() / raw[0] * 0.2)
    distance[2:4] = 16.0
    values = torch.tensor([2.0, 4.0, 4.0]).double() / math.log(12)
    low = values[0] + 0.2 * (values[1] - values[0])  # the 10th percentile of three numbers
    wanted = values.clamp(low, values[1])
    torch.testing.assert_close(concentration_of(distance, assignment, 3, 0.2), 0.2 * wanted / wanted.mean())


def test_a_collapsed_network_has_the_mean_everywhere() -> None:
    phi = concentration_of(torch.zeros(6), torch.arange(6) % 3, 3, 0.2)
    assert phi.tolist() == pytest.approx([0.2] * 3)
