"""Random numbers: a pure function of every coordinate, uniform, and independent between neighbours of each of them."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_zoo.augmentations.rng import GOLDEN, BatchRNG, Draw, RecordedDraw, RecordedRNG, Rows, _mix, stream_key

N = 20_000
MASK = (1 << 64) - 1


def draw(seed=0, stream="train", epoch=0, slots=N, start=0):
    return Draw(stream_key(seed, stream, epoch), torch.arange(start, start + slots))


def test_mix_gives_the_published_outputs_of_splitmix64():
    # The first outputs of SplitMix64 for seed 1234567 (https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64).
    state = torch.tensor(1234567) + torch.arange(1, 4) * GOLDEN
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [value & MASK for value in _mix(state).tolist()] == wanted


def test_the_numbers_never_change():
    # Recorded once: a run resumed with a later version must see the same views.
    x = Draw(stream_key(7, "train", 3), torch.tensor([0, 5])).child(("view", 1)).child(2)
    assert x.uniform("p").tolist() == pytest.approx([0.06022220849990845, 0.8694417476654053], abs=0)
    assert x.integers("i", 1000, 2).tolist() == [[202, 519], [578, 53]]
    assert x.permutation(5).tolist() == [[0, 3, 4, 2, 1], [4, 0, 3, 2, 1]]


def test_a_row_does_not_depend_on_its_batch_or_its_place_in_it():
    whole = draw(slots=256).uniform("box", 10, 2)
    halves = torch.cat([draw(slots=128).uniform("box", 10, 2), draw(slots=128, start=128).uniform("box", 10, 2)])
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    permuted = Draw(stream_key(0, "train", 0), order).uniform("box", 10, 2)
    assert torch.equal(whole, halves)
    assert torch.equal(whole[order], permuted)


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(slots=8).normal("x", 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(slots=8).normal("x", 3), first)


def test_shapes_and_types():
    x, shared = draw(slots=6), Draw(stream_key(0, "train", 0), None)
    assert [tuple(x.uniform("a", *shape).shape) for shape in ((), (2, 3), (0,))] == [(6,), (6, 2, 3), (6, 0)]
    assert shared.uniform("a").shape == () and shared.permutation(5).shape == (5,)
    assert x.uniform("a").dtype == x.normal("a").dtype == torch.float32
    assert x.integers("a", 3).dtype == x.permutation(3).dtype == torch.int64


@pytest.mark.parametrize("bins", [10, 256])
def test_uniform_by_chi_square(bins):
    x = draw().uniform("x", 5).flatten().numpy()
    counts = np.histogram(x, bins=bins, range=(0, 1))[0]
    assert 0 <= x.min() and x.max() < 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_low_bits_are_uniform_too():
    x = (draw().uniform("x").double() * 2**24).long() % 64
    assert stats.chisquare(np.bincount(x.numpy(), minlength=64)).pvalue > 1e-3


def test_normal_by_kolmogorov_smirnov():
    assert stats.kstest(draw().normal("x").numpy(), "norm").pvalue > 1e-3


def test_integers_are_uniform_and_bounded():
    x = draw().integers("x", 7).numpy()
    assert stats.chisquare(np.bincount(x, minlength=7)).pvalue > 1e-3
    assert draw().integers("x", 1 << 31).max() < 1 << 31
    with pytest.raises(ValueError, match=r"integers\('x'\): high is 0, it must lie in \[1, 2\^31\]"):
        draw().integers("x", 0)


def test_every_permutation_is_equally_likely():
    orders = draw().permutation(4, "order").tolist()
    counts = [orders.count(list(order)) for order in itertools.permutations(range(4))]
    assert sum(counts) == N
    assert stats.chisquare(counts).pvalue > 1e-3


NEIGHBOURS = {
    "seed": lambda: (draw(0).uniform("x"), draw(1).uniform("x")),
    "large seed": lambda: (draw(2**40).uniform("x"), draw(2**40 + 1).uniform("x")),
    "stream": lambda: (draw(stream="train").uniform("x"), draw(stream="bank").uniform("x")),
    "epoch": lambda: (draw(epoch=0).uniform("x"), draw(epoch=1).uniform("x")),
    "slot": lambda: (draw().uniform("x")[:-1], draw().uniform("x")[1:]),
    "epoch against slot": lambda: (draw(epoch=0).uniform("x")[1:], draw(epoch=1).uniform("x")[:-1]),
    "view": lambda: (draw().child(("view", 0)).uniform("x"), draw().child(("view", 1)).uniform("x")),
    "operation": lambda: (draw().child(0).uniform("x"), draw().child(1).uniform("x")),
    "view against operation": lambda: (draw().child(0).child(1).uniform("x"), draw().child(1).child(0).uniform("x")),
    "parent": lambda: (draw().uniform("x"), draw().child("x").uniform("x")),
    "number and text": lambda: (draw().child(1).uniform("x"), draw().child("1").uniform("x")),
    "name": lambda: (draw().uniform("x"), draw().uniform("y")),
    "element": lambda: draw().uniform("x", 2).unbind(1),
    "element against slot": lambda: (draw().uniform("x", 2)[1:, 0], draw().uniform("x", 2)[:-1, 1]),
    "kind": lambda: (draw().uniform("x"), draw().normal("x")),
}


@pytest.mark.parametrize("pair", NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
def test_neighbours_are_independent(pair):
    a, b = (x.double().numpy() for x in pair())
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))
    ranks = [np.argsort(np.argsort(x)) * 8 // len(x) for x in (a, b)]      # the joint distribution, not the mean alone
    counts = np.bincount(ranks[0] * 8 + ranks[1], minlength=64)
    assert stats.chisquare(counts, ddof=14).pvalue > 1e-4


def test_shared_draws_are_equal_on_all_ranks_and_new_in_each_micro_batch():
    ranks = [BatchRNG(0, epoch=2, micro=5, slot=torch.arange(r * 4, r * 4 + 4)) for r in (0, 1)]
    assert torch.equal(ranks[0].shared("shuffle").permutation(64), ranks[1].shared("shuffle").permutation(64))
    later = BatchRNG(0, epoch=2, micro=6, slot=torch.arange(4))
    assert not torch.equal(ranks[0].shared("shuffle").permutation(64), later.shared("shuffle").permutation(64))


def test_sample_draws_belong_to_the_slot_not_to_the_micro_batch():
    a, b = BatchRNG(0, 0, micro=0, slot=torch.arange(4)), BatchRNG(0, 0, micro=1, slot=torch.arange(3, 7))
    assert torch.equal(a.sample("mask").uniform("x")[3:], b.sample("mask").uniform("x")[:1])
    assert not torch.equal(a.sample("mask").uniform("x"), a.sample("mixup").uniform("x"))


def test_the_host_draws_what_the_device_would():
    there, here = (BatchRNG(0, 0, micro=3, slot=torch.arange(4), device=device) for device in ("meta", "cpu"))
    for kind in ("sample", "shared"):
        a, b, c = (getattr(rng, kind)("mask").uniform("x", 5) for rng in (there, there.host, here))
        assert a.device.type == "meta" and torch.equal(b, c)


def test_reports_of_children_arrive_at_the_parent():
    parent = draw(slots=2)
    parent.child("view").child(0, "0/image/flip").report("flipped", torch.tensor([True, False]))
    assert parent.reports["0/image/flip/flipped"].tolist() == [True, False]


def test_recorded_draws_return_what_was_recorded_and_name_what_was_not():
    shuffle = RecordedDraw({"": torch.arange(3)})
    rng = RecordedRNG(sample={"mask": {"p": torch.tensor([0.25])}}, shared={"shuffle": shuffle})
    assert rng.sample("mask").uniform("p").item() == 0.25
    assert rng.shared("shuffle").permutation(3).tolist() == [0, 1, 2]
    with pytest.raises(LookupError, match="no recorded draw 'q'; recorded are .*'p'"):
        rng.sample("mask").uniform("q")


def test_compiled_code_draws_new_numbers_in_each_epoch():
    def numbers(key, slot):
        return Draw(key, slot).child("x").uniform("p", 3)

    compiled = torch.compile(numbers, backend="eager", fullgraph=True)
    for epoch in (0, 1):
        key = stream_key(0, "train", epoch)
        assert torch.equal(compiled(key, torch.arange(4)), numbers(key, torch.arange(4)))


def test_rows_of_a_batch_are_the_draws_of_their_slots():
    slots = torch.tensor([7, 3, 900])
    rows = Rows(Draw(stream_key(1, "train", 2), slots))
    for i, slot in enumerate(slots.tolist()):
        alone = Draw(stream_key(1, "train", 2), torch.tensor([slot])).child(("view", 0)).child(3)
        row = rows.row(i).child(("view", 0)).child(3, "0/image/x")
        assert torch.equal(row.uniform("a", 10, 2), alone.uniform("a", 10, 2))
        assert torch.equal(row.normal("a"), alone.normal("a"))
        assert torch.equal(row.integers("k", 9000, 2), alone.integers("k", 9000, 2))
        assert torch.equal(row.permutation(5, "o"), alone.permutation(5, "o"))
        assert torch.equal(row.uniform("noise", 3, 50, 50), alone.uniform("noise", 3, 50, 50))   # not made for all
        assert torch.equal(row.slot, alone.slot)
        row.report("box", torch.tensor([i]))
        assert row.reports == {"0/image/x/box": torch.tensor([i])}


def test_parts_of_a_sample_have_draws_of_their_own_whatever_the_batch():
    d = draw(slots=6).child("tiles")
    parts = d.spread(3)
    values = parts.uniform("a")
    assert values.shape == (18,) and len(values.unique()) == 18
    some = Draw(stream_key(0, "train", 0), torch.tensor([4, 1])).child("tiles").spread(3)
    assert torch.equal(some.uniform("a").view(2, 3), values.view(6, 3)[[4, 1]])
    row = Rows(draw(slots=6)).row(4).child("tiles").spread(3)
    assert torch.equal(row.uniform("a"), values.view(6, 3)[4])
    parts.report("flipped", values)
    assert d.reports == {} and parts.reports == {"flipped": values}
    recorded = RecordedDraw({"a": torch.ones(18)})
    assert recorded.spread(3) is recorded
