import errno
import json
import pickle
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from litdata import StreamingDataset
from litdata.streaming import Cache
from litdata.streaming.downloader import LocalDownloader, register_downloader, unregister_downloader

from ssl_zoo import config
from ssl_zoo.data.decoders import TrainTask
from ssl_zoo.data.image import chunks
from ssl_zoo.data.image.arrays import digits
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.image.packed import packed as packed_source
from ssl_zoo.data.image.stream import stream, write_splits, write_stream
from ssl_zoo.data.loader import TrainLoader
from ssl_zoo.data.source import DamagedFile, Splits
from ssl_zoo.errors import ConfigError
from tests.data.helpers import augmentation, batches, by_slot, pictures

PER_CLASS, VAL = 40, 8
MIXING = {"lanes": 4, "window": 2}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for number, name in enumerate("abc"):
        pictures(root / "train" / name, PER_CLASS, seed=number)
        pictures(root / "val" / name, VAL, seed=10 + number)
    return root


@pytest.fixture(scope="module")
def store(tree, tmp_path_factory) -> Path:
    """120 images of three classes in chunks of five or six."""
    out = tmp_path_factory.mktemp("store") / "set"
    write_splits(folder(str(tree), 3, 16, cache=False), out, "8KB")
    return out


def opened(root: Path | str, **options) -> Splits:
    return stream(str(root), 3, 16, **{**MIXING, **options})


def module(
    root: Path | str, batch_size: int = 8, workers: int = 0, source: dict | None = None, **options
) -> ImageData:
    built = partial(stream, **{**MIXING, **(source or {})})
    return ImageData(built, batch_size, 16, 3, augmentation(), root=str(root), workers=workers, **options)


def as_rank(data: ImageData, rank: int, world: int) -> TrainLoader:
    plan = data._plan(rank, world)
    return TrainLoader(data.train, plan, TrainTask(data.train, data._worker_views, data.seed, finish=False))


def files(where: Path) -> list[Path]:
    return sorted(where.rglob("chunk-*.bin"))


def held(where: Path) -> int:
    """Bytes of all chunks in a cache, half-written ones too; nobody makes room or publishes a chunk meanwhile."""
    shelf = next(where.glob("stream-*"))
    total = 0
    with FileLock(shelf / ".lock"):
        for path in shelf.rglob("chunk-*"):
            if path.suffix in (".bin", ".part"):
                with suppress(FileNotFoundError):  # a download that begins again removes its half-written file
                    total += path.stat().st_size
    return total


def refused(words: list[str], call, *arguments, **options) -> None:
    with pytest.raises(ConfigError) as error:
        call(*arguments, **options)
    assert all(word in str(error.value) for word in words), error.value


# The store


def test_a_store_holds_the_files_as_they_are_with_their_labels(tree, store):
    splits = opened(store)
    for source, part, samples in ((splits.train, "train", 3 * PER_CLASS), (splits.val, "val", 3 * VAL)):
        assert len(source) == samples and source.classes == ["a", "b", "c"]
        known = {path.read_bytes(): path.parent.name for path in (tree / part).rglob("*.png")}
        stored = [source.encoded(i)[0] for i in range(samples)]
        assert len(set(stored)) == samples
        assert [known[content] for content in stored] == [source.classes[label] for label in source.labels]
    assert len(splits.train.index.names) > 15


def test_chunks_of_a_sorted_folder_hold_several_classes(store):
    train = opened(store).train
    mixed = [len(train.labels[train.shards.number == chunk].unique()) for chunk in train.shards.number.unique()]
    assert np.mean(mixed) > 2  # three classes, five or six images; 1 if they stood in the folder's order


def test_litdata_reads_what_we_write_and_we_read_what_litdata_writes(store, tmp_path):
    ours = opened(store).train
    assert StreamingDataset(str(store / "train"))[17] == ours.encoded(17)[0]
    writer = Cache(str(tmp_path / "theirs"), chunk_bytes="8KB")
    for i in range(20):
        writer[i] = (i, ours.encoded(i)[0], f"sample {i}")
    writer.done()
    writer.merge()
    with pytest.warns(UserWarning, match="holds no labels.npy: its images are taken as unlabelled"):
        theirs = opened(tmp_path / "theirs").train
    assert theirs.labels is None and len(theirs) == 20
    assert all(torch.equal(theirs.load(i), ours.load(i)) for i in range(20))


