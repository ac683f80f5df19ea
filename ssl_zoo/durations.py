"""Times as people and schedulers write them."""

from __future__ import annotations

import re
from collections.abc import Mapping


def seconds(words: str) -> float | None:
    """``HH:MM:SS``, ``DD:HH:MM:SS`` (Lightning's) or ``D-HH:MM:SS`` (Slurm's) in seconds; None: it is none of them."""
    found = re.fullmatch(r"(?:(?P<days>\d+)[-:])?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d)", words)
    if found is None:
        return None
    parts: Mapping[str, str | None] = found.groupdict()
    units = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    return float(sum(int(parts[name] or 0) * unit for name, unit in units.items()))
