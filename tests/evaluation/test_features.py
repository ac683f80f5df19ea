"""Extraction: eval mode, order, restored modes; the cache and its key."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_zoo.evaluation.cache import cached, fingerprint, sha256
from ssl_zoo.features import Features, extract, topk_accuracy


class Net(nn.Module):
    """Stand-in for a method: batch norm and dropout tell whether it runs in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
        self.teacher = nn.BatchNorm1d(5).eval()
        self.seen_grad = None

    def embed(self, view):
        self.seen_grad = torch.is_grad_enabled()
        return self.net(view)


def loader(labels=True):
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(10, 3, 2, 2, generator=generator)
    order = torch.tensor([3, 1, 0, 2, 9, 8, 7, 6, 5, 4])
    return views, [(views[rows], rows % 3 if labels else None, rows) for rows in order.split(4)]


def test_features_are_those_of_eval_mode_in_the_order_of_the_index():
    net, (views, batches) = Net(), loader()
    out = extract(net, batches, "cpu")
    wanted = Net().eval()
    wanted.load_state_dict(net.state_dict())
    torch.testing.assert_close(out.features, wanted.net(views).detach())
    assert out.position.tolist() == list(range(10)) and out.labels.tolist() == [i % 3 for i in range(10)]
    assert net.seen_grad is False and not out.features.requires_grad


def test_extraction_leaves_modes_and_statistics_as_they_were():
    net = Net()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    extract(net, loader()[1], "cpu")
    assert net.training and net.net[2].training and not net.teacher.training
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())


def test_modes_are_restored_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        extract(net, [(torch.zeros(1, 5), None, torch.zeros(1))], "cpu")
    assert net.training


def test_data_without_labels_gives_minus_one_and_an_empty_loader_is_an_error():
    assert extract(Net(), loader(labels=False)[1], "cpu").labels.tolist() == [-1] * 10
    with pytest.raises(ValueError, match="no sample to extract features from"):
        extract(Net(), [], "cpu")


def test_the_cache_is_read_only_under_the_same_key_and_can_be_off(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return Features(torch.rand(4, 2), torch.arange(4), torch.arange(4))

    first, second = cached(tmp_path, "a", make), cached(tmp_path, "a", make)
    assert len(calls) == 1 and all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    cached(tmp_path, "b", make), cached(None, "a", make)
    assert len(calls) == 3


def test_the_key_sees_the_checkpoint_the_split_and_the_pixels():
    views, batches = loader()
    key = fingerprint(batches, checkpoint="x", split="train")
    assert key == fingerprint(loader()[1], split="train", checkpoint="x")
    other_pixels = [(batches[0][0] * 2, *batches[0][1:])]
    others = [fingerprint(batches, checkpoint="y", split="train"), fingerprint(batches, checkpoint="x", split="val")]
    others += [fingerprint(seen, checkpoint="x", split="train") for seen in (other_pixels, loader(False)[1])]
    assert len({key, *others}) == 5


def test_sha256_and_top_k_by_hand(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf")
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    assert topk_accuracy(scores, torch.tensor([1, 0, 0]), 2) == pytest.approx(200 / 3)
