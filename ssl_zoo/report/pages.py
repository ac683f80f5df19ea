"""Tables of the documentation that are made from the files: each stands between two remarks with its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ssl_zoo import files
from ssl_zoo.errors import ConfigError


def renew(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with its tables as the files give them now.

    Args:
        page: Markdown.
        tables: By the name in ``<!-- name -->`` and ``<!-- /name -->``; those that the page does not have are not made.
    """
    for name, table in tables.items():
        between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.S)
        if found := between.search(page):
            page = f"{page[: found.start()]}{table()}\n{page[found.end() :]}"
    return page


def write(path: Path, tables: Mapping[str, Callable[[], str]]) -> None:
    """Renew the tables of a file.

    Raises:
        ConfigError: If there is no such file, or no place for a table in it.
    """
    page = path.read_text() if path.is_file() else ""
    if not any(f"<!-- {name} -->\n" in page for name in tables):
        marks = " or ".join(f"<!-- {name} --> and <!-- /{name} -->" for name in tables)
        raise ConfigError(f"out={path}: wanted a page with the lines {marks}, between which the table is written")
    files.write(path, renew(page, tables))
