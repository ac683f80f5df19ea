"""How a run that was stopped and has saved its state is started again by what started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

HANDED_OVER = ("SIGTERM", "SIGUSR1", "SIGUSR2")


def after_stop(reason: str, requeue: bool) -> None:
    """Do what comes after the save.

    A signal for which somebody had a handler before the training took it is theirs now: submitit asks Slurm for the
    same job again in its own.

    Args:
        reason: Of the stop, as the record has it: the signal's name comes first.
        requeue: ``requeue`` of the configuration: ask Slurm to start this job again.
    """
    name = reason.partition(" ")[0]
    if name in HANDED_OVER and hasattr(signal, name):
        number = signal.Signals[name]
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, None)
    if requeue:
        _ask_slurm()


def _ask_slurm() -> None:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        print("requeue=true: this is no job of Slurm's, nobody starts it again", file=sys.stderr)
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
        print(f"requeue=true: Slurm starts job {job} again")
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        print(f"requeue=true: scontrol requeue {job} failed ({why.strip()}); start the same command again with "
              "resume=auto", file=sys.stderr)  # fmt: skip
