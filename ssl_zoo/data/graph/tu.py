"""The TU collection of graph data sets, https://arxiv.org/abs/2007.08663, from its text files.

``NAME_A.txt`` has an edge ``i, j`` a line, nodes counted from 1 over all graphs; ``NAME_graph_indicator.txt`` the graph
of each node, ``NAME_graph_labels.txt`` the class of each graph, and where there are any ``NAME_node_labels.txt`` and
``NAME_node_attributes.txt`` a line for each node.
"""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.data.graph.source import GraphSource, degrees, ones
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Count, Size

ADDRESS = "https://www.chrsmrrs.com/graphkerneldatasets"

Choice = Literal["auto", "labels", "attributes", "both", "degrees", "ones"]


def tu(
    root: str,
    name: str,
    download: bool = False,
    features: Choice = "auto",
    highest_degree: Size | None = None,
    edgeless: Literal["keep", "damaged"] = "keep",
    max_damaged: Count | None = None,
) -> Splits:
    """A data set of the TU collection; all its graphs are training samples, because it comes without a split.

    Args:
        root: Folder of ``NAME/raw/NAME_A.txt`` (torch_geometric's), ``NAME/NAME_A.txt`` (the archive's), or
            ``NAME_A.txt``.
        name: MUTAG, PROTEINS, NCI1, ...
        download: Fetch the archive if it is not there.
        features: Of the nodes: their labels (one-hot), their attributes, both, their degree (one-hot), or 1. auto:
            labels; attributes where there are no labels; 1 where there is neither.
        highest_degree: Nodes of a higher one count as this; None: the highest there is.
        edgeless: What a graph without edges is. GraphCL's code loses the nodes that have none.
        max_damaged: Graphs without nodes, or with an edge into another, at most; None: the larger of 100 and 1 %.

    Raises:
        ConfigError: If a file is missing or cannot be read, or has none of the features asked for.
    """
    if Path(name).name != name or name.startswith("."):
        raise ConfigError(f"data.source.name={name}: wanted the name of a data set, as MUTAG; data.root is the folder")
    files = _Files(_found(Path(root).expanduser(), name, download), name)
    return Splits(files.source(features, highest_degree, edgeless, max_damaged), None)


def _found(base: Path, name: str, download: bool) -> Path:
    """The folder that holds the files, which are fetched when allowed and absent."""
    folders = [base / name / "raw", base / name, base / "raw", base]
    for attempt in range(2):
        for folder in folders:
            if (folder / f"{name}_A.txt").is_file():
                return folder
        if attempt == 0 and download:
            _download(base, name)
    raise ConfigError(
        f"data.root={base}: {name} is not there (looked for {name}_A.txt in {folders[0].absolute()}, "
        f"{folders[1].absolute()}, and {base.absolute()}); data.download=true fetches it, or point data.root at the "
        f"folder that holds {name}/raw/{name}_A.txt"
    )


