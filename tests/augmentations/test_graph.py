"""Operations on graphs: how much they change, that each graph has draws of its own, and what both codes do around."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.graph.functions import NEVER, reindexed, walked, with_loops
from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.augmentations.rng import Draw, RecordedDraw, stream_key
from ssl_zoo.data.graph.synthetic import synthetic_graph
from ssl_zoo.errors import ConfigError
from tests.data.test_graphs import same

OPERATIONS: dict[str, dict[str, Any]] = {
    "graph/node_drop": {"ratio": 0.3},
    "graph/edge_pert": {"ratio": 0.3},
    "graph/subgraph": {"ratio": 0.5},
    "graph/attr_mask": {"ratio": 0.3, "fill": "normal"},
    "graph/random_choice": {"ops": [{"graph/node_drop": {}}, {"graph/subgraph": {"mode": "official"}}]},
}


def made(name: str, view: Graphs, slots: Tensor | None = None, **options: Any) -> Graphs:
    slots = torch.arange(len(view)) if slots is None else slots
    operation = registry.build({name: options or OPERATIONS[name]})
    return operation(view, Draw(stream_key(0, "test", 0), slots))


@pytest.fixture(scope="module")
def view() -> Graphs:
    return synthetic_graph(samples=40).train.fetch(torch.arange(40))


def pairs(view: Graphs) -> set[tuple[int, int]]:
    return set(map(tuple, view.edge_index.T.tolist()))


def connected(graph: Graphs) -> bool:
    reached = torch.zeros(len(graph.x), dtype=torch.bool)
    reached[0] = True
    for _ in range(len(graph.x)):
        reached[graph.edge_index[1][reached[graph.edge_index[0]]]] = True
    return bool(reached.all())


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_graph_is_changed_alike_in_any_batch(name: str, view: Graphs) -> None:
    whole = made(name, view)
    assert not same(whole, view)
    for rows in ([3], [39, 0, 7], [5, 5]):
        index = torch.tensor(rows)
        assert same(made(name, view.select(index), index), whole.select(index))


def test_a_share_of_the_nodes_is_dropped(view: Graphs) -> None:
    left = made("graph/node_drop", view)
    assert torch.equal(left.nodes, view.nodes - (view.nodes.double() * 0.3).long())
    stay = made("graph/node_drop", view, ratio=0.3, remove=False)
    assert torch.equal(stay.x, view.x) and torch.equal(stay.edges, left.edges) and pairs(stay) < pairs(view)


def test_edges_are_removed_and_as_many_added(view: Graphs) -> None:
    gone = (view.edges.double() * 0.3).long()
    less = made("graph/edge_pert", view, ratio=0.3, add=False)
    assert torch.equal(less.edges, view.edges - gone) and pairs(less) < pairs(view)
    more = made("graph/edge_pert", view)
    assert torch.equal(more.edges, view.edges) and torch.equal(more.x, view.x)
    ends = more.graph[more.edge_index]
    assert torch.equal(ends[0], ends[1]) and len(pairs(more) - pairs(view)) > int(gone.sum()) / 2
    added = [(i, j) for i, j in more.edge_index.T.tolist() if (i, j) not in pairs(view)]
    assert {more.place[i].item() for i, _ in added} >= set(range(8))  # any node


def test_a_subgraph_grows_from_neighbour_to_neighbour(view: Graphs) -> None:
    found = made("graph/subgraph", view)
    assert torch.equal(found.nodes, (view.nodes.double() * 0.5).long() + 1)
    assert all(connected(found.select(torch.tensor([i]))) for i in range(len(view)))


def test_the_authors_subgraph_stays_with_the_first_nodes_neighbours(view: Graphs) -> None:
    found = made("graph/subgraph", view, ratio=0.5, mode="official")
    assert bool((found.nodes <= (view.nodes.double() * 0.5).long() + 1).all())
    for i in range(len(view)):
        graph = found.select(torch.tensor([i]))  # in the order of the walk
        near = set(graph.edge_index[1][graph.edge_index[0] == 0].tolist())
        assert near >= set(range(1, len(graph.x)))
    rings = [i for i in range(len(view)) if i % 4 == 0 and int(view.edges[i]) == 2 * int(view.nodes[i])]
    assert rings and found.nodes[rings].max() <= 3


def test_a_walk_that_finds_nothing_new_ends() -> None:
    alone = Graphs(torch.ones(2, 1), torch.empty(2, 0, dtype=torch.int64), torch.tensor([2]), torch.tensor([0]))
    for mode in ("official", "paper"):
        assert made("graph/subgraph", alone, ratio=0.9, mode=mode).nodes.tolist() == [1]
    when = walked(alone, torch.tensor([1]), torch.tensor([[1, 1, -1]]))
    assert when.tolist() == [NEVER, -1]


@pytest.mark.parametrize("fill", ["mean", "normal"])
def test_features_are_masked(fill: str, view: Graphs) -> None:
    masked = made("graph/attr_mask", view, ratio=0.3, fill=fill)
    changed = (masked.x != view.x).any(1)
    counts = torch.zeros_like(view.nodes).index_add_(0, view.graph, changed.long())
    assert torch.equal(counts, (view.nodes.double() * 0.3).long()) and torch.equal(masked.edge_index, view.edge_index)
    if fill == "mean":
        own = view.graph == 0
        torch.testing.assert_close(masked.x[own & changed][0], view.x[own].mean(0))
    else:
        values = masked.x[changed]
        assert abs(float(values.mean()) - 0.5) < 0.08 and abs(float(values.std()) - 0.5) < 0.08


def test_each_graph_gets_one_of_the_operations(view: Graphs) -> None:
    ops = [{"graph/node_drop": {"ratio": 0.5}}, {"graph/self_loops": {}}, {"graph/attr_mask": {"ratio": 0.5}}]
    found = made("graph/random_choice", view, ops=ops)
    fewer = found.nodes < view.nodes
    more = found.edges == view.edges + view.nodes
    assert 5 < int(fewer.sum()) < 25 and 5 < int(more.sum()) < 25 and not bool((fewer & more).any())
    assert int((~fewer & ~more).sum()) > 5


def test_loops_are_added_and_taken_away_with_lonely_nodes() -> None:
    edges = torch.tensor([[0, 1, 4], [1, 0, 3]])
    graphs = Graphs(torch.arange(6.0)[:, None], edges, torch.tensor([3, 2, 1]), torch.tensor([2, 1, 0]))
    whole = with_loops(graphs, last=True)
    assert whole.edges.tolist() == [5, 3, 1]
    official = with_loops(graphs, last=False)
    assert official.edge_index.tolist() == [[0, 1, 0, 4, 3], [1, 0, 0, 3, 3]]  # one less than the last with an edge
    left = reindexed(whole)
    assert same(left, graphs)
    left = reindexed(graphs)
    assert left.nodes.tolist() == [2, 2, 0] and left.x.flatten().tolist() == [0, 1, 3, 4]
    assert len(made("graph/random_choice", left)) == 3  # a graph without nodes passes
    for name in OPERATIONS:
        assert made(name, left).nodes[2] == 0


def test_growing_takes_one_neighbour_a_turn() -> None:
    path = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    graph = Graphs(torch.arange(4.0)[:, None], path, torch.tensor([4]), torch.tensor([6]))
    operation = registry.build({"graph/subgraph": {"ratio": 0.5}})
    draws = RecordedDraw({"start": torch.tensor([0.3]), "walk": torch.tensor([[0.6, 0.1]])})
    assert operation(graph, draws).x.flatten().tolist() == [1, 2, 0]  # of {0, 2} the second, then of {0, 3} the first


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"graph/random_choice": {"ops": []}}, "ops: wanted one operation or more"),
        ({"graph/random_choice": {"ops": [{"graph/node_dorp": {}}]}}, "no augmentation is called 'graph/node_dorp'"),
        ({"graph/random_choice": {"ops": [{"image/flip": {}}]}}, "image/flip works on samples of another kind"),
        ({"graph/random_choice": {"ops": [{"graph/node_drop": {"ratio": 1.0}}]}}, "ratio is 1.0, wanted"),
        ({"graph/subgraph": {"mode": "paperr"}}, "mode is 'paperr', wanted"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(entry: Any, message: str) -> None:
    (problem,) = registry.check([entry])
    assert message in problem


def test_operations_of_images_are_refused() -> None:
    from ssl_zoo.augmentations.graph.views import GraphViews

    with pytest.raises(ConfigError, match="augmentation.views: graph/node_drop has no option 'ration'"):
        GraphViews.pipeline.spec.parse({"ops": [{"graph/node_drop": {"ration": 0.1}}]})
    problems = GraphViews.problems([{"ops": [{"image/flip": {}}]}], {"ops": []})
    assert "image/flip works on samples of another kind; GraphViews takes graph/attr_mask" in problems[0]
