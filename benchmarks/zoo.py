"""The measured table of the zoo: every method on the same images with the same network, against its untrained self.

``python benchmarks/zoo.py --methods simclr,byol --data cifar10 --root DIR --epochs 10`` trains each method through
``train.py``, some at a time with one thread each, and writes ``zoo.json``, ``zoo.md`` and ``zoo.png`` after every run.
It can be ended at any moment: what is finished stays, the rest continues from its last checkpoint.

Methods that learn from another network (:data:`STAGES`) get it from this table, asked for or not: ``crd`` the
``supervised`` run; ``distill`` and ``noisy_student`` a tenth of the labels and ``simclr_v2``, fine-tuned on that tenth.
Such a run is made once, as if ``--methods`` had named it, and has its row: the table shows every finished run in its
folder. Overrides of a method's own (``method.``, ``optimizer``, ``augmentation``) are for the methods of ``--methods``
alone; one that names the other network (``--methods crd method.teacher.checkpoint=RUN``) replaces the table's.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssl_zoo.benchmarks.growth import COMMAND

PROGRAM = COMMAND[:-1]  # ssl-zoo, less the name of its own command
COLUMNS = ("method", "kNN untrained", "kNN trained", "gain", "linear", "spread", "seconds")
SUMMARY = "summary.json"  # what a finished run leaves
OWN = ("method.", "optimizer", "augmentation")  # beginnings of overrides that other methods cannot take
TEACHER = "method.teacher."


@dataclass(frozen=True)
class Stage:
    """One command, and how it follows from another one.

    Args:
        leaves: What later stages read, in the folder of the table.
        done: File that is there once the stage is finished.
        program: Of ``ssl-zoo``.
        words: Overrides beside those of every run; ``{leaves}`` is that path.
        reads: Stage that comes first, None: none.
        key: Override that names what ``reads`` leaves.
    """

    leaves: str
    done: str
    program: str = "train"
    words: tuple[str, ...] = ()
    reads: str | None = None
    key: str = f"{TEACHER}checkpoint"


def trained(method: str, *words: str, reads: str | None = None, key: str = Stage.key) -> Stage:
    """The training of a method."""
    return Stage(method, f"{method}/{SUMMARY}", "train", words, reads, key)


LABELS = "data.labels=0.1"
FINE_TUNED, GUESSES = "simclr_v2/fine-tuned", "simclr_v2/pseudo-labels"
TUNED = "simclr_v2/evaluation/finetune-labels0.1"  # where protocol=finetune puts it
GUESSED = f"{GUESSES}/labels0.1.safetensors"
# What is more than the training of a method on the data alone.
STAGES = {
    "crd": trained("crd", reads="supervised"),
    FINE_TUNED: Stage(
        leaves=TUNED,
        done=f"{TUNED}.json",
        program="evaluate",
        words=("protocol=finetune", LABELS, "protocol.head_layers=1"),
        reads="simclr_v2",
        key="checkpoint",
    ),
    "distill": trained("distill", LABELS, reads=FINE_TUNED),
    # Guessed beforehand: beside the student the teacher would see its noise, and pixels of another normalisation.
    GUESSES: Stage(
        leaves=GUESSED,
        done=GUESSED,
        program="pseudo-label",
        words=(LABELS, "out={leaves}"),
        reads=FINE_TUNED,
        key="checkpoint",
    ),
    "noisy_student": trained("noisy_student", LABELS, reads=GUESSES, key="data.pseudo_labels"),
}


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
    parser.add_argument("overrides", nargs="*", help="more overrides for every training: scale.width=32 seed=1")
    given = parser.parse_args(argv)
    given.methods = known() if given.methods == "all" else given.methods.split(",")
    unknown = sorted(set(given.methods) - set(known()))
    if unknown:
        parser.error(f"--methods: there is no {', '.join(unknown)}; there are {', '.join(known())}")
    return given


def stage(name: str) -> Stage:
    """A stage by its name; a method that is not in :data:`STAGES` needs nothing but its training."""
    return STAGES.get(name) or trained(name)


def own(given: argparse.Namespace, name: str) -> list[str]:
    """The overrides of the command line that are for this stage."""
    return [word for word in given.overrides if name in given.methods or not word.lstrip("+~").startswith(OWN)]


def finished(given: argparse.Namespace, name: str) -> bool:
    return (given.out / stage(name).done).is_file()


def source(given: argparse.Namespace, name: str) -> str | None:
    """The stage that has to be finished first; None for a finished one, or where the command line names another."""
    told = any(word.lstrip("+").startswith((f"{stage(name).key}=", TEACHER)) for word in own(given, name))
    return None if told or finished(given, name) else stage(name).reads


def order(given: argparse.Namespace) -> list[str]:
    """The stages of the methods asked for, once each and after what they read."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        first = source(given, name)
        if first is not None:
            add(first)
        found.setdefault(name)

    for method in given.methods:
        add(method)
    return list(found)


