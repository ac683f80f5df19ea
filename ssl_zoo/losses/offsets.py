"""Where the rows of a process stand among those of all processes."""

from __future__ import annotations


def check_inside(loss: str, offset: int, rows: int, total: int, what: str) -> None:
    """Refuse local rows that are not among the gathered ones.

    Args:
        loss: Name of the loss, for the message.
        offset: Of the first local row: ``rank * B``.
        rows: Local rows, B.
        total: Gathered rows, N.
        what: The gathered rows are: keys, targets, ...

    Raises:
        ValueError: If ``offset`` to ``offset + rows`` does not lie in 0 to ``total``.
    """
    if not 0 <= offset <= total - rows:
        raise ValueError(
            f"{loss}: rows {offset} to {offset + rows} do not lie inside {total} {what}; offset is rank * B"
        )
