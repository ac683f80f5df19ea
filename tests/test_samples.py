"""Batches of any kind: cut, joined, moved, cast."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo import samples
from ssl_zoo.backbones.apply import concat, joined
from ssl_zoo.data.batch import DataInfo, RawBatch
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.grad_cache import in_chunks


@dataclass
class Bags(samples.View):
    """Numbers of several samples, as many of each as ``counts`` says."""

    values: Tensor  # [sum of counts] float
    counts: Tensor  # [B] int64
    name: str = "bags"

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, index: Tensor) -> Bags:
        parts = self.values.split(self.counts.tolist())
        return Bags(torch.cat([parts[i] for i in index.tolist()]), self.counts[index], self.name)

    @classmethod
    def concat(cls, views: Sequence[Bags]) -> Bags:
        return cls(torch.cat([x.values for x in views]), torch.cat([x.counts for x in views]), views[0].name)


def bags() -> Bags:
    return Bags(torch.arange(10.0), torch.tensor([1, 2, 3, 4]))


class Sums(nn.Module):
    """``[B, 1]``: the sum of each bag, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, view: Bags) -> Tensor:
        owner = torch.arange(len(view)).repeat_interleave(view.counts)
        return self.weight * view.values.new_zeros(len(view)).index_add(0, owner, view.values)[:, None]


def test_a_dtype_touches_floating_fields_only_and_plain_values_stay() -> None:
    moved = bags().to("cpu", torch.float64, non_blocking=True)
    assert (moved.values.dtype, moved.counts.dtype, moved.name) == (torch.float64, torch.int64, "bags")
    assert bags().to(torch.float16).values.dtype == torch.float16
    assert bags().to(moved.values).values.dtype == torch.float64
    assert samples.cast(bags(), torch.float64).counts.dtype == torch.int64
    assert samples.cast(torch.arange(3), torch.float64).dtype == torch.int64
    assert bags().to("meta").device.type == "meta"
    with pytest.raises(ValueError, match="Bags has no memory format"):
        bags().to(memory_format=torch.channels_last)


def test_parts_and_whole_are_the_same_samples() -> None:
    first, second = samples.chunk(bags(), 2)
    assert first.values.tolist() == [0, 1, 2] and second.counts.tolist() == [3, 4]
    again = samples.concat([first, second])
    assert torch.equal(again.values, bags().values) and torch.equal(again.counts, bags().counts)
    assert samples.select(bags(), torch.tensor([3, 0])).values.tolist() == [6, 7, 8, 9, 0]
    assert samples.nbytes(bags()) == 10 * 4 + 4 * 8 and samples.kind(bags()) is Bags
    assert [x.tolist() for x in samples.chunk(torch.arange(4), 2)] == [[0, 1], [2, 3]]
    assert samples.kind(torch.zeros(2, 3, 4)) == (3, 4)


def test_a_view_that_says_too_little_names_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="View must say how many samples it holds: define __len__"):
        len(samples.View())
    with pytest.raises(NotImplementedError, match=r"View must define concat\(views\)"):
        samples.concat([samples.View(), samples.View()])


def test_views_together_and_in_chunks_give_what_they_give_alone() -> None:
    net, other = Sums(), Bags(torch.arange(10.0) + 1, torch.tensor([4, 3, 2, 1]))
    alone = [net(bags()), net(other)]
    for one, both in zip(alone, concat(net, [bags(), other]), strict=True):
        assert torch.equal(one, both)
    assert torch.equal(joined(net, [bags(), other]), torch.cat(alone))

    def encode(views: Sequence[Bags]) -> list[Tensor]:
        return [net(view) for view in views]

    chunked = in_chunks(net, encode, [bags(), other], chunks=2)
    assert all(torch.equal(a, b) for a, b in zip(alone, chunked, strict=True))
    torch.cat(list(chunked)).square().sum().backward()
    found = net.weight.grad.clone()  # type: ignore[union-attr]
    net.weight.grad = None
    torch.cat(alone).square().sum().backward()
    assert torch.allclose(found, net.weight.grad)


def test_a_batch_moves_whole_and_is_not_taken_apart_for_half_precision() -> None:
    from pytorch_lightning.plugins.precision import HalfPrecision

    raw = RawBatch([bags(), bags()], torch.arange(4), torch.arange(4), 0, 0, 0, {"box": torch.zeros(4, 2)})
    assert HalfPrecision("bf16-true").convert_input(raw).samples[0].values.dtype == torch.float32
    moved = raw.to("meta")
    tensors = [moved.samples[1].values, moved.index, moved.label, moved.reports["box"]]
    assert [x.device.type for x in tensors] == ["meta"] * 4 and (moved.slot, moved.finished) == (0, False)  # type: ignore[union-attr]


def test_facts_are_attributes_and_what_is_none_is_a_sentence() -> None:
    info = DataInfo(10, None, 4, {"vocabulary": 12, "columns": ("a", "b")})
    assert info.vocabulary == 12 and copy.deepcopy(info) == info and pickle.loads(pickle.dumps(info)) == info
    with pytest.raises(ConfigError, match=r"have no image_size \(known of them: vocabulary, columns\)"):
        _ = info.image_size
    with pytest.raises(ConfigError, match=r"have no channels \(known of them: nothing\)"):
        _ = DataInfo(10, None, 4).channels