def test_an_arrow_table_of_litdata_is_told(store, tmp_path):
    pytest.importorskip("pyarrow", reason="litdata writes such tables where pyarrow is there")
    ours, writer = opened(store).train, Cache(str(tmp_path / "theirs"), chunk_bytes="8KB")
    for i in range(4):
        writer[i] = {"label": i, "image": ours.encoded(i)[0]}
    writer.done()
    writer.merge()
    with pytest.warns(UserWarning, match="holds no labels.npy"):
        theirs = opened(tmp_path / "theirs").train
    with pytest.raises(DamagedFile, match="litdata wrote an Arrow table, .* give it tuples instead of dicts"):
        theirs.load(0)


def test_images_in_memory_come_back_pixel_by_pixel(tmp_path):
    source = digits(8, 1)
    write_splits(source, tmp_path / "digits", "20KB")
    for before, after in zip(source, stream(str(tmp_path / "digits"), 1, 8), strict=True):
        stored = torch.stack([after.load(i) for i in range(len(after))])
        pairs = {
            (image.numpy().tobytes(), int(label)) for image, label in zip(before.images, before.labels, strict=True)
        }
        assert {
            (image.numpy().tobytes(), int(label)) for image, label in zip(stored, after.labels, strict=True)
        } == pairs


def test_unreadable_files_are_left_out_of_a_store(tmp_path):
    paths = pictures(tmp_path / "in", 6)
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    with pytest.warns(UserWarning, match="002.png"):
        write_stream(folder(str(tmp_path / "in"), 3, 16, cache=False).train, tmp_path / "out")
    with pytest.warns(UserWarning, match="unlabelled"):
        assert len(opened(tmp_path / "out").train) == 5


def test_a_store_is_there_whole_or_not_at_all(tree, tmp_path, monkeypatch):
    train = folder(str(tree), 3, 16, cache=False).train
    refused(["set.part", "is full", "free some space"], partial(write_stream), FullSource(train), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").touch()
    refused(["is there already and not empty"], write_stream, train, tmp_path / "set")
    refused(["chunk_bytes=5GB", "less than 4GB"], write_stream, train, tmp_path / "other", "5GB")
    refused(["chunk_bytes=many", "such as 500MB"], write_stream, train, tmp_path / "other", "many")


class FullSource:
    """A source in the middle of which the disk becomes full."""

    def __init__(self, source):
        self.source = source
        self.channels, self.damage_limit, self.labels = 3, 0, source.labels

    def __len__(self):
        return len(self.source)

    def load(self, index, shrink=None):
        if index == 7:
            raise OSError(errno.ENOSPC, "set.part is full")
        return self.source.load(index)


# The order: every sample once, whatever the number of workers and processes, and after a resume


def test_an_epoch_shows_every_sample_once_with_its_label(store):
    data = module(store)
    seen = torch.cat([batch.index for batch in batches(data)])
    assert sorted(seen.tolist()) == list(range(120))
    batch = batches(data, 1)[0]
    assert torch.equal(batch.label, data.train_labels[batch.index])


def test_batches_do_not_depend_on_workers_cache_or_processes(store, tmp_path):
    data = module(store)
    whole = batches(data)
    others = {
        "workers": batches(module(store, workers=2)),
        "cache": batches(module(store, workers=2, source={"cache": str(tmp_path)})),
        "processes": [],
    }
    for rank in range(2):
        for raw in as_rank(data, rank, 2):
            others["processes"].append(data.on_after_batch_transfer(raw, 0))
    expected = by_slot(whole)
    for name, found in others.items():
        rows = by_slot(found)
        assert rows.keys() == expected.keys(), name
        for slot, (index, view) in expected.items():
            assert rows[slot][0] == index and torch.equal(rows[slot][1], view), (name, slot)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch_continues_with_exactly_the_next_batch(store, tmp_path, workers):
    whole = module(store)
    both = batches(whole) + batches(whole)
    first = module(store, workers=workers)
    batches(first, 4)
    second = module(store, workers=workers, source={"cache": str(tmp_path)})  # another machine, with an empty cache
    second.load_state_dict(first.state_dict())
    rest = batches(second) + batches(second)
    assert len(rest) == len(both) - 4
    for a, b in zip(rest, both[4:], strict=True):
        assert torch.equal(a.index, b.index)
        assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))