def command(given: argparse.Namespace, name: str) -> list[str]:
    """The command of a stage, or the one that goes on with it."""
    this, out, first = stage(name), given.out.absolute(), source(given, name)
    words = [word.format(leaves=out / this.leaves) for word in this.words]
    words += [f"{this.key}={out / stage(first).leaves}"] if first is not None else []
    words = [*training(given, name), *words, *own(given, name)] if this.program == "train" else words
    return [*PROGRAM, this.program, *words]


def training(given: argparse.Namespace, method: str) -> list[str]:
    """The overrides that all methods have; an evaluation goes on by itself."""
    folder = given.out.absolute() / method
    words = [f"experiment={given.data}_quick" if given.data == "cifar10" else f"data={given.data}", f"method={method}"]
    words += [f"data.subset={given.subset or 'null'}", f"trainer.max_epochs={given.epochs}", "report=false"]
    words += [f"data.root={given.root}"] if given.root else []
    last = folder / "checkpoints" / "last.ckpt"
    return [*words, f"hydra.run.dir={folder}", f"resume={last}" if last.is_file() else "resume=null"]


def log_of(given: argparse.Namespace, name: str) -> Path:
    return given.out / name / "log.txt"


def run(given: argparse.Namespace, name: str) -> int:
    """Exit status of a stage; what it says goes into its log."""
    if finished(given, name):
        return 0
    file = log_of(given, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with file.open("a") as log:
        return subprocess.run(command(given, name), env=environment, stdout=log, stderr=log).returncode


def run_all(given: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """The stages in order, as many at a time as there are lanes; what has to wait for another takes no lane.

    Yields:
        Name and exit status of each that has ended; last those whose source has failed, with None.
    """
    waiting, passed = list(names), set[str]()
    running: dict[Future[int], str] = {}
    with ThreadPoolExecutor(given.lanes) as lanes:
        while True:
            ready = [name for name in waiting if source(given, name) in (None, *passed)]
            for name in ready[: given.lanes - len(running)]:
                waiting.remove(name)
                running[lanes.submit(run, given, name)] = name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, status = running.pop(future), future.result()
                passed |= set() if status else {name}
                yield name, status
    yield from ((name, None) for name in waiting)


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


def outcome(given: argparse.Namespace, name: str, status: int | None) -> str:
    """How a stage has ended, in words; None: it was never begun."""
    if status is None:
        return f"not begun, for it needs {source(given, name)}"
    return "finished" if status == 0 else f"failed ({status}), see {log_of(given, name)}"


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a stage failed; its log says why."""
    given = arguments(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for name, status in run_all(given, order(given)):
        write(given)
        print(f"{name}: {outcome(given, name, status)}", flush=True)
        failed |= status != 0
    print(f"written: {given.out / 'zoo.json'}, zoo.md, zoo.png")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
