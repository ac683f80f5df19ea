"""Barlow Twins: the authors' share of the gradient is a number of the recipe, not of the machine."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method


def gradients(share: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    method = tiny_method("barlow_twins", [f"method.authors_gradient={share}"], dtype=torch.float64)
    loss = method.training_loss(tiny_batch([16, 16], dtype=torch.float64))["loss"]
    return loss.detach(), list(torch.autograd.grad(loss, list(method.parameters())))


def test_one_process_divides_the_gradient_as_the_authors_32_do() -> None:
    (exact, whole), (same, shares) = gradients("null"), gradients("32")
    torch.testing.assert_close(same, exact, rtol=1e-14, atol=0)
    for g, share in zip(whole, shares, strict=True):
        torch.testing.assert_close(share, g / 32, rtol=1e-9, atol=1e-18)


def test_false_of_earlier_versions_is_exact_and_true_is_told_what_it_was() -> None:
    assert all(torch.equal(a, b) for a, b in zip(gradients("null")[1], gradients("false")[1], strict=True))
    told = r"method.authors_gradient=true: it was 1 / the number of processes at hand.*wanted .* 32 \(paper\) or 16"
    with pytest.raises(ConfigError, match=told):
        tiny_method("barlow_twins", ["method.authors_gradient=true"])
