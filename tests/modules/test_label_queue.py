"""Keys and labels stay together in the ring."""

import pytest
import torch

from ssl_zoo.modules.label_queue import LabelQueue


def rows(value: float, n: int = 2) -> torch.Tensor:
    return torch.full((n, 3), value)


def test_labels_follow_their_keys_around_the_ring():
    queue = LabelQueue(4, 3)
    assert queue.labels.tolist() == [-1] * 4
    for value, labels in ((1.0, [5, 6]), (2.0, [7, 8]), (3.0, [9, 0])):
        queue.push(rows(value), torch.tensor(labels))
    assert queue.labels.tolist() == [-1] * 4  # staged only
    queue.commit()
    assert queue.keys[:, 0].tolist() == [3.0, 3.0, 2.0, 2.0] and queue.labels.tolist() == [9, 0, 7, 8]


def test_keys_without_labels_empty_their_slots():
    queue = LabelQueue(2, 3)
    queue.push(rows(1.0), torch.tensor([1, 1]))
    queue.push(rows(2.0))
    queue.commit()
    assert queue.labels.tolist() == [-1, -1] and queue.keys[0, 0] == 2.0


def test_labels_are_in_the_state():
    queue, copy = LabelQueue(2, 3), LabelQueue(2, 3)
    queue.push(rows(1.0), torch.tensor([3, 4]))
    queue.commit()
    copy.load_state_dict(queue.state_dict())
    assert copy.labels.tolist() == [3, 4] and copy.pushed == 2


def test_a_push_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="queue size 4 is not a multiple of the 3 rows"):
        LabelQueue(4, 3).push(rows(1.0, 3))
