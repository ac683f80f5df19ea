import pytest
import torch

from ssl_zoo.augmentations.image.views import Stack
from ssl_zoo.data.decoders import auto_workers, guarded, stream
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.loader import EvalLoader
from ssl_zoo.data.sampler import Plan, order
from ssl_zoo.errors import ConfigError
from tests.data.helpers import batches, by_slot, files, memory, pictures


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    pictures(root / "a", 15, seed=0)
    pictures(root / "b", 15, (33, 19), seed=1)
    return root


def as_rank(monkeypatch, rank: int, world: int) -> None:
    monkeypatch.setattr("ssl_zoo.distributed.rank", lambda: rank)
    monkeypatch.setattr("ssl_zoo.distributed.world_size", lambda: world)


def same_rows(a, b, tolerance=0.0):
    shared = a.keys() & b.keys()
    assert len(shared) >= 16
    for slot in shared:
        assert a[slot][0] == b[slot][0]
        torch.testing.assert_close(a[slot][1], b[slot][1], rtol=0, atol=tolerance)


@pytest.mark.parametrize("where", ["device", "worker"])
def test_views_do_not_depend_on_the_number_of_workers(tree, where):
    epochs = []
    for workers in (0, 2):
        data = files(tree, workers=workers, where=where)
        epochs.append(by_slot(batches(data)))
        data.teardown("fit")
    assert sorted(epochs[0]) == list(range(24))  # 30 // 8 batches; the tail is dropped
    same_rows(*epochs)


def test_views_do_not_depend_on_the_number_of_ranks(tree, monkeypatch):
    for make in (memory, lambda: files(tree, where="worker")):
        whole = by_slot(batches(make()))
        halves = {}
        for rank in range(2):
            as_rank(monkeypatch, rank, 2)
            part = by_slot(batches(make()))
            assert len(part) == 12 and not halves.keys() & part.keys()
            halves.update(part)
        monkeypatch.undo()
        assert sorted(halves) == sorted(whole)
        same_rows(whole, halves)


def test_views_do_not_depend_on_the_batch_size():
    small = by_slot(batches(memory(batch_size=32, samples=256)))
    large = by_slot(batches(memory(batch_size=256, samples=256)))
    # Equal draws; sums of a batched matrix product may be added up in another order.
    assert sorted(small) == sorted(large) == list(range(256))
    same_rows(small, large, tolerance=1e-5)


def test_workers_and_device_agree_to_two_levels(tree):
    device = by_slot(batches(files(tree, where="device")))
    worker = by_slot(batches(files(tree, where="worker")))
    same_rows(device, worker, tolerance=2 / 255 / 0.25 + 1e-6)  # normalised by a deviation of 0.25


def test_a_sample_has_other_views_in_the_next_epoch():
    data = memory(samples=32)
    first, second = (by_slot(batches(data)) for _ in range(2))
    views = [{index: view for index, view in epoch.values()} for epoch in (first, second)]
    assert views[0].keys() == views[1].keys()
    assert all(not torch.equal(views[0][i], views[1][i]) for i in views[0])


def test_epochs_follow_the_order_and_labels_follow_the_index():
    data = memory(batch_size=8, samples=30, seed=5, accumulate=2)
    loader = data.train_dataloader()
    assert len(loader) == 6
    for epoch in range(2):
        found = list(loader)
        assert [(raw.epoch, raw.micro) for raw in found] == [(epoch, i) for i in range(6)]
        assert torch.cat([raw.index for raw in found]).tolist() == order(5, epoch, 30)[:24].tolist()
        assert all(torch.equal(raw.label, data.train.labels[raw.index]) for raw in found)
        assert all(raw.samples.dtype == torch.uint8 and raw.samples.shape == (4, 3, 16, 16) for raw in found)


def keys(raws):
    return [(raw.epoch, raw.micro, raw.index.tolist(), raw.slot) for raw in raws]


def take(loader, n):
    """The next ``n`` micro-batches, over as many passes as they need."""
    out = []
    while len(out) < n:
        for raw in loader:
            out.append(raw)
            if len(out) == n:
                return out
    return out


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_resume_continues_with_exactly_the_next_batch(tree, workers):
    def make():
        return memory() if workers is None else files(tree, workers=workers)

    data = make()
    expected = keys(take(data.train_dataloader(), 7))  # two epochs of three, and one
    data.teardown("fit")
    stops = range(1, 7) if workers is None else (1, 3, 5)
    for stop in stops:
        first = make()
        begun = keys(take(first.train_dataloader(), stop))
        state = first.state_dict()
        first.teardown("fit")
        second = make()
        second.load_state_dict(state)
        rest = keys(take(second.train_dataloader(), 7 - stop))
        second.teardown("fit")
        assert begun + rest == expected


def test_the_number_of_ranks_may_change_on_resume(monkeypatch):
    expected = batches(memory())
    as_rank(monkeypatch, 0, 2)
    data = memory()
    batches(data, 2)
    state = data.state_dict()
    assert state["position"] == {"epoch": 0, "consumed": 16}
    for world in (1, 4):
        found = []
        for rank in range(world):
            as_rank(monkeypatch, rank, world)
            resumed = memory()
            resumed.load_state_dict(state)
            (batch,) = batches(resumed)
            found.append(batch)
        assert torch.equal(torch.cat([batch.index for batch in found]), expected[2].index)
        views = torch.cat([batch.views[1] for batch in found])
        torch.testing.assert_close(views, expected[2].views[1], rtol=0, atol=1e-5)


