"""A process that SIGKILL ends at its n-th write or rename below a folder, half of the write done."""

from __future__ import annotations

import builtins
import io
import os
import signal
from pathlib import Path
from typing import Any


class Points:
    """Counts what is written and renamed below ``folder``, notes it in ``log``, ends the process at number ``at``."""

    def __init__(self, folder: str, log: str, at: int | None) -> None:
        self.folder = f"{folder}/"
        self.log = open(log, "a")  # noqa: SIM115  (open as long as the process lives)
        self.at = at
        self.number = 0
        self.plain = {name: getattr(os, name) for name in ("replace", "rename", "link", "unlink", "truncate")}

    def concerns(self, path: Any) -> bool:
        try:
            return os.path.abspath(os.fspath(path)).startswith(self.folder)
        except TypeError:  # a descriptor
            return False

    def here(self, kind: str, path: Any) -> bool:
        """Whether this is the point to die at."""
        print(self.number, kind, os.path.abspath(os.fspath(path)).removeprefix(self.folder), file=self.log, flush=True)
        self.number += 1
        return self.number - 1 == self.at

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        plain = io.open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            found = plain(file, mode, *args, **kwargs)
            return Half(found, self, file) if set(mode) & set("wax+") and self.concerns(file) else found

        io.open = builtins.open = opened  # type: ignore[assignment]
        for name, function in self.plain.items():
            setattr(os, name, self._renaming(name, function))

    def _renaming(self, name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            path = args[0] if name == "truncate" else args[-1]
            if self.concerns(path) and self.here(name, path):
                self.die()
            return function(*args, **kwargs)

        return call


class Half:
    """A file whose write may be cut in its middle."""

    def __init__(self, file: Any, points: Points, path: Any) -> None:
        self._file, self._points, self._path = file, points, path

    def write(self, content: Any) -> Any:
        if self._points.here("write", self._path):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            self._points.die()
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Half:
        self._file.__enter__()
        return self

    def __exit__(self, *args: Any) -> Any:
        return self._file.__exit__(*args)

    def __iter__(self) -> Any:
        return iter(self._file)


def install(folder: str, log: str, at: int | None) -> None:
    Points(str(Path(folder).absolute()), log, at).install()
