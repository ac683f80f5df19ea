"""Rows move one after the other, as the authors' loop moves them."""

import torch
import torch.nn.functional as F

from ssl_zoo.modules.hybrid_memory import HybridMemory


def test_a_row_moves_by_hand() -> None:
    memory = HybridMemory(2, 2, 0.2)
    memory.features.copy_(torch.eye(2))
    memory.update(torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
    assert torch.equal(memory.features, torch.eye(2))  # staged
    memory.commit()
    torch.testing.assert_close(memory.features[0], torch.tensor([0.2, 0.8]) / 0.68**0.5)
    assert memory.features[1].tolist() == [0.0, 1.0]


def test_a_sample_that_comes_several_times_moves_as_often_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    memory, index = HybridMemory(5, 3, 0.2).double(), torch.tensor([4, 1, 4, 4, 0, 1])
    rows = F.normalize(torch.randn(6, 3, generator=generator).double(), dim=1)
    wanted = memory.features.clone()
    for place, row in zip(index.tolist(), rows, strict=True):
        wanted[place] = 0.2 * wanted[place] + 0.8 * row
        wanted[place] /= wanted[place].norm()
    memory.update(index, rows)
    memory.commit()
    torch.testing.assert_close(memory.features, wanted, rtol=1e-12, atol=1e-12)
    memory.commit()  # nothing is written twice
    torch.testing.assert_close(memory.features, wanted, rtol=1e-12, atol=1e-12)


def test_filled_with_centroids_of_the_source_and_all_instances() -> None:
    memory = HybridMemory(2 + 4, 2, 0.2)
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 5.0], [4.0, 0.0]])
    memory.fill(features, torch.tensor([0, 0, -1, 1]))
    half = 0.5**0.5
    wanted = [[half, half], [1, 0], [1, 0], [0, 1], [0, 1], [1, 0]]
    torch.testing.assert_close(memory.features, torch.tensor(wanted))


def test_classes_of_the_source_come_before_what_was_found() -> None:
    memory = HybridMemory(2 + 5, 2, 0.2)
    memory.relabel(torch.tensor([7, 30, 7]), torch.tensor([False, True, False, False, True]))
    assert memory.labels.tolist() == [0, 1, 2, -1, 3, 2, -1]


def test_it_starts_the_same_whatever_was_drawn_before() -> None:
    torch.manual_seed(1)
    first = HybridMemory(3, 2, 0.2).features
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(HybridMemory(3, 2, 0.2).features, first) and torch.equal(torch.get_rng_state(), state)
