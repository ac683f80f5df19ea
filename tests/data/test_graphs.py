"""Batches of graphs, and the files that graphs come from."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.augmentations.graph.views import GraphViews
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.graph.saved import saved_graphs
from ssl_zoo.data.graph.source import degrees
from ssl_zoo.data.graph.synthetic import synthetic_graph
from ssl_zoo.data.graph.tu import tu
from ssl_zoo.errors import ConfigError
from ssl_zoo.knn import leave_one_out
from ssl_zoo.samples import leaves
from tests.data.helpers import batches

# A path of three nodes, a pair, and a node alone; the pair's edges stand between the path's, one of them twice.
EDGES = [(1, 2), (2, 1), (4, 5), (5, 4), (5, 4), (3, 2), (2, 3), (6, 6)]
FILES: dict[str, Sequence[Any]] = {
    "A": [f"{i}, {j}" for i, j in EDGES],
    "graph_indicator": [1, 1, 1, 2, 2, 3],
    "graph_labels": [1, -1, 1],
    "node_labels": [3, 5, 3, 4, 4, 3],
    "node_attributes": ["0.5, 1", "1, 2", "-1, 3", "0, 4", "2, 5", "3, 6"],
}


def written(folder: Path, name: str = "SET", **other: Sequence[Any] | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for what, lines in {**FILES, **other}.items():
        if lines is not None:
            (folder / f"{name}_{what}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def same(a: Graphs, b: Graphs) -> bool:
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def three() -> Graphs:
    edges = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
    return Graphs(torch.arange(12.0).view(6, 2), edges, torch.tensor([3, 2, 1]), torch.tensor([4, 2, 0]))


def test_parts_and_joins_of_batches_of_graphs() -> None:
    view = three()
    part = view.select(torch.tensor([2, 1, 0, 1]))
    assert part.nodes.tolist() == [1, 2, 3, 2] and part.edges.tolist() == [0, 2, 4, 2]
    assert part.x[:, 0].tolist() == [10, 6, 8, 0, 2, 4, 6, 8]
    assert part.edge_index.tolist() == [[1, 2, 3, 4, 4, 5, 6, 7], [2, 1, 4, 3, 5, 4, 7, 6]]
    assert part.graph.tolist() == [0, 1, 1, 2, 2, 2, 3, 3] and part.place.tolist() == [0, 0, 1, 0, 1, 2, 0, 1]
    again = Graphs.concat([view.select(torch.tensor([i])) for i in range(3)])
    assert same(again, view) and len(Graphs.concat([view, part])) == 7
    assert view.to(torch.float64).x.dtype == torch.float64 and view.to(torch.float64).edge_index.dtype == torch.int64
    none = view.select(torch.empty(0, dtype=torch.int64))
    assert len(none) == 0 and none.x.shape == (0, 2) and none.edge_index.shape == (2, 0)


def test_nodes_and_edges_of_a_batch_are_chosen() -> None:
    view = three()
    left = view.with_nodes(torch.tensor([2, 1, 4, 5]))
    assert left.nodes.tolist() == [2, 1, 1] and left.edge_index.tolist() == [[1, 0], [0, 1]]
    assert left.x[:, 0].tolist() == [4, 2, 8, 10]
    mixed = view.with_edges(torch.tensor([[4, 2, 4, 1], [3, 1, 3, 2]]))
    assert mixed.edge_index.tolist() == [[2, 1, 4, 4], [1, 2, 3, 3]] and mixed.edges.tolist() == [2, 2, 0]
    assert mixed.coalesced().edge_index.tolist() == [[1, 2, 4], [2, 1, 3]]


@pytest.mark.parametrize("place", ["SET/raw", "SET", "raw", "."])
def test_files_of_the_tu_collection(tmp_path: Path, place: str) -> None:
    written(tmp_path / place)
    source = tu(str(tmp_path), "SET").train
    assert (len(source), source.classes, source.labels.tolist()) == (3, ["-1", "1"], [1, 0, 1])  # type: ignore[union-attr]
    whole = source.fetch(torch.arange(3))
    assert whole.x.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert whole.edge_index.tolist() == [[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]]  # each once, without the loop
    assert source.facts == {"node_features": 3} and same(source.load(1), whole.select(torch.tensor([1])))
    assert source.decisions == [  # type: ignore[attr-defined]
        "SET: 3 graphs, 6 nodes, 6 directed edges; node features: labels (3)",
        "1 graph(s) of SET have no edges (graph 3 is the first); data.source.edgeless=damaged leaves them out",
    ]
    rows = source.baseline(whole)  # type: ignore[attr-defined]
    assert rows[0].tolist() == [2, 0, 1, *torch.tensor([2 / 3, 0, 1 / 3]).tolist(), 3, 4]


def test_features_of_nodes_are_chosen(tmp_path: Path) -> None:
    written(tmp_path)
    for features, row in {
        "attributes": [1, 2], "both": [0, 0, 1, 1, 2], "degrees": [0, 0, 1], "ones": [1], "labels": [0, 0, 1],
    }.items():  # fmt: skip
        assert tu(str(tmp_path), "SET", features=features).train.load(0).x[1].tolist() == row  # type: ignore[arg-type]
    assert tu(str(tmp_path), "SET", features="degrees", highest_degree=1).train.load(0).x[1].tolist() == [0, 1]
    (tmp_path / "SET_node_labels.txt").unlink()
    assert tu(str(tmp_path), "SET").train.facts == {"node_features": 2}
    (tmp_path / "SET_node_attributes.txt").unlink()
    assert tu(str(tmp_path), "SET").train.load(0).x.tolist() == [[1], [1], [1]]
    with pytest.raises(
        ConfigError, match=r"features=labels: there is no SET_node_labels.txt in .*auto takes what there"
    ):
        tu(str(tmp_path), "SET", features="labels")


def test_nodes_of_a_graph_need_not_lie_together(tmp_path: Path) -> None:
    written(tmp_path, graph_indicator=[1, 2, 1, 1, 2, 3], A=["1, 3", "3, 4", "5, 2"])
    whole = tu(str(tmp_path), "SET").train.fetch(torch.arange(3))
    assert whole.nodes.tolist() == [3, 2, 1] and whole.edge_index.tolist() == [[0, 1, 4], [1, 2, 3]]
    assert whole.x.argmax(1).tolist() == [0, 0, 1, 2, 1, 0]


def test_torch_geometric_reads_the_same(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torch_geometric.datasets")
    written(tmp_path / "SET/raw")
    theirs, ours = datasets.TUDataset(str(tmp_path), "SET"), tu(str(tmp_path), "SET").train
    for i, graph in enumerate(theirs):
        own = ours.load(i)
        assert torch.equal(graph.x, own.x) and torch.equal(graph.edge_index, own.edge_index)
        assert int(graph.y) == int(ours.labels[i])  # type: ignore[index]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"A": ["1, 2", "2, 7"]}, r"SET_A.txt: line 2 is the edge 2, 7; nodes are counted from 1 to 6"),
        ({"A": ["1, 2", "2, x"]}, r"SET_A.txt: cannot be read \(could not convert string ' x' to int64"),
        ({"A": ["1, 2, 3"]}, r"SET_A.txt: has 3 numbers a line, wanted 2"),
        ({"node_labels": [1, 2]}, r"SET_node_labels.txt: has 2 lines, wanted 6, one for each node of SET_graph_ind"),
        (
            {"graph_indicator": [1, 1, 1, 2, 2, 4]},
            r"SET_graph_indicator.txt: has a node of graph 4; wanted graphs 1 to 3",
        ),
        ({"graph_indicator": None}, r"SET_graph_indicator.txt: this file is missing; the others of SET are there"),
        ({"A": None}, r"SET is not there \(looked for SET_A.txt in .*raw.*data.download=true fetches it"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    written(tmp_path, **files)
    with pytest.raises(ConfigError, match=message):
        tu(str(tmp_path), "SET")
    with pytest.raises(ConfigError, match="data.source.name=../SET: wanted the name of a data set"):
        tu(str(tmp_path), "../SET")


def data_of(source: Any, where: str = "auto", workers: int = 0, batch: int = 2) -> DataModule:
    views = [{"count": 2, "ops": [{"graph/node_drop": {"ratio": 0.5}}]}]
    return DataModule(lambda root, download: source, batch, GraphViews(views, {"ops": []}, where), workers=workers)


@pytest.mark.filterwarnings("ignore:damaged files")
def test_damaged_graphs_are_replaced_and_named(tmp_path: Path) -> None:
    other = {"A": ["1, 2", "2, 1", "3, 4"], "graph_labels": [1, -1, 1, 2], "node_attributes": ["1"] * 5 + ["nan"]}
    folder = written(tmp_path, **other)
    splits = tu(str(tmp_path), "SET", features="attributes", edgeless="damaged", max_damaged=3)
    indicator = folder / "SET_graph_indicator.txt"
    assert splits.train.damaged == {  # type: ignore[attr-defined]
        0: "line 3 of SET_A.txt joins it to graph 2",
        1: "line 3 of SET_A.txt joins it to graph 1",
        2: "it has no edges",
        3: "it has no nodes",
    }
    assert not splits.train.in_memory
    with pytest.raises(ConfigError, match=rf"4 of 4 samples cannot be read.*\n  {indicator}: graph 1: line 3 of SET_A"):
        data_of(splits)
    written(tmp_path, graph_labels=[1, -1, 1, 2])
    data = data_of(tu(str(tmp_path), "SET"))
    with pytest.warns(UserWarning, match=r"damaged files: 1 of 4.*SET_graph_indicator.txt: graph 4: it has no nodes"):
        labels = torch.cat([label for _, label, _ in data.train_eval_loader()])
    assert labels.tolist() == [1, 0, 1, -1]


def test_memory_workers_and_whole_views_of_workers_are_the_same_numbers() -> None:
    def made(in_memory: bool, where: str, workers: int) -> list[Any]:
        splits = synthetic_graph(samples=20, val_samples=0)
        splits.train.in_memory = in_memory
        return batches(data_of(splits, where, workers, batch=8), 3)

    first = made(True, "auto", 0)
    assert not same(*first[0].views) and len(first[0].views[0]) == 8
    for where, workers in (("auto", 0), ("auto", 1), ("worker", 1)):
        for a, b in zip(first, made(False, where, workers), strict=True):
            assert torch.equal(a.index, b.index) and all(same(x, y) for x, y in zip(a.views, b.views, strict=True))


def test_the_archive_is_fetched_into_the_folder_of_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download_url(url: str, root: str, filename: str) -> None:
        asked.append(url)
        files = written(tmp_path / "made")
        with zipfile.ZipFile(Path(root, filename), "w") as archive:
            for file in files.iterdir():
                archive.write(file, f"../SET/{file.name}")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda url, root, filename: (
        Path(root).mkdir(parents=True), download_url(url, root, filename)
    ))  # fmt: skip
    assert len(tu(str(tmp_path / "data"), "SET", download=True).train) == 3
    assert asked == ["https://www.chrsmrrs.com/graphkerneldatasets/SET.zip"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["SET"]

    def fails(*_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fails)
    with pytest.raises(
        ConfigError, match=r"OTHER could not be fetched from https.*\(no route to host\); fetch it on a"
    ):
        tu(str(tmp_path / "data"), "OTHER", download=True)


def test_files_of_torch_geometric(tmp_path: Path) -> None:
    Data = pytest.importorskip("torch_geometric.data").Data
    x, path = torch.eye(3), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    torch.save([Data(x=x, edge_index=path, y=torch.tensor([7])), Data(x=x[:2], edge_index=path[:, :2], y=5)],
               tmp_path / "train/a.pt")  # fmt: skip
    torch.save(Data(x=x[:1], edge_index=path[:, :0]), tmp_path / "train/b.pt")
    torch.save(Data(x=x[:0], edge_index=path[:, :0], y=5), tmp_path / "train/c.pt")
    torch.save(Data(x=x, edge_index=path + 1, y=5), tmp_path / "train/d.pt")
    torch.save({"x": x}, tmp_path / "train/e.pt")
    (tmp_path / "train/f.pt").write_bytes(b"torn")
    torch.save(Data(x=x, edge_index=path, y=5), tmp_path / "test/a.pt")
    train, val = saved_graphs(str(tmp_path))
    assert val is not None and len(val) == 1 and val.labels.tolist() == [0]  # type: ignore[union-attr]
    assert train.labels.tolist()[:3] == [1, 0, -1] and train.classes == ["5", "7"]  # type: ignore[union-attr]
    assert train.load(1).x.tolist() == x[:2].tolist() and train.load(0).edge_index.tolist() == path.tolist()
    reasons = train.damaged  # type: ignore[attr-defined]
    assert reasons[3] == "it has no nodes" and "not [2, E] of numbers from 0 to 2" in reasons[4]
    assert "it holds a dict, wanted torch_geometric.data.Data" in reasons[5] and "cannot be read" in reasons[6]
    degree = saved_graphs(str(tmp_path), features="degrees").train
    assert degree.load(0).x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert saved_graphs(str(tmp_path), features="ones").train.load(1).x.tolist() == [[1], [1]]
    file = tmp_path / "whole.pt"
    torch.save([Data(edge_index=path, num_nodes=3), Data(edge_index=path, num_nodes=3)], file)
    unlabelled = saved_graphs(str(file)).train
    assert unlabelled.labels is None and unlabelled.load(0).x.tolist() == [[1], [1], [1]]
    with pytest.raises(ConfigError, match="whole.pt: graph 0: its nodes have no features x; set data.source.features"):
        saved_graphs(str(file), features="x")
    torch.save([Data(x=x, edge_index=path, y=torch.tensor([0.5]))], file)
    with pytest.raises(ConfigError, match=r"whole.pt: graph 0: its label y is \[0.5\]; wanted one whole number"):
        saved_graphs(str(file))
    torch.save([Data(x=x, edge_index=path), Data(x=x[:, :2], edge_index=path)], file)
    with pytest.raises(ConfigError, match="nodes have different numbers of features: 2 in .*graph 1; 3 in .*graph 0"):
        saved_graphs(str(file))


def test_without_torch_geometric_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(
        ConfigError, match=r"reads files of the package torch_geometric: pip install 'ssl_zoo\[graph\]'"
    ):
        saved_graphs(str(tmp_path))
    written(tmp_path)
    assert len(tu(str(tmp_path), "SET").train) == 3  # the TU collection needs nothing


def test_drawn_graphs_are_the_same_each_time_and_tell_their_class() -> None:
    train, val = synthetic_graph(samples=96, val_samples=8)
    again, other = synthetic_graph(samples=96).train, synthetic_graph(samples=96, seed=1).train
    assert val is not None and len(val) == 8
    assert train.fingerprint() == again.fingerprint() != other.fingerprint()
    whole = train.fetch(torch.arange(96))
    assert int(whole.nodes.min()) >= 8 and int(whole.nodes.max()) <= 16 and bool((whole.edges > 0).all())
    histogram = torch.zeros(96, 17).index_add(0, whole.graph, degrees(whole, 16)) / whole.nodes[:, None]
    found = leave_one_out(histogram, train.labels, 4, 5, 0.07)  # type: ignore[arg-type]
    assert (found == train.labels).float().mean() > 0.8
