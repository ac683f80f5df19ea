"""A batch embedded in chunks trains as the batch embedded at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.grad_cache import check, in_chunks
from tests.helpers import (
    METHODS,
    ROWS,
    info,
    method_file,
    quickly,
    tiny_batch,
    tiny_config,
    tiny_method,
    train_step,
    view_sizes,
)

CACHED = [name for name in METHODS if "grad_cache" in method_file(name)]


def steps(name, chunks, dtype, extra=()):
    method = tiny_method(name, [f"method.grad_cache={chunks}", *extra], dtype)
    outs = [train_step(method, tiny_batch(view_sizes(name, extra), step, dtype)) for step in range(2)]
    return method, outs


def test_these_methods_compare_the_samples_of_a_batch():
    assert {"simclr", "barlow_twins", "vicreg", "swav"} <= set(CACHED)


@pytest.mark.parametrize("name", quickly(CACHED, ["barlow_twins", "simclr"]))
@pytest.mark.parametrize(("chunks", "dtype", "tolerance"), [(2, torch.float64, 1e-10), (4, torch.float64, 1e-10)])
def test_two_steps_equal_those_of_the_whole_batch(name, chunks, dtype, tolerance):
    # Statistics over two rows, which divide every chunk: batch norm is exact too, and moves its averages once.
    group = ["batch_norm.group=2"]
    whole, wanted = steps(name, 1, dtype, group)
    method, found = steps(name, chunks, dtype, group)
    assert found[0]["loss"] != found[1]["loss"]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a["loss"], b["loss"], rtol=tolerance, atol=tolerance)
        for key, gradient in b["gradients"].items():
            scale = max(float(gradient.abs().max()), 1.0)
            assert float((a["gradients"][key] - gradient).abs().max()) <= tolerance * scale, key
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(method.state_dict()[key], value, rtol=tolerance, atol=10 * tolerance, msg=key)


def test_activations_of_one_chunk_are_kept_at_a_time():
    class Watched(nn.Module):
        """Counts the rows whose activations autograd holds."""

        held, most = 0, 0

        def forward(self, x):
            return Hold.apply(x, self)

    class Hold(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, watched):
            ctx.watched, ctx.rows = watched, len(x)
            ctx.save_for_backward(x.exp())
            return x.exp()

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors  # the checkpoint embeds the chunk again here
            ctx.watched.most = max(ctx.watched.most, ctx.rows)
            return grad * y, None

    watched, calls = Watched(), []
    x = torch.randn(8, 3, requires_grad=True)

    def encode(view):
        calls.append(len(view))
        return (watched(view),)

    (y,) = in_chunks(watched, encode, x, 4)
    assert calls == [2, 2, 2, 2]
    y.square().sum().backward()
    assert calls == [2] * 8 and watched.most == 2
    torch.testing.assert_close(x.grad, 2 * x.detach().exp().square())


def test_rows_that_do_not_divide():
    with pytest.raises(ValueError, match="grad_cache=3 does not divide the 8 rows of a process"):
        in_chunks(nn.Identity(), lambda x: (x,), torch.zeros(8, 1), 3)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            "null",
            r"embeds 2 samples at a time, and batch norm takes its statistics from the whole batch "
            r"\(batch_norm.group=null\): set batch_norm.group=2",
        ),
        (4, r"statistics from groups of 4 samples \(batch_norm.group=4\): set batch_norm.group=2"),
    ],
)
def test_batch_norm_over_more_than_a_chunk_is_refused(group, message):
    cfg = tiny_config("simclr", ["method.grad_cache=4"])
    cfg.batch_norm.group = None if group == "null" else group
    with pytest.raises(ConfigError, match=message):
        build.build_method(cfg, info())


def test_chunks_do_not_deal_samples_as_the_whole_batch_does():
    dealt = convert(nn.BatchNorm1d(4), group=2, interleaved=True)
    check(dealt, 1, ROWS, 2)
    with pytest.raises(ConfigError, match="method.grad_cache=2: a chunk holds other samples than a group to which"):
        check(dealt, 2, ROWS, 2)


@pytest.mark.parametrize(("chunks", "fits"), [(3, 2), (0, 1), (100, 8)])
def test_chunks_that_do_not_divide_name_the_nearest_that_do(chunks, fits):
    with pytest.raises(
        ConfigError,
        match=rf"method.grad_cache={chunks}: .* the 8 samples of a process; "
        rf"try method.grad_cache={fits}",
    ):
        check(nn.Linear(1, 1), chunks, ROWS, None)


def test_networks_without_batch_norm_need_no_group():
    check(nn.LayerNorm(4), 4, ROWS, None)


def test_accumulating_an_in_batch_loss_names_grad_cache():
    cfg = tiny_config("simclr", ["trainer.accumulate=2"])
    with pytest.warns(
        UserWarning,
        match=r"SimCLR compares the samples of a micro-batch with each other, 8 of the 8 of "
        r"a step; trainer.accumulate=1 method.grad_cache=2",
    ):
        build.build_method(cfg, info())


def test_networks_without_batch_statistics_agree_to_1e_5_in_float32():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 16))
    views = [torch.randn(64, 3, 4, 4) for _ in range(2)]

    def gradients(chunks):
        net.zero_grad()
        z = [in_chunks(net, lambda x: (F.normalize(net(x), dim=1),), view, chunks)[0] for view in views]
        loss = nt_xent(z[0], z[1], z[0], z[1], 0, 0.1)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in net.parameters())]

    for a, b in zip(gradients(8), gradients(1), strict=True):
        assert float((a - b).abs().max()) < 1e-5


def two_steps(chunks):
    method, outs = steps("simclr", chunks, torch.float64, ["batch_norm.group=2"])
    return [out["loss"] for out in outs], method.state_dict()


def test_two_processes_with_chunks_equal_one_without(pool):
    losses, state = two_steps(1)
    ranks = pool.run(two_steps, 2)
    for step, loss in enumerate(losses):
        assert sum(float(found[step]) for found, _ in ranks) / 2 == pytest.approx(float(loss), abs=1e-10)
    for _, other in ranks:
        for key, value in state.items():
            torch.testing.assert_close(other[key], value, rtol=1e-10, atol=1e-10, msg=key)


def test_without_gradients_chunks_give_the_same_and_move_the_averages_once():
    nets = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        convert(net, group=2)
    x = torch.randn(8, 3)
    with torch.no_grad():
        (whole,) = in_chunks(nets[0], lambda view: (nets[0](view),), x, 1)
        (parts,) = in_chunks(nets[1], lambda view: (nets[1](view),), x, 4)
    torch.testing.assert_close(parts, whole)
    for a, b in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(a, b)
