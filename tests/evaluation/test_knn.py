"""kNN against the papers' formula written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo import knn
from ssl_zoo.evaluation.knn import evaluate
from ssl_zoo.features import Features
from ssl_zoo.knn import knn_predict, knn_top1


def by_loops(query, bank, labels, classes, k, temperature):
    """InstDisc, Sec. 3.4, one query and one neighbour at a time."""
    predicted = []
    for q in query.tolist():
        near = []
        for row, label in zip(bank.tolist(), labels.tolist(), strict=True):
            cosine = sum(a * b for a, b in zip(q, row, strict=True)) / (math.hypot(*q) * math.hypot(*row))
            near.append((cosine, label))
        votes = [0.0] * classes
        for cosine, label in sorted(near, reverse=True)[:k]:
            votes[label] += math.exp(cosine / temperature)
        predicted.append(votes.index(max(votes)))
    return predicted


def random_data(n=150, m=40, dim=6, classes=4):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=generator)
    labels = torch.randint(classes, (n + m,), generator=generator)
    x = centres[labels] + 1.5 * torch.randn(n + m, dim, generator=generator)
    return x[:n], labels[:n], x[n:], labels[n:]


@pytest.mark.parametrize("k", [1, 7, 40, 150, 1000])
def test_knn_equals_the_paper_written_as_loops(k):
    bank, labels, query, _ = random_data()
    assert knn_predict(query, bank, labels, 4, k).tolist() == by_loops(query, bank, labels, 4, k, 0.07)


def test_chunks_and_blocks_of_the_bank_change_nothing(monkeypatch):
    bank, labels, query, _ = random_data()
    whole = knn_predict(query, bank, labels, 4, 20)
    monkeypatch.setattr(knn, "BLOCK", 90)  # 3 queries at a time against blocks of 24 rows
    monkeypatch.setattr(knn, "COLUMNS", 8)
    monkeypatch.setattr(knn, "GROUP", 2)
    assert torch.equal(knn_predict(query, bank, labels, 4, 20, chunk=3), whole)


def test_rows_that_tie_count_in_the_order_of_the_bank_whatever_k_and_chunk(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    bank = torch.randint(-1, 2, (200, 3), generator=generator).float() + 1e-3
    labels, query = torch.randint(5, (200,), generator=generator), bank[:50] * torch.tensor([1.0, -1.0, 1.0])
    unit = torch.nn.functional.normalize(bank, dim=1)
    similarity = torch.nn.functional.normalize(query, dim=1) @ unit.T
    wanted, order = similarity.sort(dim=1, descending=True, stable=True)
    for k, block, columns in [(7, 2**23, 2048), (150, 2**23, 2048), (7, 2**23, 16), (7, 2**14, 16), (3, 2**23, 32)]:
        monkeypatch.setattr(knn, "BLOCK", block)
        monkeypatch.setattr(knn, "COLUMNS", columns)
        monkeypatch.setattr(knn, "GROUP", 4 if columns < 2048 else 16)
        near, rows = next(knn._neighbours(query, bank, k, 1024))
        assert torch.equal(rows, order[:, :k])
        torch.testing.assert_close(near, wanted[:, :k], rtol=0, atol=1e-7)
    assert knn_predict(query, bank, labels, 5, 7).shape == (50,)


def test_memory_is_bounded_by_the_block(monkeypatch):
    sizes, topk = [], torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, *a, **k: sizes.append(self.numel()) or topk(self, *a, **k))
    monkeypatch.setattr(knn, "BLOCK", 256)
    monkeypatch.setattr(knn, "COLUMNS", 8)
    monkeypatch.setattr(knn, "GROUP", 2)
    bank, labels, query, _ = random_data()
    knn_predict(query, bank, labels, 4, 5, chunk=8)
    assert 0 < max(sizes) <= 256  # 1,200 without blocks


def test_a_vote_weighs_exp_of_similarity_over_temperature():
    # One neighbour at cosine 1 against two at cosine 0.8: exp(1/T) beats 2 exp(.8/T) if T < .2 / ln 2 = .2885.
    query, bank = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    labels = torch.tensor([0, 1, 1])
    assert knn_predict(query, bank, labels, 2, 3, temperature=0.288).tolist() == [0]
    assert knn_predict(query, bank, labels, 2, 3, temperature=0.289).tolist() == [1]


def test_a_tiny_temperature_does_not_overflow():
    bank, labels, query, _ = random_data()
    assert knn_predict(query, bank, labels, 4, 9, 1e-4).tolist() == knn_predict(query, bank, labels, 4, 1).tolist()


def test_rows_without_label_neither_vote_nor_count():
    bank, labels, query, wanted = random_data()
    full = knn_top1(query[:10], wanted[:10], bank[:100], labels[:100], 4, 20)
    labels[100:], wanted[10:] = -1, -1
    assert knn_top1(query, wanted, bank, labels, 4, 20) == full


def test_a_half_precision_bank_predicts_the_same():
    bank, labels, query, _ = random_data()
    same = knn_predict(query, bank.half(), labels, 4, 20) == knn_predict(query, bank, labels, 4, 20)
    assert same.float().mean() >= 0.95


def test_the_protocol_reports_the_fixed_k_and_lists_the_others():
    bank, labels, query, wanted = random_data()
    train, test = Features(bank, labels, torch.arange(150)), Features(query, wanted, torch.arange(40))
    result = evaluate(train, test, 4, k=50, also=[5, 50])
    by_k = {str(k): knn_top1(query, wanted, bank, labels, 4, k) for k in (5, 50)}
    assert result == {"top1": by_k["50"], "k": 50, "temperature": 0.07, "top1_by_k": by_k}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "kNN needs k >= 1, temperature > 0 and chunk >= 1, got [0], 0.07, 512"),
        ({"temperature": 0.0}, "got [200], 0.0, 512"),
        ({"classes": 3}, "kNN was told of 3 classes and the bank holds label 3"),
        ({"bank_labels": torch.full((150,), -1)}, "no labelled sample in its bank"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    bank, labels, query, _ = random_data()
    with pytest.raises(ValueError) as error:
        knn_predict(**({"query": query, "bank": bank, "bank_labels": labels, "classes": 4} | change))
    assert message in str(error.value)


def test_only_groups_with_the_largest_maxima_are_sorted(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    bank, query = torch.randn(3001, 8, generator=generator), torch.randn(20, 8, generator=generator)
    similarity = torch.nn.functional.normalize(query, dim=1) @ torch.nn.functional.normalize(bank, dim=1).T
    wanted = similarity.topk(5, dim=1)
    sizes, topk = [], torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, *a, **k: sizes.append(self.shape[1]) or topk(self, *a, **k))
    monkeypatch.setattr(knn, "COLUMNS", 64)
    monkeypatch.setattr(knn, "GROUP", 8)
    near, rows = next(knn._neighbours(query, bank, 5, 20))
    assert torch.equal(rows, wanted.indices)
    torch.testing.assert_close(near, wanted.values, rtol=0, atol=1e-6)
    # 46 blocks of 8 groups; 5 groups of 8 and the 57 rows behind the last whole block; the order at the end.
    assert sizes == [46 * 8, 5 * 8 + 57, 5]
