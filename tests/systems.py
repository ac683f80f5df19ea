"""Another system in this process: what Windows and macOS lack is gone, once the libraries have found theirs.

``python -m tests.systems win32 COMMAND ...`` imports the libraries, changes the system, imports all of ssl_zoo and runs
``ssl-zoo COMMAND ...``.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import signal
import stat
import sys
from typing import Any

LIBRARIES = (
    "torch", "torchvision", "timm", "pytorch_lightning", "hydra.main", "omegaconf", "sklearn.linear_model", "filelock",
    "sklearn.metrics", "scipy.optimize", "matplotlib.figure", "matplotlib.backends.backend_agg", "rich.console",
    "PIL.Image", "safetensors.torch", "torch.utils.tensorboard", "torch.utils.data", "multiprocessing.connection",
    "subprocess", "tempfile", "shutil", "uuid", "concurrent.futures.process", "hydra._internal.hydra",
    "hydra._internal.callbacks", "hydra._internal.core_plugins.basic_launcher", "hydra.experimental.callbacks",
    "torch._dynamo", "torch.distributed", "platform", "getpass", "webbrowser", "asyncio", "pty",
)  # fmt: skip
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "posix_ipc", "syslog", "readline")
OF_OS = (
    "sysconf", "sysconf_names", "register_at_fork", "fork", "forkpty", "sched_getaffinity", "sched_setaffinity",
    "O_DIRECTORY", "setsid", "getpgid", "killpg", "getuid", "geteuid", "getgid", "uname", "mkfifo", "nice",
    "getloadavg", "pread", "pwrite", "chown", "posix_fallocate", "posix_fadvise", "sync", "wait3", "wait4",
)  # fmt: skip
OF_SIGNAL = (
    "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGQUIT", "SIGSTOP", "setitimer", "alarm",
)  # fmt: skip


def windows() -> None:
    """No POSIX: folders cannot be opened, the process is no library, signals and modules are fewer."""
    from pytorch_lightning.trainer.connectors import signal_connector

    sys.platform = "win32"
    signal_connector._IS_WINDOWS = True  # type: ignore[attr-defined]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in OF_OS:
        if hasattr(os, name):
            delattr(os, name)
    for name in OF_SIGNAL:
        delattr(signal, name)
    left = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGINT, signal.SIGSEGV, signal.SIGTERM}
    signal.valid_signals = lambda: left  # type: ignore[assignment]
    opened, library = os.open, ctypes.CDLL

    def open_file(path: Any, *arguments: Any, **options: Any) -> int:
        if _is_ours(sys._getframe(1)) and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    def open_library(name: Any = None, *arguments: Any, **options: Any) -> Any:
        if _is_ours(sys._getframe(1)) and name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        return library(name, *arguments, **options)

    os.open, ctypes.CDLL = open_file, open_library  # type: ignore[assignment, misc]

    class Kernel:
        @staticmethod
        def GlobalMemoryStatusEx(status: Any) -> int:
            status._obj.total = 8 << 30
            return 1

    ctypes.windll = type("windll", (), {"kernel32": Kernel})  # type: ignore[attr-defined]


def _is_ours(frame: Any) -> bool:
    """Whether the project asks, not a library that has found this machine's system when it was imported."""
    return str(frame.f_globals.get("__name__")).startswith("ssl_zoo")


def mac() -> None:
    """An Apple laptop: its GPU is there, glibc and Linux's calls are not."""
    import torch

    sys.platform = "darwin"
    torch.backends.mps.is_available = lambda: True  # type: ignore[method-assign]
    for name in ("sched_getaffinity", "sched_setaffinity", "posix_fallocate"):
        delattr(os, name)
    # Nobody may look for processes where there is no /proc.
    read = os.stat
    os.stat = lambda path, *a, **k: _gone(path) or read(path, *a, **k)  # type: ignore[assignment]


def _gone(path: Any) -> None:
    if isinstance(path, str) and path.startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", path)


SYSTEMS = {"win32": windows, "darwin": mac}


def import_all() -> int:
    """Every module of the project; their number."""
    import ssl_zoo

    names = [module.name for module in pkgutil.walk_packages(ssl_zoo.__path__, "ssl_zoo.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def main(system: str, *words: str) -> int:
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not any(name.startswith("ssl_zoo") for name in sys.modules) and stat.S_ISDIR(os.stat(".").st_mode)
    SYSTEMS[system]()
    print(f"{import_all()} modules imported", flush=True)
    from ssl_zoo import cli

    return cli.entry(list(words))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
