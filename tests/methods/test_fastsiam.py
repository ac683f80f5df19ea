"""FastSiam: two views are SimSiam, and a target is the mean of the other views' projections."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.helpers import tiny_batch, tiny_method


def test_two_views_are_simsiam() -> None:
    fast, plain = (tiny_method(name, dtype=torch.float64) for name in ("fastsiam", "simsiam"))
    plain.load_state_dict(fast.state_dict())
    batch = tiny_batch([16, 16], dtype=torch.float64)
    torch.testing.assert_close(fast.training_loss(batch)["loss"], plain.training_loss(batch)["loss"])


def test_three_views_as_loops() -> None:
    method = tiny_method("fastsiam", dtype=torch.float64)
    batch = tiny_batch([16] * 3, dtype=torch.float64)
    with torch.no_grad():
        z = [method.projector(method.backbone(view)) for view in batch.views]
        p = [method.predictor(x) for x in z]
    rows = []
    for v in range(3):
        target = sum(z[w] for w in range(3) if w != v) / 2
        rows += [-float(F.cosine_similarity(p[v][i], target[i], dim=0)) for i in range(len(target))]
    torch.testing.assert_close(method.training_loss(batch)["loss"].item(), sum(rows) / len(rows))


def test_no_gradient_reaches_the_targets() -> None:
    method = tiny_method("fastsiam", dtype=torch.float64)
    batch = tiny_batch([16] * 3, dtype=torch.float64)
    method.training_loss(batch)["loss"].backward()
    with_stop = method.projector[0].weight.grad.clone()
    free = tiny_method("fastsiam", ["method.stop_gradient=false"], dtype=torch.float64)
    free.load_state_dict(tiny_method("fastsiam", dtype=torch.float64).state_dict())
    free.training_loss(batch)["loss"].backward()
    assert not torch.allclose(with_stop, free.projector[0].weight.grad)
