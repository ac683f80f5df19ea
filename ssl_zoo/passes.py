"""What the rows of a forward pass are, for the layers whose result depends on it (batch norm, dropout)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Layout(NamedTuple):
    """Rows of a pass in the order ``[views, samples, rows]``: views outside, the rows of a sample inside."""

    views: int = 1  # passed together, one after the other
    rows: int = 1  # of a sample in a view, beside each other: tiles, patches, places
    part: int = 0  # which part of the process's samples they are of,
    parts: int = 1  # where these pass in so many equal parts

    def samples(self, total: int) -> int:
        """How many samples ``total`` rows are of.

        Raises:
            ValueError: If they are not of whole samples, so that the pass is not what it was said to be.
        """
        if total % (self.views * self.rows):
            raise ValueError(
                f"a forward pass of {total} rows was said to hold {self.views} views of samples with {self.rows} rows "
                "each; tell it with ssl_zoo.passes.laid_out, or use concat and tiled of ssl_zoo.backbones.apply"
            )
        return total // (self.views * self.rows)


# A plain global: a compiled network guards on its value, and a gradient's thread, which repeats a pass, sees it too.
_current = Layout()


def layout() -> Layout:
    """Of the pass that runs."""
    return _current


@contextmanager
def laid_out(views: int = 1, rows: int = 1) -> Iterator[None]:
    """Around a forward pass whose rows are more than one of each sample.

    Inside another one the numbers multiply, as the rows do: tiles of views are views of samples of tiles.
    """
    outer = layout()
    with restored(outer._replace(views=outer.views * views, rows=outer.rows * rows)):
        yield


@contextmanager
def in_part(part: int, parts: int) -> Iterator[None]:
    """Around a forward pass of one of ``parts`` equal parts of the process's samples, counted from 0."""
    outer = layout()
    with restored(outer._replace(part=outer.part * parts + part, parts=outer.parts * parts)):
        yield


@contextmanager
def restored(known: Layout) -> Iterator[None]:
    """Around the repetition of a pass, which must not depend on when it happens."""
    global _current
    outer, _current = _current, known
    try:
        yield
    finally:
        _current = outer