def _download(base: Path, name: str) -> None:
    """Fetch the archive into a folder aside, then move its text files: what stands in ``base`` is always complete."""
    from torchvision.datasets.utils import download_url

    aside, folder = base / f".download-{os.getpid()}", base / name / "raw"
    try:
        download_url(f"{ADDRESS}/{name}.zip", str(aside), f"{name}.zip")
        with zipfile.ZipFile(aside / f"{name}.zip") as archive:
            for member in archive.namelist():
                file = Path(member).name  # never a path of the archive's own
                if file.startswith(f"{name}_") and file.endswith(".txt"):
                    (aside / file).write_bytes(archive.read(member))
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(path.name for path in aside.glob("*.txt")):
            (aside / file).replace(folder / file)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"data.download=true: {name} could not be fetched from {ADDRESS} into {folder.absolute()} ({error}); "
            "fetch it on a machine with a connection and point data.root at it"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Files:
    """The files of one data set in ``folder``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def path(self, what: str) -> Path:
        return self.folder / f"{self.name}_{what}.txt"

    def has(self, what: str) -> bool:
        return self.path(what).is_file()

    def numbers(self, what: str, dtype: Any, columns: int | None = None, rows: int | None = None) -> np.ndarray:
        """``[rows, columns]``; a :class:`ConfigError` names the file and the line that is no such row."""
        path = self.path(what)
        if not path.is_file():
            raise ConfigError(f"{path.absolute()}: this file is missing; the others of {self.name} are there")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*input contained no data")
                found = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{path.absolute()}: cannot be read ({error})") from None
        if not found.size:
            found = found.reshape(0, columns or 0)
        if columns is not None and found.shape[1] != columns:
            raise ConfigError(f"{path.absolute()}: has {found.shape[1]} numbers a line, wanted {columns}")
        if rows is not None and len(found) != rows:
            raise ConfigError(
                f"{path.absolute()}: has {len(found)} lines, wanted {rows}, one for each node of "
                f"{self.path('graph_indicator').name}"
            )
        return found

    def source(self, features: Choice, highest: int | None, edgeless: str, max_damaged: int | None) -> GraphSource:
        labels, classes = self._labels()
        graph, count = self._graph_of_nodes(None if labels is None else len(labels))
        nodes = np.bincount(graph, minlength=count)
        damaged = {int(i): "it has no nodes" for i in np.flatnonzero(nodes == 0)}
        pairs = self._edges(graph, damaged)
        order = np.argsort(graph, kind="stable")  # nodes of a graph lie together in every data set known
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        no_edges = torch.empty(2, 0, dtype=torch.int64), torch.from_numpy(nodes), torch.zeros(count, dtype=torch.int64)
        graphs = Graphs(torch.empty(len(graph), 0), *no_edges).with_edges(torch.from_numpy(number[pairs].T)).coalesced()
        told = self._without_edges(graphs, edgeless, damaged)
        graphs.x, words = self._features(graphs, order, features, highest)
        self._finite(graphs, damaged)
        size = f"{self.name}: {count} graphs, {len(graph)} nodes, {graphs.edge_index.shape[1]} directed edges; {words}"
        names = [f"{self.path('graph_indicator')}: graph {i + 1}" for i in range(count)]
        return GraphSource(graphs, labels, classes, names, damaged, max_damaged, [size, *told])

    def _graph_of_nodes(self, labelled: int | None) -> tuple[np.ndarray, int]:
        """``[N]`` graphs from 0 on, and how many there are: as many as have labels, if any has."""
        graph = self.numbers("graph_indicator", np.int64, 1)[:, 0] - 1
        count = int(graph.max(initial=-1)) + 1 if labelled is None else labelled
        outside = graph[(graph < 0) | (graph >= count)]
        if not len(graph) or len(outside):
            at = f"a node of graph {outside[0] + 1}" if len(outside) else "no node"
            raise ConfigError(f"{self.path('graph_indicator').absolute()}: has {at}; wanted graphs 1 to {count}")
        return graph, count

    def _labels(self) -> tuple[Tensor | None, list[str] | None]:
        if not self.has("graph_labels"):
            return None, None
        values, labels = np.unique(self.numbers("graph_labels", np.int64, 1)[:, 0], return_inverse=True)
        return torch.from_numpy(labels.reshape(-1)).long(), [str(value) for value in values]

    def _edges(self, graph: np.ndarray, damaged: dict[int, str]) -> np.ndarray:
        """``[E, 2]`` nodes from 0 on, of edges between two nodes of one graph."""
        pairs = self.numbers("A", np.int64, 2) - 1
        outside = ((pairs < 0) | (pairs >= len(graph))).any(1)
        if outside.any():
            line = int(np.flatnonzero(outside)[0])
            raise ConfigError(
                f"{self.path('A').absolute()}: line {line + 1} is the edge {pairs[line, 0] + 1}, {pairs[line, 1] + 1}; "
                f"nodes are counted from 1 to {len(graph)}"
            )
        ends = graph[pairs]
        for line in np.flatnonzero(ends[:, 0] != ends[:, 1]).tolist():
            one, two = ends[line].tolist()
            for own, other in ((one, two), (two, one)):
                damaged.setdefault(own, f"line {line + 1} of {self.path('A').name} joins it to graph {other + 1}")
        # torch_geometric leaves loops out too.
        return pairs[(ends[:, 0] == ends[:, 1]) & (pairs[:, 0] != pairs[:, 1])]

    def _without_edges(self, graphs: Graphs, edgeless: str, damaged: dict[int, str]) -> list[str]:
        alone = [i for i in (graphs.edges == 0).nonzero().flatten().tolist() if i not in damaged]
        if not alone:
            return []
        first = f"{len(alone)} graph(s) of {self.name} have no edges (graph {alone[0] + 1} is the first)"
        if edgeless == "keep":
            return [f"{first}; data.source.edgeless=damaged leaves them out"]
        damaged.update(dict.fromkeys(alone, "it has no edges"))
        return [f"{first}; they are left out"]

    def _features(self, graphs: Graphs, order: np.ndarray, wanted: Choice, highest: int | None) -> tuple[Tensor, str]:
        """``[N, F]``, and what they are."""
        if wanted == "auto":
            wanted = "labels" if self.has("node_labels") else "attributes" if self.has("node_attributes") else "ones"
        if wanted == "ones":
            return ones(graphs), "node features: 1 (nothing is known of a node)"
        if wanted == "degrees":
            x = degrees(graphs, highest)
            return x, f"node features: degree, one-hot ({x.shape[1]})"
        parts, words = [], []
        for kind in ("labels", "attributes"):
            if wanted in (kind, "both"):
                if not self.has(f"node_{kind}"):
                    raise ConfigError(
                        f"data.source.features={wanted}: there is no {self.path(f'node_{kind}').name} in "
                        f"{self.folder.absolute()}; auto takes what there is"
                    )
                parts.append(self._one_hot(len(order)) if kind == "labels" else self._attributes(len(order)))
                words.append(f"{kind} ({parts[-1].shape[1]})")
        return torch.cat(parts, 1)[torch.from_numpy(order)], f"node features: {' and '.join(words)}"

    def _one_hot(self, rows: int) -> Tensor:
        """Columns of node labels side by side, each one-hot from its lowest to its highest."""
        labels = torch.from_numpy(self.numbers("node_labels", np.int64, rows=rows))
        return torch.cat([torch.nn.functional.one_hot(column - column.min()) for column in labels.T], 1).float()

    def _attributes(self, rows: int) -> Tensor:
        return torch.from_numpy(self.numbers("node_attributes", np.float32, rows=rows))

    def _finite(self, graphs: Graphs, damaged: dict[int, str]) -> None:
        for node in (~graphs.x.isfinite().all(1)).nonzero().flatten().tolist():
            damaged.setdefault(int(graphs.graph[node]), f"its node {int(graphs.place[node]) + 1} is not finite")