def test_subsets_and_held_out_parts_of_a_stream(store):
    data = module(store, val_fraction=0.25, subset=40)
    seen = torch.cat([data.train.positions[batch.index] for batch in batches(data)])
    assert len(seen.unique()) == 40
    assert not set(seen.tolist()) & set(data.val.positions.tolist()) and len(data.val) == 30


# The cache


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_stays_within_its_bound_while_epochs_stream_through(store, tmp_path, workers):
    largest = max(path.stat().st_size for path in files(store))
    limit = 9 * largest  # the 4 x 2 chunks in use, and one
    total = sum(path.stat().st_size for path in files(store / "train"))
    assert total > 2 * limit
    data = module(store, workers=workers, source={"cache": str(tmp_path), "max_cache_size": limit})
    sizes, done = [], threading.Event()

    def watch():
        while not done.is_set():
            sizes.append(held(tmp_path))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seen = torch.cat([batch.index for _ in range(2) for batch in batches(data)])
        list(data.val_loader())
    finally:
        done.set()
        watcher.join()
        data.teardown("fit")
    assert len(seen) == 240
    assert limit / 2 < max(sizes) <= limit, (max(sizes), limit)


def test_a_node_with_half_of_the_lanes_downloads_half_of_the_chunks(store, tmp_path):
    data = module(store, source={"cache": str(tmp_path)})
    assert sum(len(raw.index) for raw in as_rank(data, 1, 2)) == 60
    chunks_in_all = len(files(store / "train"))
    assert abs(len(files(tmp_path)) - chunks_in_all / 2) <= 1, (len(files(tmp_path)), chunks_in_all)


def test_what_was_used_last_stays(store, tmp_path):
    train = opened(store, cache=str(tmp_path), lanes=1, window=1, max_cache_size=20000).train  # two chunks of 8 KB
    ends = train.index.ends
    for sample in (0, ends[0], 0, ends[1]):
        train.load(int(sample))
        time.sleep(0.02)
    assert [path.name for path in files(tmp_path)] == ["chunk-0-0.bin", "chunk-0-2.bin"]


def test_room_claimed_by_a_process_that_died_is_taken_back(store, tmp_path):
    options = {"cache": str(tmp_path), "lanes": 1, "window": 1, "max_cache_size": 9000}
    train = opened(store, **options).train
    left = [train.place.folder / f"chunk-0-1.bin.{kind}" for kind in ("claim", "part", "part.tmp.77")]
    for path in left:
        path.write_bytes(bytes(8000))
    train.load(0)
    assert [path.name for path in files(tmp_path)] == ["chunk-0-0.bin"]
    assert not any(path.exists() for path in left)


def test_a_store_that_is_written_again_is_not_read_from_the_old_cache(tree, tmp_path):
    source = folder(str(tree), 3, 16, cache=False)
    for part in ("train", "val"):
        write_splits(Splits(getattr(source, part), None), tmp_path / part, "8KB")
    (tmp_path / "now").symlink_to(tmp_path / "train")
    first = opened(tmp_path / "now", cache=str(tmp_path / "cache")).train
    first.load(0)
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to(tmp_path / "val")
    second = opened(tmp_path / "now", cache=str(tmp_path / "cache")).train
    assert torch.equal(second.load(0), opened(tmp_path / "val").train.load(0))
    assert not torch.equal(second.load(0), first.load(0))


def test_a_source_travels_to_a_worker_of_any_kind(store, tmp_path):
    train = opened(store, cache=str(tmp_path)).train
    train.load(0)
    copy = pickle.loads(pickle.dumps(train))
    assert torch.equal(copy.load(100), opened(store).train.load(100))


# What can be wrong


class Flaky(LocalDownloader):
    """A store behind a URL whose next answers are in ``answers``: exceptions, or None for the file."""

    answers: list[Exception | None] = []

    def download_file(self, remote_filepath, local_filepath):
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        super().download_file(remote_filepath.removeprefix("flaky://"), local_filepath)


@pytest.fixture
def flaky(store, tmp_path, monkeypatch):
    register_downloader("flaky://", Flaky)
    monkeypatch.setattr(chunks, "PAUSES", (0.0, 0.0))
    yield f"flaky://{store}", {"cache": str(tmp_path)}
    unregister_downloader("flaky://")
    Flaky.answers = []


