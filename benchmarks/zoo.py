"""The measured table of the zoo: every method on the same images with the same network, against its untrained self.

``python benchmarks/zoo.py --methods simclr,byol --data cifar10 --root DIR --epochs 10`` trains each method through
``train.py``, some at a time with one thread each, and writes ``zoo.json``, ``zoo.md`` and ``zoo.png`` after every run.
It can be ended at any moment: finished runs stay, the others continue from their last checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssl_zoo.benchmarks.growth import COMMAND

COLUMNS = ("method", "kNN untrained", "kNN trained", "gain", "linear", "spread", "seconds")
SUMMARY = "summary.json"  # what a finished run leaves


def known() -> list[str]:
    """All methods, by their files."""
    folder = Path(str(files("ssl_zoo.conf"))) / "method"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="all", help="names with commas between, or all")
    parser.add_argument("--data", default="cifar10", help="a data configuration (conf/data)")
    parser.add_argument("--root", help="data.root")
    parser.add_argument("--subset", type=int, default=5000, help="training images; 0: all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("outputs/zoo"), help="folder of the runs and the table")
    parser.add_argument("overrides", nargs="*", help="more overrides for every run: backbone.width=32 seed=1")
    given = parser.parse_args(argv)
    given.methods = known() if given.methods == "all" else given.methods.split(",")
    unknown = sorted(set(given.methods) - set(known()))
    if unknown:
        parser.error(f"--methods: there is no {', '.join(unknown)}; there are {', '.join(known())}")
    return given


def command(given: argparse.Namespace, method: str, folder: Path) -> list[str]:
    """Train one method, or go on with it."""
    words = [f"experiment={given.data}_quick" if given.data == "cifar10" else f"data={given.data}", f"method={method}"]
    words += [f"data.subset={given.subset or 'null'}", f"trainer.max_epochs={given.epochs}", "report=false"]
    words += [f"data.root={given.root}"] if given.root else []
    last = folder / "checkpoints" / "last.ckpt"
    words += [f"hydra.run.dir={folder}", f"resume={last}" if last.is_file() else "resume=null", *given.overrides]
    return [*COMMAND, *words]


def train(given: argparse.Namespace, method: str) -> int:
    """Exit status; the words of the run go into its folder's ``log.txt``."""
    folder = given.out.absolute() / method
    if (folder / SUMMARY).is_file():
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        return subprocess.run(command(given, method, folder), env=environment, stdout=log, stderr=log).returncode


def row(folder: Path) -> dict[str, Any] | None:
    """The numbers of a finished run; None for another."""
    if not (folder / SUMMARY).is_file():
        return None
    summary = json.loads((folder / SUMMARY).read_text())
    with (folder / "metrics.csv").open() as file:
        nearest = [float(line["knn/top1"]) for line in csv.DictReader(file) if line.get("knn/top1")]
    return {
        "method": folder.name,
        "kNN untrained": nearest[0],
        "kNN trained": nearest[-1],
        "gain": nearest[-1] - nearest[0],
        "linear": summary.get("probe/top1"),
        "spread": summary.get("collapse/std"),
        "seconds": summary["seconds"],
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    digits = {"spread": 2, "seconds": 0}
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    for entry in rows:
        cells = [f"`{entry['method']}`"]
        for name in COLUMNS[1:]:
            value, sign = entry[name], "+" if name == "gain" else ""
            cells.append("" if value is None else f"{value:{sign}.{digits.get(name, 1)}f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars from the untrained network's accuracy to the trained one's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ordered = sorted(rows, key=lambda entry: entry["kNN trained"])
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.26 * len(ordered)))
    names = [entry["method"] for entry in ordered]
    axes.barh(names, [entry["kNN trained"] for entry in ordered], color="#4c72b0", label="trained")
    axes.barh(names, [entry["kNN untrained"] for entry in ordered], color="#c8c8c8", label="untrained")
    axes.set_xlim(left=min(entry["kNN untrained"] for entry in ordered) - 5)
    axes.set_xlabel("kNN top-1, %")
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write(given: argparse.Namespace) -> None:
    """The table of what is finished, over all runs in the folder."""
    folders = sorted(path for path in given.out.iterdir() if path.is_dir())
    rows = [entry for folder in folders if (entry := row(folder)) is not None]
    if rows:
        (given.out / "zoo.json").write_text(json.dumps(rows, indent=2) + "\n")
        (given.out / "zoo.md").write_text(markdown(rows))
        draw(rows, given.out / "zoo.png")


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a run failed; its log says why."""
    given = arguments(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    failed = []
    with ThreadPoolExecutor(given.lanes) as lanes:
        ended = lanes.map(lambda name: train(given, name), given.methods)
        for method, status in zip(given.methods, ended, strict=True):
            write(given)
            done = "finished" if status == 0 else f"failed ({status}), see {given.out / method / 'log.txt'}"
            print(f"{method}: {done}", flush=True)
            failed += [method] if status else []
    print(f"written: {given.out / 'zoo.json'}, zoo.md, zoo.png")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
