"""What the tests run in processes of their own; imports little, because every process imports it again."""

import sys

import torch


def allocate(mib: int, kept: int):
    """A call that needs ``mib`` MiB, from a build that keeps ``kept`` MiB, which do not count."""
    held = torch.ones(kept, 2**18)
    return lambda: torch.ones(mib, 2**18).sum() + held[0, 0]


def dies() -> None:
    sys.exit(7)