def test_a_url_is_read_through_the_cache(flaky, store):
    url, options = flaky
    splits = opened(url, **options)
    assert torch.equal(splits.train.load(50), opened(store).train.load(50))
    assert splits.train.classes == ["a", "b", "c"] and len(splits.val) == 3 * VAL


class Bucket(BaseHTTPRequestHandler):
    """As much of S3 as reading takes; ``folder`` is the bucket."""

    folder = Path()

    def do_GET(self):
        path = self.folder / self.path.partition("?")[0].removeprefix("/bucket/")
        content = path.read_bytes() if path.is_file() else b"<Error><Code>NoSuchKey</Code></Error>"
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def bucket(store, monkeypatch):
    monkeypatch.setattr(Bucket, "folder", store.parent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for key, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(key, value)
    chunks._client.cache_clear()
    yield "s3://bucket"
    chunks._client.cache_clear()
    server.shutdown()
    server.server_close()


def test_a_bucket_is_read_through_the_client_of_s3(bucket, store, tmp_path):
    data, local = module(f"{bucket}/{store.name}/", workers=2, source={"cache": str(tmp_path)}), module(store)
    for ours, expected in zip(batches(data), batches(local), strict=True):
        assert torch.equal(ours.index, expected.index) and torch.equal(ours.label, expected.label)
        assert all(torch.equal(x, y) for x, y in zip(ours.views, expected.views, strict=True))
    refused(["no litdata store there"], opened, f"{bucket}/other", cache=str(tmp_path))


def test_a_download_is_tried_again(flaky, store):
    url, options = flaky
    train = opened(url, **options).train
    Flaky.answers = [TimeoutError("slow"), RuntimeError("reset by peer"), None]
    assert torch.equal(train.load(3), opened(store).train.load(3)) and not Flaky.answers


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            [RuntimeError("no route")] * 3,
            ["chunk-0-0.bin cannot be fetched", "no route", "tried 3 times", "resume=auto"],
        ),
        ([RuntimeError("An error occurred (404): Not Found")], ["chunk-0-0.bin is missing", "not complete"]),
        ([OSError(errno.ENOSPC, "No space left")], ["disk of the cache", "is full", "max_cache_size", "MB are free"]),
        ([PermissionError(errno.EACCES, "no")], ["cannot be written", "data.source.cache"]),
    ],
)
def test_chunks_that_do_not_come(flaky, answers, words):
    url, options = flaky
    train = opened(url, **options).train
    Flaky.answers = answers
    refused(words, train.load, 0)
    assert not [path for path in Path(options["cache"]).rglob("chunk-*") if path.suffix != ".lock"]


def test_a_store_that_cannot_be_reached(flaky):
    Flaky.answers = [RuntimeError("EndpointConnectionError: no route")]
    refused(["train/index.json cannot be read", "no route", "credentials"], opened, flaky[0], **flaky[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"root": None}, ["data.root is not set", "s3://"]),
        ({"root": "nowhere"}, ["no litdata store there", "train/index.json", "ssl-zoo pack data=folder"]),
        ({"download": True}, ["data.download=true", "data.download=false"]),
        ({"labels": "folder"}, ["data.source.labels=folder", "auto or none"]),
        ({"lanes": 0}, ["data.source.lanes=0", "1 or more"]),
        ({"window": True}, ["data.source.window=True"]),
        ({"max_cache_size": "lots"}, ["data.source.max_cache_size=lots", "100GB"]),
        ({"cache": "CACHE", "max_cache_size": "1KB"}, ["max_cache_size=1000 bytes", "less than the largest chunk"]),
        ({"cache": "CACHE/file"}, ["cannot be written", "data.source.cache"]),
    ],
)
def test_wrong_options(store, tmp_path, options, words):
    (tmp_path / "file").touch()
    options = {"root": str(store), **options}
    if "cache" in options:
        options["cache"] = options["cache"].replace("CACHE", str(tmp_path))
    refused(words, stream, channels=3, image_size=16, **options)


