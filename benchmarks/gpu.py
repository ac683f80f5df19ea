"""What one GPU gives: speed, waiting, memory, and whether it computes what the CPU computes.

``python benchmarks/gpu.py`` needs an installed ssl_zoo and a CUDA device, no network and no data set, and takes less
than eight minutes. It prints every number as it comes and keeps all of them in ``gpu.json``: a list of rows
``{name, value, unit, peer, peer_value, ratio, bar, ok}``. A bar is written as it is judged, ``"<= 0.08"``; ``ok`` is
null where there is none. Every section is a process of its own, which is ended when the time is over, so that one
that fails or hangs costs no other's numbers.

Training is measured through Lightning's ``Trainer.fit`` in bfloat16, with uint8 pixels of noise on the device and
views made there, without checkpoints and observers. Times are those of CUDA events and of the host's clock after a
synchronisation. ``device_busy`` is the time in which any kernel or copy ran (torch.profiler) in a step, over the time
of a step without the profiler; ``device_busy_profiled`` is the share inside the profiled steps, which the profiler
itself slows down: a lower bound.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch

from ssl_zoo.benchmarks.gpu_agreement import losses_agree, views_agree
from ssl_zoo.benchmarks.gpu_rows import Row, Setting, keep, row, unjudged
from ssl_zoo.benchmarks.gpu_speed import CIFAR, RESNET50, VIT, speed
from ssl_zoo.benchmarks.gpu_waits import host_waits

BUDGET = 450.0  # seconds for all sections
LIMIT = 180.0  # seconds for one of them
LEAST = 20.0  # seconds left under which no section is begun
TINY = "SSL_ZOO_GPU_TINY"


def environment(setting: Setting) -> Iterator[Row]:
    cuda = setting.device.type == "cuda"
    device = torch.cuda.get_device_name(setting.device) if cuda else "CPU"
    seen = {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda, "lightning": pl.__version__,
            "python": sys.version.split()[0], "cores": os.cpu_count(), "tiny": setting.tiny}  # fmt: skip
    yield row("environment", None, "", note=", ".join(f"{k} {v}" for k, v in seen.items())) | {"environment": seen}


SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "environment": environment,
    "vit_small_eager": partial(speed, VIT, False),
    "resnet50_eager": partial(speed, RESNET50, False),
    "resnet18_eager": partial(speed, CIFAR, False),
    "agreement_of_views": views_agree,
    "agreement_of_losses": losses_agree,
    "host_waits": host_waits,
    "vit_small_compiled": partial(speed, VIT, True),
    "resnet18_graphs": partial(speed, CIFAR, "graphs"),
    "resnet50_compiled": partial(speed, RESNET50, True),
}
# One after the other what measures time, and side by side what does not. Cheap ones first: compiling takes longest,
# and a section that no time is left for is only said to be missing.
ROUNDS = (
    ("environment",),
    ("vit_small_eager",),
    ("resnet50_eager",),
    ("resnet18_eager",),
    ("agreement_of_views", "agreement_of_losses", "host_waits"),
    ("vit_small_compiled",),
    ("resnet18_graphs",),
    ("resnet50_compiled",),
)


def quiet() -> None:
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def begin(name: str, out: Path, tiny: bool, share: int = 1) -> subprocess.Popen[bytes]:
    """Start a section with its share of the cores, one of ``share``: three that take all of them each stand still (on
    16 cores the losses of six methods then took three minutes)."""
    command = [sys.executable, str(Path(__file__).resolve()), f"--section={name}", f"--out={out.resolve()}"]
    threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // share, 1))} if share > 1 else {}
    return subprocess.Popen(command + ["--tiny"] * tiny, env={**os.environ, **threads})


def together(running: Mapping[str, subprocess.Popen[bytes]], seconds: float) -> dict[str, str | None]:
    """Wait for sections that run side by side, ``seconds`` for all of them."""
    until = time.monotonic() + seconds
    return {name: end(process, max(until - time.monotonic(), 0)) for name, process in running.items()}


def end(process: subprocess.Popen[bytes], seconds: float) -> str | None:
    """Wait for a section; why it gave not all of its rows, or None."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "stopped: no time was left for it; what it had printed by then stands"
    return f"ended with exit code {code}; its error stands above" if code else None


def run_all(out: Path, rounds: Sequence[Sequence[str]], tiny: bool, budget: float = BUDGET) -> None:
    """Each section in a process of its own, those of a round together, as long as there is time."""
    began = time.monotonic()
    out.write_text("[]\n")
    for names in rounds:
        left = budget - (time.monotonic() - began)
        skipped = f"skipped: {max(left, 0):.0f} s of {budget:.0f} s are left, fewer than {LEAST:.0f}"
        problems: dict[str, str | None] = dict.fromkeys(names, skipped)
        if left >= LEAST:
            problems = together({name: begin(name, out, tiny, len(names)) for name in names}, min(left, LIMIT))
        for name, problem in problems.items():
            if problem:
                keep(out, [{**row(f"section/{name}", None, "", note=problem), "ok": False}])
    out.with_name(f".{out.name}.lock").unlink(missing_ok=True)
    judged = [entry["ok"] for entry in json.loads(out.read_text()) if entry["ok"] is not None]
    print(f"{sum(judged)} of {len(judged)} bars met in {time.monotonic() - began:.0f} s; all rows: {out}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", default=os.environ.get(TINY) == "1", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if not chosen.tiny and not torch.cuda.is_available():
        print("benchmarks/gpu.py: torch finds no CUDA device here; nothing was run, every figure is unmeasured")
        return 0
    if chosen.section is None:
        run_all(chosen.out, ROUNDS, chosen.tiny)
        return 0
    quiet()
    setting = Setting(torch.device("cpu") if chosen.tiny else torch.device("cuda", 0), chosen.tiny)
    rows = SECTIONS[chosen.section](setting)
    keep(chosen.out, map(unjudged, rows) if chosen.tiny else rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
