"""Extraction: eval mode, order, restored modes; the cache and its key."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_zoo import distributed
from ssl_zoo.benchmarks import extraction
from ssl_zoo.benchmarks.rows import measure
from ssl_zoo.distributed import rank
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


class Told(list):
    """A loader that says which rows will come."""

    def __init__(self, batches, rows):
        super().__init__(batches)
        self.rows = rows


ORDER = torch.tensor([3, 1, 0, 2, 9, 8, 7, 6, 5, 4])


def test_a_loader_that_says_its_rows_gives_the_same():
    net, (_, batches) = Net(), loader()
    told, plain = extract(net, Told(batches, ORDER), "cpu"), extract(net, batches, "cpu")
    assert all(torch.equal(x, y) for x, y in zip(told, plain, strict=True))


@pytest.mark.parametrize(("rows", "given"), [(ORDER[:9], 10), (torch.arange(11), 10)])
def test_a_loader_that_gives_another_number_is_an_error(rows, given):
    with pytest.raises(ValueError, match=f"the loader has {len(rows)} rows and gives {given} samples"):
        extract(Net(), Told(loader()[1], rows), "cpu")


def test_half_precision_on_request_is_the_rounded_result():
    net, (_, batches) = Net(), loader()
    half, whole = extract(net, batches, "cpu", dtype=torch.float16), extract(net, batches, "cpu")
    assert half.features.dtype == torch.float16 and torch.equal(half.features, whole.features.half())
    assert torch.equal(half.labels, whole.labels)


def share(rows, told, seed=0):
    """What this rank finds where it has ``rows[rank]`` of ten samples."""
    torch.manual_seed(seed)
    net, (views, _) = Net(), loader()
    own = torch.tensor(rows[rank()], dtype=torch.int64)
    batches = [(views[part], part % 3, part) for part in own.split(2) if len(part)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "BLOCK", 48)  # two rows
        return extract(net, Told(batches, own) if told else batches, "cpu")


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9]),
        ([7, 3, 5, 4, 2, 0, 1], [9, 6, 8]),  # unequal, in any order
        ([4, 4, 2], [2, 4]),  # some twice
        ([], [1, 0]),  # fewer than processes
    ],
)
def test_shares_of_any_size_and_order_become_one_result(pool, rows, told):
    torch.manual_seed(0)
    net, (views, _) = Net().eval(), loader()
    wanted = torch.tensor(sorted([*rows[0], *rows[1]]))
    for found in pool.run(share, rows, told):
        assert torch.equal(found.position, wanted) and torch.equal(found.labels, wanted % 3)
        torch.testing.assert_close(found.features, net.net(views[wanted]).detach())


def nothing():
    try:
        extract(Net(), Told([], torch.zeros(0, dtype=torch.int64)), "cpu")
    except ValueError as error:
        return str(error)


def test_no_sample_anywhere_is_an_error_on_all_ranks(pool):
    assert pool.run(nothing) == ["no sample to extract features from: the loader is empty"] * 2


@pytest.mark.slow
def test_extraction_takes_little_more_memory_than_its_result():
    row = measure(extraction.CASES[0])
    assert row["ok"] is True and row["ratio"] <= 1.3, row
    assert row["peer_value"] == pytest.approx(100_001 * (512 * 4 + 8 + 8) / 2**20)
    assert set(row["by_processes"]) == {"1", "2"} and min(row["by_processes"].values()) >= row["peer_value"]


def keys_of_a_rank(folder):
    """The cache of a rank whose files the other one cannot have made: it reads what rank 0 wrote."""
    calls = []

    def make():
        calls.append(1)
        return Features(torch.ones(2, 1), torch.zeros(2).long(), torch.arange(2))

    found = [cached(folder, "key", make) for _ in range(2)]
    return len(calls), [part.tolist() for part in found[1]]


def test_of_several_processes_the_main_one_keeps_the_cache(pool, tmp_path):
    assert pool.run(keys_of_a_rank, tmp_path) == [(1, [[[1.0], [1.0]], [0, 0], [0, 1]])] * 2
    assert [file.name for file in tmp_path.iterdir()] == ["key.safetensors"]


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