def test_a_small_cache_is_said_once_at_the_start(store, tmp_path):
    with pytest.warns(UserWarning, match="on fewer than 4 nodes chunks will be fetched again"):
        opened(store, cache=str(tmp_path), max_cache_size="18KB", labels="none")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chunks": []}, ["index.json: the store is empty"]),
        ({"chunks": [{"filename": "../x.bin", "chunk_bytes": 9, "chunk_size": 1}]}, ["'../x.bin'", "chunk-....bin"]),
        ({"config": {"data_format": ["int"]}}, ["items hold ['int']", "bytes or jpeg"]),
        ({"config": {"data_format": ["bytes"], "compression": "zstd"}}, ["with compression", "neither compressed"]),
        (None, ["is no index of a litdata store"]),
    ],
)
def test_stores_that_cannot_be_read(store, tmp_path, change, words):
    found = json.loads((store / "train" / "index.json").read_text())
    (tmp_path / "index.json").write_text("{" if change is None else json.dumps({**found, **change}))
    refused(words, opened, tmp_path)


def copied(store: Path, out: Path) -> Path:
    out.mkdir()
    for path in (store / "train").iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_a_store_with_a_chunk_missing_or_labels_of_another(store, tmp_path):
    lame = copied(store, tmp_path / "lame")
    (lame / "chunk-0-3.bin").unlink()
    refused(["is not complete: chunk-0-3.bin is missing, 1 of"], opened, lame)
    mixed = copied(store, tmp_path / "mixed")
    np.save(mixed / "labels.npy", np.zeros(7, np.int64))
    refused(["holds [7] labels", "wanted [120]"], opened, mixed)
    (mixed / "labels.npy").write_bytes(b"no array")
    refused(["labels.npy or classes.json cannot be read"], opened, mixed)


@pytest.mark.parametrize("cached", [False, True])
def test_a_chunk_that_is_cut_short_names_the_sample_and_the_next_takes_its_place(store, tmp_path, cached, monkeypatch):
    monkeypatch.setattr(chunks, "PAUSES", (0.0, 0.0))
    root = copied(store, tmp_path / "set")
    chunk = root / "chunk-0-1.bin"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    options = {"cache": str(tmp_path / "cache")} if cached else {}
    train = opened(root, **options).train
    last = int(train.index.ends[1]) - 1
    with pytest.raises(DamagedFile) as error:
        train.load(last)
    row = last - int(train.index.ends[0])
    assert str(error.value).startswith(f"{root}/chunk-0-1.bin, sample {row}: the chunk is damaged there")
    train.load(last - 1)  # before the cut
    data = module(root, source={**options, "max_damaged": 5})
    with pytest.warns(UserWarning, match=f"take their places: .*chunk-0-1.bin, sample {row}"):
        seen = torch.cat([batch.index for batch in batches(data)])
    assert len(seen) == 120 and last not in seen


def test_litdata_is_needed_only_where_chunks_are_fetched(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    assert opened(store).train.load(0).shape == (3, 20, 24)
    refused(["needs the package litdata: pip install ssl_zoo[stream]"], opened, store, cache=str(tmp_path))


@pytest.mark.parametrize("root", ["s3://bucket/set", "FOLDER"])
def test_the_configuration_takes_a_url_or_a_folder(store, root):
    overrides = ["data=stream", f"data.root={root.replace('FOLDER', str(store))}", "data.source.window=3"]
    cfg = config.load(overrides)
    config.quick_check(cfg)
    assert cfg.data.source._target_ == "ssl_zoo.data.image.stream.stream" and cfg.data.source.window == 3


def test_an_unlabelled_store_trains_without_a_validation_set(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = opened(store, labels="none")
    assert splits.val is None and splits.train.labels is None


def test_the_command_writes_a_store_of_a_pack_that_keeps_its_image_files(tree, tmp_path, capsys):
    from ssl_zoo.cli import entry

    file, out = tmp_path / "a.pack", tmp_path / "store"
    assert entry(["pack", "data=folder", f"data.root={tree}", f"out={file}", "encoding=original", "workers=0"]) == 0
    assert entry(["pack", "data=packed", f"data.root={file}", f"out={out}", "chunk=20KB"]) == 0
    assert f"use it with data=stream data.root={out}" in capsys.readouterr().out
    packed, stored = packed_source(str(file), 3, 16).train, opened(out).train
    assert sorted(packed.image_file(i) for i in range(len(packed))) == sorted(
        stored.encoded(i)[0] for i in range(len(stored))
    )


def test_a_store_is_not_written_with_the_options_of_a_file(capsys):
    from ssl_zoo.cli import entry

    assert entry(["pack", "data=synthetic", "out=x", "chunk=1MB", "encoding=jpeg"]) == 1
    assert "chunk=1MB: a store keeps image files as they are" in capsys.readouterr().err
