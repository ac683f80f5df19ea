"""Graphs that torch_geometric saved: a folder of ``.pt`` files with ``Data`` objects, or lists of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.data.graph.source import GraphSource, degrees, ones
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Count, Size

VALIDATION = ("val", "valid", "validation", "test")


def saved_graphs(
    root: str,
    download: bool = False,
    features: Literal["auto", "x", "degrees", "ones"] = "auto",
    highest_degree: Size | None = None,
    edgeless: Literal["keep", "damaged"] = "keep",
    max_damaged: Count | None = None,
) -> Splits:
    """Files that ``torch.save`` wrote of ``torch_geometric.data.Data``, sorted by name, all read at once.

    Args:
        root: A file, or a folder of ``*.pt``; with ``train`` and ``val`` (or ``test``) below it, one for each.
        features: Of the nodes: the field ``x``, their degree (one-hot), or 1. auto: ``x`` where the graphs have it,
            else 1.
        highest_degree: Nodes of a higher one count as this; None: the highest there is.
        edgeless: What a graph without edges is.
        max_damaged: Files that cannot be read, and graphs without nodes or with edges to nowhere, at most; None: the
            larger of 100 and 1 %.

    Raises:
        ConfigError: Without torch_geometric, without a graph that can be read, and where the graphs do not go together.
    """
    base = Path(root).expanduser()
    train = base / "train" if (base / "train").is_dir() else base
    other = [base / name for name in VALIDATION if (base / name).is_dir()] if train != base else []
    read = [_Reader(place, features, highest_degree, edgeless) for place in (train, *other[:1])]
    if features == "degrees" and highest_degree is None:
        highest_degree = max(reader.highest() for reader in read)  # as many columns in both
    classes = sorted({label for reader in read for label in reader.labels if label is not None})
    sources = [reader.source(classes, highest_degree, max_damaged) for reader in read]
    widths = [source.facts["node_features"] for source in sources]
    if len(set(widths)) > 1:
        raise ConfigError(f"data.root={root}: nodes of {train.name} have {widths[0]} features, of {other[0].name} "
                          f"{widths[1]}; wanted as many")  # fmt: skip
    return Splits(sources[0], sources[1] if other else None)


def _classes() -> list[Any]:
    """``Data``, and what else its files name: a file that names anything more is not opened."""
    try:
        from torch_geometric.data import Data
        from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
        from torch_geometric.data.storage import GlobalStorage
    except ImportError:
        raise ConfigError(
            "data=graphs reads files of the package torch_geometric: pip install 'ssl_zoo[graph]'; sets of the TU "
            "collection (data=tu) need nothing"
        ) from None
    return [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]


class _Reader:
    """All graphs of one file or folder."""

    def __init__(self, place: Path, features: str, highest: int | None, edgeless: str) -> None:
        self.features = features
        self.known = _classes()
        self.names: list[str] = []
        self.graphs: list[Graphs] = []
        self.labels: list[int | None] = []
        self.damaged: dict[int, str] = {}
        files = [place] if place.is_file() else sorted(place.glob("*.pt"))
        if not files:
            raise ConfigError(f"data.root={place}: found no .pt file of torch_geometric's graphs in {place.absolute()}")
        for file in files:
            for name, item in self._items(file):
                self._add(name, item, edgeless)
        self._check(place)

    def _items(self, file: Path) -> Iterator[tuple[str, Any]]:
        """Names and graphs of a file, or the reason for which there are none."""
        try:
            with torch.serialization.safe_globals(self.known):
                held = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a torn pickle raises
            yield str(file), f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            return
        if isinstance(held, (list, tuple)):
            yield from ((f"{file}: graph {i}", item) for i, item in enumerate(held))
        else:
            yield str(file), held

    def _add(self, name: str, item: Any, edgeless: str) -> None:
        self.names.append(name)
        problem = item if isinstance(item, str) else self._problem(item, edgeless)
        if problem is None:
            x = torch.empty(item.num_nodes, 0) if self.features in ("degrees", "ones") or item.x is None else item.x
            edges = torch.empty(2, 0, dtype=torch.int64) if item.edge_index is None else item.edge_index
            x = x.float()[:, None] if x.dim() == 1 else x.float()
            nothing = Graphs(x, edges[:, :0].long(), torch.tensor([len(x)]), torch.tensor([0]))
            self.graphs.append(nothing.with_edges(edges.long()).coalesced())
            self.labels.append(self._label(name, item.y))
        else:
            self.damaged[len(self.names) - 1] = problem
            self.labels.append(None)
            self.graphs.append(
                Graphs(torch.empty(0, 0), torch.empty(2, 0, dtype=torch.int64), *torch.zeros(2, 1).long())
            )

    def _problem(self, item: Any, edgeless: str) -> str | None:
        if not isinstance(item, self.known[0]):
            return f"it holds a {type(item).__name__}, wanted torch_geometric.data.Data or a list of them"
        nodes, edges = item.num_nodes or 0, item.edge_index
        if not nodes:
            return "it has no nodes"
        if edges is None or not edges.numel():
            return "it has no edges" if edgeless == "damaged" else None
        if edges.dim() != 2 or len(edges) != 2 or int(edges.min()) < 0 or int(edges.max()) >= nodes:
            return f"its edge_index {list(edges.shape)} is not [2, E] of numbers from 0 to {nodes - 1}"
        if item.x is not None and not item.x.float().isfinite().all():
            return "a feature of a node is not finite"
        return None

    @staticmethod
    def _label(name: str, y: Any) -> int | None:
        if y is None:
            return None
        value = torch.as_tensor(y).flatten()
        if len(value) != 1 or float(value) != int(value):
            raise ConfigError(f"{name}: its label y is {value.tolist()}; wanted one whole number, or None for none")
        return int(value)

    def _check(self, place: Path) -> None:
        read = [i for i in range(len(self.graphs)) if i not in self.damaged]
        if not read:
            reasons = "; ".join(f"{self.names[i]}: {reason}" for i, reason in list(self.damaged.items())[:3])
            raise ConfigError(f"data.root={place}: none of {len(self.graphs)} graphs can be read: {reasons}")
        widths = {self.graphs[i].x.shape[1]: self.names[i] for i in reversed(read)}
        if len(widths) > 1:
            told = "; ".join(f"{width} in {name}" for width, name in sorted(widths.items())[:3])
            raise ConfigError(
                f"data.root={place}: nodes have different numbers of features: {told}; data.source.features=degrees "
                "or ones does without them"
            )
        if 0 in widths and self.features == "x":
            raise ConfigError(f"{widths[0]}: its nodes have no features x; set data.source.features=degrees or ones")
        for i in self.damaged:
            self.graphs[i].x = torch.empty(0, max(widths))

    def highest(self) -> int:
        """Degree of any node."""
        return max((degrees(graph).shape[1] - 1 for graph in self.graphs if len(graph.x)), default=0)

    def source(self, classes: list[int], highest: int | None, max_damaged: int | None) -> GraphSource:
        whole = Graphs.concat(self.graphs)
        words = f"field x ({whole.x.shape[1]})"
        if self.features == "degrees":
            whole.x = degrees(whole, highest)
            words = f"degree, one-hot ({whole.x.shape[1]})"
        elif not whole.x.shape[1]:
            whole.x, words = ones(whole), "1 (nothing is known of a node)"
        told = f"{len(whole)} graphs, {len(whole.x)} nodes, {whole.edge_index.shape[1]} edges; node features: {words}"
        number = {label: i for i, label in enumerate(classes)}
        labels = torch.tensor([-1 if label is None else number[label] for label in self.labels]) if classes else None
        names = [str(label) for label in classes] or None
        return GraphSource(whole, labels, names, self.names, self.damaged, max_damaged, [told])
