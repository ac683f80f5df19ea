"""InfoNCE against the batch, with negatives of each query's own, in several spaces, and with several positives."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.losses.key_sets import in_batch_info_nce, info_nce_with, k_positive, leave_one_out


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_two_orthogonal_keys_give_log_one_plus_one_over_e():
    z = torch.eye(2)
    assert in_batch_info_nce(z, z, 0, temperature=1.0).item() == pytest.approx(math.log(1 + 1 / math.e), abs=1e-6)


def test_shares_of_a_batch_have_the_loss_of_the_whole_as_their_mean():
    q, k = unit(6, 5), unit(6, 5, seed=1)
    whole = in_batch_info_nce(q, k, 0, 0.3)
    shares = [in_batch_info_nce(q[start : start + 2], k, start, 0.3) for start in (0, 2, 4)]
    assert torch.stack(shares).mean().item() == pytest.approx(whole.item(), rel=1e-12)
    assert in_batch_info_nce(q, k, 0, 0.3, chunk=2).item() == pytest.approx(whole.item(), rel=1e-12)


def test_no_gradient_reaches_the_keys():
    q, k = unit(3, 4).requires_grad_(), unit(3, 4, seed=1).requires_grad_()
    in_batch_info_nce(q, k, 0, 1.0).backward()
    assert q.grad is not None and k.grad is None


def test_rows_outside_of_the_keys_are_refused():
    with pytest.raises(ValueError, match=r"rows 4 to 8 do not lie inside 6 keys; offset is rank \* B"):
        in_batch_info_nce(unit(4, 3), unit(6, 3), 4, 1.0)


def test_extra_negatives_equal_for_all_queries_are_a_longer_queue():
    q, k, queue, extra = unit(4, 5), unit(4, 5, seed=1), unit(7, 5, seed=2), unit(3, 5, seed=3)
    wanted = info_nce(q, k, torch.cat([queue, extra]), 0.2)
    assert info_nce_with(q, k, queue, extra.expand(4, 3, 5), 0.2).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_leave_one_out_equals_the_paper_written_as_loops():
    spaces, rows, keys_held, temperature = 3, 4, 5, 0.2
    q, keys, queues = unit(spaces, rows, 6), unit(spaces, spaces, rows, 6, seed=1), unit(spaces, keys_held, 6, seed=2)
    wanted = []
    for i in range(spaces):
        total = 0.0
        for n in range(rows):
            scores = [math.exp(float(q[i, n] @ key) / temperature) for key in queues[i]]
            if i > 0:
                scores += [math.exp(float(q[i, n] @ keys[i, j, n]) / temperature) for j in range(spaces) if j != i]
            positive = math.exp(float(q[i, n] @ keys[i, i, n]) / temperature)
            total -= math.log(positive / (positive + sum(scores)))
        wanted.append(total / rows)
    assert leave_one_out(q, keys, list(queues), temperature).tolist() == pytest.approx(wanted, rel=1e-12)


E1, E2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])


def test_one_further_positive_by_hand():
    # Similarities 1 (own key), 0 (negative), 1 (positive): log(2 e + 1) - 1.
    loss = k_positive(E1, E1, torch.cat([E2, E1]), torch.tensor([[False, True]]), 1.0)
    assert loss.item() == pytest.approx(math.log(2 * math.e + 1) - 1, abs=1e-6)


def test_a_zeroed_key_stays_in_the_denominator_as_one():
    # Own key 1, positive 1, an unused key of the class that counts as similarity 0: log(2 e + 1) - 1 again.
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    positives, unused = nothing.clone(), nothing.clone()
    positives[0, 0], unused[0, 1] = True, True
    loss = k_positive(E1, E1, torch.cat([E1, E1]), positives, 1.0, unused)
    assert loss.item() == pytest.approx(math.log(2 * math.e + 1) - 1, abs=1e-6)
    assert k_positive(E1, E1, torch.cat([E1, E1]), positives, 1.0).item() == pytest.approx(math.log(3), abs=1e-6)


def test_without_positives_in_the_queue_it_is_info_nce():
    q, k, queue = unit(4, 5), unit(4, 5, seed=1), unit(6, 5, seed=2)
    none = torch.zeros(4, 6, dtype=torch.bool)
    assert k_positive(q, k, queue, none, 0.1).item() == pytest.approx(info_nce(q, k, queue, 0.1).item(), rel=1e-12)
