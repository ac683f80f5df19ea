"""The recorded hyper-parameters of a case, and which of them its check has not read."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from tests.golden.remembered import Remembered

# Recorded beside the numbers, but nothing that our code could take: name -> reason.
NOT_TAKEN = {
    "*seed*": "made the arrays, which are recorded",
    "default_*": "what the authors' code has where this case has another value",
    "nid": "of how many identities the arrays were drawn",
    "nz": "the noise that the arrays were drawn with",
    "timm": "the version that computed the arrays",
}


class Hyperparameters(Remembered[Any]):
    """A (nested) table by name that remembers what was read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({k: Hyperparameters(v) if isinstance(v, Mapping) else v for k, v in values.items()})

    def unread(self, sizes: set[int]) -> list[str]:
        """What nobody asked for and our code could have taken.

        Args:
            sizes: Dimensions of the arrays that were read: a number that is one of them was read with the array.
        """
        return [
            f"{path}={leaf!r}" for path, leaf in self._leaves() if not (_is_note(path, leaf) or _is_size(leaf, sizes))
        ]

    def _leaves(self) -> Iterator[tuple[str, Any]]:
        """Path and value of each leaf that nobody asked for."""
        for name, value in self.values_by_name.items():
            if isinstance(value, Hyperparameters):
                yield from ((f"{name}.{path}", leaf) for path, leaf in value._leaves())
            elif name not in self.read:
                yield name, value


def _is_note(path: str, value: Any) -> bool:
    name = path.split(".")[-1]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_TAKEN) or (isinstance(value, str) and " " in value)


def _is_size(value: Any, sizes: set[int]) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return all(isinstance(n, int) and not isinstance(n, bool) and n in sizes for n in numbers)
