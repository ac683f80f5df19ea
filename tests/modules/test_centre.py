"""The centre is a running mean over the global batch, written after the backward pass."""

import torch

from ssl_zoo.distributed import rank
from ssl_zoo.modules.centre import Centre
from tests.pool import GlooPool


def test_it_moves_by_its_share_of_the_mean_and_not_before_it_is_committed() -> None:
    centre = Centre(2, momentum=0.75)
    centre.update(torch.tensor([[4.0, 0.0], [0.0, 8.0]]))
    assert centre.value.tolist() == [[0.0, 0.0]]
    centre.commit()
    assert centre.value.tolist() == [[0.5, 1.0]]
    centre.update(torch.zeros(1, 2))
    centre.update(torch.zeros(1, 2))
    centre.commit()
    assert centre.value.tolist() == [[0.5 * 0.75**2, 0.75**2]]


def test_crops_and_tokens_count_alike() -> None:
    rows = torch.randn(6, 3, dtype=torch.float64)
    one, many, tokens = (Centre(3).double() for _ in range(3))
    one.update(rows)
    many.update(rows[:4], rows[4:])
    tokens.update(rows.view(2, 3, 3))
    for centre in (one, many, tokens):
        centre.commit()
        torch.testing.assert_close(centre.value, 0.1 * rows.mean(0, keepdim=True))


def test_half_precision_rows_are_summed_in_the_precision_of_the_centre() -> None:
    centre = Centre(1, momentum=0.0)
    centre.update(torch.full((1000, 1), 1.0, dtype=torch.bfloat16))  # a bfloat16 sum stops growing at 256
    centre.commit()
    assert centre.value.item() == 1.0


def unequal(rows: torch.Tensor) -> torch.Tensor:
    centre = Centre(rows.shape[1]).double()
    centre.update(rows[:1] if rank() == 0 else rows[1:])
    centre.commit()
    return centre.value


def test_ranks_with_different_numbers_of_rows_agree_on_the_global_mean(pool: GlooPool) -> None:
    rows = torch.randn(5, 3, dtype=torch.float64)
    for value in pool.run(unequal, rows):
        torch.testing.assert_close(value, 0.1 * rows.mean(0, keepdim=True))


def test_it_is_part_of_the_state() -> None:
    centre = Centre(2)
    centre.update(torch.ones(1, 2))
    centre.commit()
    other = Centre(2)
    other.load_state_dict(centre.state_dict())
    assert torch.equal(other.value, centre.value) and list(centre.state_dict()) == ["value"]