def test_a_position_that_other_batches_cannot_reach():
    data = memory(batch_size=8)
    with pytest.raises(ConfigError, match="cannot continue after 8 samples of epoch 1 with micro-batches of 12"):
        other = memory(batch_size=12)
        other.load_state_dict({"position": {"epoch": 1, "consumed": 8}, "where": "device", "labelled": None})
        other.train_dataloader()
    assert data.train_dataloader().state_dict() == {"epoch": 0, "consumed": 0}


def test_iterators_that_are_never_asked_cost_nothing():
    loader = memory().train_dataloader()
    iter(loader)
    unused = iter(loader)
    assert keys([next(iter(loader))])[0][:2] == (0, 0)
    del unused
    # A pass that was left early is not continued: the next one is the next epoch.
    assert keys([next(iter(loader))])[0][:2] == (1, 0)


def test_the_global_generators_are_left_alone(tree):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    data = files(tree, workers=1)
    batches(data, 2)
    list(data.train_eval_loader())
    assert torch.equal(torch.get_rng_state(), state)
    data.teardown("fit")


def test_waiting_is_counted_and_reset():
    loader = memory().train_dataloader()
    list(loader)
    assert 0 < loader.take_wait() < 5
    assert loader.take_wait() == 0


@pytest.mark.parametrize("words", ["(pid(s) 7) exited unexpectedly", "(pid 7) is killed by signal: Killed. "])
def test_a_killed_worker_is_explained(words):
    def dying():
        yield {"views": []}
        raise RuntimeError(f"DataLoader worker {words}")

    items = guarded(dying(), workers=8)
    assert next(items) == {"views": []}
    with pytest.raises(ConfigError, match="ended by the system.*pid.*7.*try data.workers=4, or a smaller"):
        next(items)


def test_an_error_inside_a_worker_keeps_its_traceback(tree):
    data = files(tree, workers=1)
    data._worker_views.crop = None
    with pytest.raises(TypeError, match="Original Traceback"):
        next(iter(data.train_dataloader()))
    data.teardown("fit")


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_covers_every_sample_once(world):
    source = synthetic(image_size=8, channels=1, samples=10, val_samples=0).train
    parts = [EvalLoader(source, Identity(), 2, rank, world) for rank in range(world)]
    rows = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(row) for row in rows]
    index = torch.cat([index for row in rows for _, _, index in row])
    labels = torch.cat([label for row in rows for _, label, _ in row])
    assert index.tolist() == list(range(10)) and labels.tolist() == source.labels.tolist()
    sizes = [len(part.rows) for part in parts]
    assert max(sizes) - min(sizes) <= 1


class Identity(torch.nn.Module):
    def forward(self, x):
        return x


def test_evaluation_of_some_rows_keeps_their_index():
    data = memory()
    loader = data.train_eval_loader(torch.tensor([4, 1, 7]))
    ((view, label, index),) = list(loader)
    assert loader.samples == 3 and index.tolist() == [4, 1, 7]
    assert label.tolist() == data.train_labels[[4, 1, 7]].tolist() and view.shape == (3, 3, 16, 16)


def test_evaluation_of_files_equals_that_in_one_process(tree):
    alone = list(files(tree, workers=0).train_eval_loader())
    helped = list(files(tree, workers=2).train_eval_loader())
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("workers", "in_memory", "processes", "expected"),
    [("auto", True, 1, 0), ("auto", False, 1, 16), ("auto", False, 8, 4), ("auto", False, 64, 1), (3, True, 1, 3)],
)
def test_auto_workers_is_a_rule(workers, in_memory, processes, expected):
    assert auto_workers(workers, in_memory, processes, cores=32) == expected


@pytest.mark.parametrize("workers", [-1, "many", True, 1.5])
def test_impossible_workers(workers):
    with pytest.raises(ConfigError, match="data.workers=.*: wanted auto, or 0 and more processes"):
        memory(workers=workers)


def test_plan_keeps_no_position():
    plan = Plan(30, 8, 0)
    ahead = plan.requests(0, 0)
    for _ in range(5):
        next(ahead)
    assert torch.equal(plan.index(0, 1)[0], order(0, 0, 30)[8:16])


class Rows(torch.utils.data.Dataset):
    """Stacks three rows of two tensors, and says whether they lie where other processes can read them."""

    def __getitem__(self, request):
        stack = Stack(3)
        for i in range(3):
            stack.add([torch.full((2, 2), i, dtype=torch.uint8), torch.arange(4.0).view(2, 2).t() + i])
        return {"views": stack.views, "shared": [x.is_shared() for x in stack.views]}


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_stack_their_rows_where_the_main_process_reads_them(workers):
    (item,) = stream(Rows(), [0], workers)
    first, second = item["views"]
    assert torch.equal(first, torch.arange(3, dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2))
    assert torch.equal(second, torch.stack([torch.arange(4.0).view(2, 2).t() + i for i in range(3)]))
    assert item["shared"] == [workers > 0] * 2
