"""Files that are whole at any moment: written beside their place, brought to the disk, renamed."""

from __future__ import annotations

import os
from pathlib import Path

from ssl_zoo.machine import flush_folder


def write(path: str | Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content`` (text as UTF-8): whoever reads it finds the old file or the new one, whole.

    Raises:
        OSError: If it cannot be written; what was begun is removed.
    """
    final = Path(path)
    part = final.with_name(f"{final.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        rename(part, final)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def rename(part: Path, final: Path) -> None:
    """Put ``part`` in the place of ``final``, for good: its folder is brought to the disk too."""
    os.replace(part, final)
    flush_folder(final.parent)
