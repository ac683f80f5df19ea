"""The bound of a mixture of experts is tight; its centres have equal angles."""

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses.mixture import mixture_of_experts, simplex


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, 6), (3, 4, 6), (3, 6), (4, 6), (4, 6), (5, 4, 6)]
    drawn = [torch.randn(*shape, generator=generator).double() for shape in shapes]
    return [drawn[3] if i == 3 else F.normalize(x, dim=-1) for i, x in enumerate(drawn)]


def test_the_bound_is_the_likelihood_of_the_mixture_written_as_loops() -> None:
    f, v, g, experts, gates, queue = inputs()
    mu, total = F.normalize(experts, dim=1), 0.0
    for b in range(3):
        gate = torch.softmax(gates @ g[b] / 0.5, 0)
        likelihood = 0.0
        for k in range(4):
            keys = torch.cat([v[b, k][None], queue[:, k]])
            likelihood += gate[k] * torch.softmax(keys @ (f[b, k] + mu[k]) / 0.5, 0)[0]
        total -= torch.log(likelihood) / 3
    found = mixture_of_experts(f, v, g, experts, gates, queue, 0.5)
    torch.testing.assert_close(found.loss, total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.posterior.sum(1), torch.ones(3).double())


def test_no_gradient_reaches_teacher_and_queue() -> None:
    tensors = [x.requires_grad_() for x in inputs()]
    mixture_of_experts(*tensors, 1.0).loss.backward()
    f, v, g, experts, gates, queue = (x.grad is not None for x in tensors)
    assert f and g and experts and not v and not queue


@pytest.mark.parametrize(("count", "dim"), [(2, 1), (10, 128), (4, 3), (20, 128)])
def test_centres_with_equal_angles(count: int, dim: int) -> None:
    products = simplex(count, dim) @ simplex(count, dim).T
    wanted = torch.full((count, count), -1 / (count - 1)).double().fill_diagonal_(1)
    torch.testing.assert_close(products, wanted, rtol=1e-7, atol=1e-7)


def test_the_authors_matrix() -> None:
    # kernel_paras/meanvar1_featuredim128_class10.mat, rows 2 and 10
    centres = simplex(10, 128)
    assert centres[1, :3].tolist() == pytest.approx([-0.1111111111111111, 0.9938079899999065, 0.0], abs=1e-12)
    assert centres[9, 8].item() == pytest.approx(-0.7453559924999299, abs=1e-9)


def test_centres_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="10 centres with equal angles do not fit in 6 dimensions, which hold 2 to 7"):
        simplex(10, 6)
