"""Source and target: who is where in the memory, and how an epoch reads them."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.domains import Domains

LABEL = torch.tensor([1, -1, 0, -1])
INDEX = torch.tensor([10, 11, 12, 13])


def test_the_source_stands_at_its_classes_and_the_target_behind_them() -> None:
    assert Domains(3).source(LABEL, INDEX).tolist() == [True, False, True, False]
    assert Domains(3).rows(LABEL, INDEX).tolist() == [1, 14, 0, 16]
    assert Domains(0).source(LABEL, INDEX).tolist() == [False] * 4  # labels are not read
    assert Domains(0).rows(LABEL, INDEX).tolist() == Domains(0).rows(None, INDEX).tolist() == INDEX.tolist()


def test_each_domain_is_read_by_its_own_groups() -> None:
    memory = torch.tensor([0, 1, 2, -1, 3, -1, 4])
    for instances, wanted in ((4, ([1, 3, 0, 4], 4)), (None, ([-1] * 4, 1))):  # None: any order, but half of each
        groups = Domains(3).groups(LABEL, memory, instances)
        assert groups is not None and (groups[0].tolist(), groups[1]) == wanted
        assert groups[2] is not None and groups[2].tolist() == [True, False, True, False]


def test_without_a_source_the_clusters_are_the_groups() -> None:
    memory = torch.tensor([2, 0, 1, 0])
    groups = Domains(0).groups(LABEL, memory, 4)
    assert groups is not None and groups[0].tolist() == [2, 0, 1, 0] and groups[1:] == (4, None)
    assert Domains(0).groups(LABEL, memory, None) is None


@pytest.mark.parametrize(("label", "found"), [(0, "all"), (-1, "none")])
def test_one_domain_alone_is_refused(label: int, found: str) -> None:
    labels = torch.full((5,), label)
    with pytest.raises(ConfigError, match=f"method.source=true: {found} of the 5 training samples have a label; "):
        Domains(3).check(labels)
    Domains(0).check(labels)
    Domains(3).check(LABEL)
