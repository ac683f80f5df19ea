"""A command whose processes a launcher has started: rank 0 does what was typed, the others follow it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from ssl_zoo import rendezvous, words, worker
from ssl_zoo.callbacks.checkpoint import Terminated
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranks import Ranks
from ssl_zoo.rendezvous import PATIENCE, Meeting

TIMEOUT = "trainer.rendezvous_timeout"


def run(
    found: Ranks,
    argv: Sequence[str],
    command: Callable[[Meeting], int],
    follow: Callable[[Meeting], int] = worker.follow,
) -> int:
    """Meet the others, and run the command once.

    Args:
        found: This process.
        argv: The words of the command line.
        command: What rank 0 does; it returns the exit status.
        follow: What the others do, likewise.

    Returns:
        The exit status, the same on all ranks unless one fails alone.
    """
    try:
        meeting = rendezvous.meet(found, _patience(argv))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # each: nobody knows who else can
        return 1
    return _lead(meeting, argv, command) if meeting.is_main else _follow(meeting, follow)


def _lead(meeting: Meeting, argv: Sequence[str], command: Callable[[Meeting], int]) -> int:
    status = 1
    try:
        if words.are_several(*words.split(argv)):
            raise ConfigError(
                f"-m starts many runs, and this process is one of {meeting.ranks.world} that {meeting.ranks.by} has "
                "started for one; start a sweep without it: hydra/launcher=submitit_slurm gives each run its own job"
            )
        status = command(meeting)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        meeting.tell(status)  # to those who still wait: the others have work of their own
    return status


def _follow(meeting: Meeting, follow: Callable[[Meeting], int]) -> int:
    try:
        return follow(meeting)
    except Terminated as error:
        return error.status
    except ConfigError as error:
        print(f"error: process {meeting.ranks.rank} of {meeting.ranks.world}: {error}", file=sys.stderr)
        return 1


def fit(cfg: DictConfig, meeting: Meeting) -> None:
    """Put the launcher's numbers of processes and nodes in the place of the defaults.

    Raises:
        ConfigError: If others were typed.
    """
    for key, number in (("devices", meeting.devices), ("num_nodes", meeting.nodes)):
        asked = cfg.trainer[key]
        if asked not in (1, -1, number):
            raise ConfigError(
                f"trainer.{key}={asked}: {meeting.ranks.by} has started {meeting.devices} processes on each of "
                f"{meeting.nodes} nodes; leave trainer.{key} out, or start as many"
            )
        cfg.trainer[key] = number


def _patience(argv: Sequence[str]) -> float:
    """Read before anything else is: nobody waits for a configuration to be composed."""
    typed = [word.partition("=")[2] for word in argv if word.startswith(f"{TIMEOUT}=")]
    try:
        return float(typed[-1]) if typed else PATIENCE
    except ValueError:
        raise ConfigError(f"{TIMEOUT}={typed[-1]}: wanted seconds") from None
