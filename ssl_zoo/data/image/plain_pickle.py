"""Pickles as data: NumPy arrays and numbers in plain containers, whatever version and protocol wrote them."""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np


class NotData(pickle.UnpicklingError):
    """A pickle that would run or import something."""


def _of_numpy(module: str, name: str, function: Any) -> dict[tuple[str, str], Any]:
    """A function of NumPy under the names that versions 1 and 2 write."""
    return {(f"numpy.{core}.{module}", name): function for core in ("core", "_core")}


class _Plain(pickle.Unpickler):
    """Refuses whatever is not data before it is looked up."""

    ALLOWED = {
        **_of_numpy("multiarray", "_reconstruct", np.empty(0).__reduce__()[0]),
        **_of_numpy("multiarray", "scalar", np.int64(0).__reduce__()[0]),
        **_of_numpy("numeric", "_frombuffer", np.empty(1).__reduce_ex__(5)[0]),  # arrays of protocol 5
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise NotData(f"asks for {module}.{name}, which is not data")
        return self.ALLOWED[module, name]


def load(path: Path) -> Any:
    """What a file holds; text of Python 2 stays bytes.

    Raises:
        NotData: It asks for anything but NumPy arrays, numbers and plain containers.
        pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError: It is damaged.
    """
    with path.open("rb") as file:
        return _Plain(file, encoding="bytes").load()
