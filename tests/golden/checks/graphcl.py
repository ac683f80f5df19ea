"""GraphCL: the loss, the augmentations of both codes fed with their draws, re-indexing, and GIN with its head."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.graph.functions import reindexed
from ssl_zoo.augmentations.graph.ops import AttrMask, EdgePert, NodeDrop, Subgraph, share
from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.augmentations.rng import RecordedDraw
from ssl_zoo.backbones.graph.isomorphism import gin
from ssl_zoo.methods.graphcl import GraphCL
from ssl_zoo.modules.heads import MLP
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, fill, no_recipe

UNSUPERVISED = 0.1  # share in unsupervised_TU/aug.py, where it is no argument; subgraphs: 0.2
WALK = 0.2

DIFFERS = {"graphcl/hyperparameters/extra": "edges of the random graphs, which are recorded"}


def batch_of(x: np.ndarray, edge_index: np.ndarray, graph: np.ndarray | None = None) -> Graphs:
    """The graphs of arrays as torch_geometric has them."""
    nodes = torch.tensor([len(x)]) if graph is None else torch.tensor(graph).bincount()
    none = Graphs(torch.tensor(x), torch.empty(2, 0, dtype=torch.int64), nodes, torch.zeros_like(nodes))
    return none.with_edges(torch.tensor(edge_index))


def in_order(edge_index: Any) -> np.ndarray:
    """Edges sorted, each as often as it is there: sums over neighbours know no order."""
    pairs = np.asarray(edge_index)
    return pairs[:, np.lexsort(pairs[::-1])]


def first(count: int, chosen: np.ndarray) -> Tensor:
    """``[1, count]`` numbers that put the places ``chosen`` first, in their order."""
    keys = torch.ones(1, count, dtype=torch.float64)
    keys[0, torch.tensor(chosen)] = torch.arange(len(chosen), dtype=torch.float64) / (len(chosen) + 1)
    return keys


def at(place: Any, count: Any) -> Tensor:
    """Uniform numbers of which whole numbers below ``count`` come out."""
    return torch.tensor((np.asarray(place) + 0.5) / count)


def walk_of(view: Graphs, arrays: Values, code: str) -> dict[str, Tensor]:
    """Draws by which our operation takes the recorded nodes."""
    start, nodes = arrays[f"draw_{code}_subgraph_0_randint"], arrays[f"draw_{code}_subgraph_choices"]
    near = view.edge_index[1][view.edge_index[0] == int(start[0])].tolist()
    drawn = [near.index(node) for node in nodes.tolist()]
    return {"start": at(start, len(view.x)), "walk": at([drawn], len(near))}


def check_augmentations(h: Any, arrays: Values) -> None:
    view = batch_of(arrays["aug_x"], arrays["aug_edge_index"])
    nodes, edges = len(view.x), view.edge_index.shape[1]
    for code, ratio, semi in (("unsup", UNSUPERVISED, False), ("semi", h["ratio"], True)):
        name = f"draw_{code}_{{}}".format
        order = arrays[name("drop_nodes_0_permutation" if semi else "drop_nodes_0_choice")]
        dropped = order[: int(share(view.nodes, ratio))]
        assert semi or len(order) == len(dropped)
        kept = arrays[name("permute_edges_1_choice")]
        removed = np.setdiff1d(np.arange(edges), kept)
        added = arrays[name("permute_edges_0_choice")] if semi else np.zeros((2, 0))
        masks = arrays[name("mask_nodes_0_choice")]
        values = (np.zeros((0, 0)) if semi else arrays[name("mask_nodes_1_normal")]) / 0.5 - 1.0
        walk = WALK if not semi else ratio
        made = {
            "drop_nodes": (NodeDrop(ratio, remove=semi), {"node": first(nodes, dropped)}),
            "permute_edges": (
                EdgePert(ratio, add=semi), {"edge": first(edges, removed), "added": at(added.T, nodes)[None]},
            ),
            "subgraph": (Subgraph(walk, "official", remove=semi), walk_of(view, arrays, code)),
            "mask_nodes": (
                AttrMask(ratio, "mean" if semi else "normal"),
                {"node": first(nodes, masks), "value": torch.tensor(values)[None]},
            ),
        }  # fmt: skip
        for what, (operation, draws) in made.items():
            out = operation(view, RecordedDraw(draws))
            # An adjacency matrix holds each edge once.
            out = out.coalesced() if what in ("drop_nodes", "subgraph") else out
            recorded = arrays[f"aug_{code}_{what}_edge_index"]
            close(in_order(out.edge_index), in_order(recorded), f"edges of {code} {what}")
            close(out.x, arrays[f"aug_{code}_{what}_x"], f"nodes of {code} {what}")


def check_reindexing(arrays: Values) -> None:
    out = reindexed(batch_of(arrays["reindex_x"], arrays["reindex_edge_index"], arrays["reindex_batch"]))
    close(out.x, arrays["reindex_out_x"], "nodes left")
    close(out.graph, arrays["reindex_out_batch"], "graphs of the nodes left")
    close(in_order(out.edge_index), in_order(arrays["reindex_out_edge_index"]), "edges left")


def replay(views: list[np.ndarray], temperature: float) -> dict[str, np.ndarray]:
    tensors = [torch.tensor(view) for view in views]
    width = tensors[0].shape[1]
    return differentiate(GraphCL(Identity(width), no_recipe(), Identity, temperature), tensors)  # type: ignore[arg-type]


def check_loss(arrays: Values, pools: Any) -> None:
    single = [arrays["loss_view1"], arrays["loss_view2"]]
    double = [view.astype(np.float64) for view in single]
    names = [name for name in arrays if name.startswith("loss_T") and name.count("_") == 1]
    assert names
    for name in names:
        temperature = float(name.removeprefix("loss_T"))
        found = replay(double, temperature)
        close(found["loss"], arrays[name], name)
        for i in range(2):
            close(found[f"view{i}"], arrays[f"{name}_grad_view{i + 1}"], f"gradient of view {i + 1}, {name}")
        close(replay(single, temperature)["loss"], arrays[f"{name}_f32"], f"{name} in float32", arrays[name])
        if len(single[0]) % 2 == 0:
            both = pools(2).run(replay, double, temperature)
            close(np.mean([one["loss"] for one in both]), arrays[name], f"{name} on two processes")
            for i in range(2):
                gradient = np.concatenate([one[f"view{i}"] for one in both]) / 2  # DDP's mean
                close(gradient, arrays[f"{name}_grad_view{i + 1}"], f"gradient on two processes, {name}")


def check_network(h: Any, arrays: Values) -> None:
    weights = {name.removeprefix("gin_w_"): arrays[name] for name in arrays if name.startswith("gin_w_")}
    head = partial(MLP, hidden=[-1], out_features=-1, norm="none", last_bias=True)
    method = GraphCL(gin(h["feat"], h["hid"], h["layers"]), no_recipe(), head).double()
    net: Any = method.backbone.net
    encoder, projector = "encoder.", "proj_head."
    fill(net, {name.removeprefix(encoder): w for name, w in weights.items() if name.startswith(encoder)})
    fill(method.projector, {n.removeprefix(projector): w for n, w in weights.items() if n.startswith(projector)})
    view = batch_of(arrays["gin_x"].astype(np.float64), arrays["gin_edge_index"], arrays["gin_batch"])
    view.x.requires_grad_()
    # Running statistics move at each pass in training.
    graphs = method.backbone(view)
    close(graphs, arrays["gin_train_graph_emb"], "graphs in training")
    for name, buffer in net.named_buffers():
        if f"gin_after_encoder.{name}" in arrays:
            close(buffer, arrays[f"gin_after_encoder.{name}"], name)
    z = method.projector(graphs)
    close(z, arrays["gin_train_projection"], "projection")
    close(torch.autograd.grad(z.square().sum(), view.x)[0], arrays["gin_train_grad_x"], "gradient")
    method.eval()
    close(method.embed(view), arrays["gin_eval_graph_emb"], "graphs in evaluation")
    other = method.train().backbone.net
    close(torch.cat(other.of_nodes(view), 1), arrays["gin_train_node_emb"], "nodes in training")


def check(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    check_loss(arrays, pools)
    check_augmentations(h, arrays)
    check_reindexing(arrays)
    check_network(h, arrays)


CHECKS = {"graphcl": {"all": check}}
