"""Nodes against graphs, by hand."""

import math

import pytest
import torch

from ssl_zoo.losses.graph_contrast import local_global


def test_scores_of_zero_cost_what_the_zeros_of_the_code_cost():
    # Every softplus is ln 2: the positives' terms are 0, and so are the negatives'.
    zeros = torch.zeros(4, 3, dtype=torch.float64)
    graph = torch.tensor([0, 0, 1, 1])
    assert local_global(zeros, zeros[:2], graph).item() == pytest.approx(0.0, abs=1e-15)


def test_two_nodes_of_two_graphs():
    # Scores: 1 with the own graph, 0 with the other.
    nodes = graphs = torch.eye(2, dtype=torch.float64)
    pulled = 2 * (math.log(2) - math.log1p(math.exp(-1)))  # the masked entries are ln 2 - ln 2
    assert local_global(nodes, graphs, torch.arange(2)).item() == pytest.approx(-pulled / 2, rel=1e-12)


def test_no_concentration_only_makes_up_for_the_share_of_positives():
    generator = torch.Generator().manual_seed(0)
    nodes, graphs = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (6, 3))
    graph = torch.tensor([0, 0, 1, 1, 2, 2])
    plain = local_global(nodes, graphs, graph)
    assert local_global(nodes, graphs, graph, beta=0.0, positive_share=0.0).item() == pytest.approx(plain.item())


def test_one_graph_has_no_negatives():
    with pytest.raises(ValueError, match="1 graph\\(s\\) in the batch have no negatives; wanted two or more"):
        local_global(torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(2, dtype=torch.long))
