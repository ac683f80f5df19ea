"""A method whose state has a row for each training sample says so: a run of it never accepts other data."""

from dataclasses import replace

import pytest

from ssl_zoo import build
from ssl_zoo.methods.base import Method
from tests.helpers import METHODS, info, quickly, tiny_config


def built(name: str, samples: int) -> Method:
    return build.build_method(tiny_config(name), replace(info(), samples=samples))


def shapes(method: Method) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in method.state_dict().items() if hasattr(value, "shape")}


@pytest.mark.parametrize("name", quickly(METHODS))
def test_a_method_says_whether_its_state_has_rows_of_samples(name: str) -> None:
    few, many = built(name, 64), built(name, 96)
    assert shapes(few).keys() == shapes(many).keys()
    follow = [key for key, shape in shapes(few).items() if shape != shapes(many)[key]]
    assert few.rows_of_samples is bool(follow), f"sizes that follow the number of samples: {follow}"
