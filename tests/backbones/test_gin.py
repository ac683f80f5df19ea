"""GIN against the formula on dense adjacency matrices, and on two processes with unequal numbers of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.backbones.graph.isomorphism import gin
from ssl_zoo.data.graph.synthetic import synthetic_graph
from ssl_zoo.distributed import mean_over_ranks, rank, world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.batch_norm import convert
from tests.golden.harness import numpy_of
from tests.pool import GlooPool


def drawn(count: int = 8) -> Graphs:
    view = synthetic_graph(samples=count).train.fetch(torch.arange(count)).to(torch.float64)
    view.x += 0.1 * torch.randn(view.x.shape, generator=torch.Generator().manual_seed(0))
    return view


def network(hidden: int = 6) -> Any:
    torch.manual_seed(0)
    return gin(4, hidden, 3).double()


def test_it_is_the_papers_formula() -> None:
    view, backbone = drawn(), network()
    near = torch.eye(len(view.x), dtype=torch.float64)
    near[view.edge_index[1], view.edge_index[0]] = 1
    x, pooled = view.x, []
    for layer, norm in zip(backbone.net.convs, backbone.net.bns, strict=True):
        x = torch.relu(layer.nn(near @ x))
        x = (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt()
        pooled.append(torch.stack([part.sum(0) for part in x.split(view.nodes.tolist())]))
    torch.testing.assert_close(backbone(view), torch.cat(pooled, 1))
    assert backbone.out_features == 18 and backbone(view).shape == (8, 18)


def test_its_layers_start_as_graphcls() -> None:
    linear = [part for part in gin(37, 32, 3).modules() if isinstance(part, nn.Linear)]
    assert len(linear) == 6 and all(bool((part.bias == 0).all()) for part in linear)
    bound = (6 / (37 + 32)) ** 0.5
    assert 0.95 * bound < float(linear[0].weight.detach().abs().max()) <= bound


def test_a_graph_without_nodes_is_zero_and_one_alone_is_as_in_a_batch() -> None:
    view, backbone = drawn(), network().eval()
    none = view.select(torch.tensor([1])).with_nodes(torch.empty(0, dtype=torch.int64))
    both = backbone(Graphs.concat([view, none]))
    assert bool((both[-1] == 0).all())
    torch.testing.assert_close(both[:-1], backbone(view))
    torch.testing.assert_close(backbone(view.select(torch.tensor([3]))), both[3:4])


def test_other_features_are_a_sentence_and_an_example_passes() -> None:
    backbone = network()
    assert backbone.eval()(backbone.example().to(torch.float64)).shape == (2, 18)
    with pytest.raises(ConfigError, match=r"'gin' was built for nodes of 4 features and gets nodes of 7 features"):
        backbone(Graphs(torch.ones(1, 7), torch.empty(2, 0).long(), torch.tensor([1]), torch.tensor([0])))
    with pytest.raises(ConfigError, match="gets views of Tensor; take data"):
        backbone(torch.ones(2, 4))
    with pytest.raises(ConfigError, match=r"group=4: net.bns.0 normalises rows whose .*\(hidden patches, nodes\)"):
        convert(network(), group=4)


def step() -> dict[str, Any]:
    """Outputs of this rank's graphs, mean gradients, and statistics, of ranks with unequal numbers of nodes."""
    view, backbone = drawn(), convert(network())
    order = view.nodes.argsort()  # the smallest graphs on the first rank
    share = len(view) // world_size()
    own = view.select(order[rank() * share :][:share])
    out = backbone(own)
    (out.square().sum() * world_size() / len(view)).backward()
    gradients = {name: mean_over_ranks(p.grad) for name, p in backbone.named_parameters()}
    state = {name: value for name, value in backbone.named_buffers()}
    return {"nodes": int(own.nodes.sum()), "out": numpy_of({"out": out}), "all": numpy_of(gradients | state)}


def test_two_processes_with_other_numbers_of_nodes_are_one(pool: GlooPool) -> None:
    first, second = pool.run(step)
    one = step()
    assert first["nodes"] < second["nodes"] and first["nodes"] + second["nodes"] == one["nodes"]
    both = np.concatenate([first["out"]["out"], second["out"]["out"]])
    np.testing.assert_allclose(both, one["out"]["out"], rtol=1e-11, atol=1e-11)
    for part in (first, second):
        assert part["all"].keys() == one["all"].keys()
        for name, value in one["all"].items():
            np.testing.assert_allclose(part["all"][name], value, rtol=1e-10, atol=1e-11, err_msg=name)
