"""Our short runs beside lightly's code: same images, network, batch, epochs and seeds, each with its own recipe.

``python benchmarks/peers.py --root DIR --methods byol,swav --seeds 0,1,2`` trains each method with
``experiment=cifar10_quick`` and the same method as lightly's users write it (``peer_methods.py``), one run at a time or
some (``--lanes``) with one thread each, and writes ``peers.json`` and ``peers.md`` after every run. It can be ended at
any moment: what is finished stays. Both networks begin with the same weights and are judged by the same kNN (k = 20)
over the same images, normalised as they were in training.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_zoo.benchmarks.epochs import Pictures
from ssl_zoo.benchmarks.growth import COMMAND

OURS, LIGHTLY = "ssl_zoo", "lightly"
METHODS = ("simclr", "moco_v2", "swav", "byol", "simsiam", "barlow_twins", "vicreg", "dino")
K, TEMPERATURE = 20, 0.07  # those of the online kNN
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of lightly's views


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas between")
    parser.add_argument("--seeds", default="0", help="numbers with commas between")
    parser.add_argument("--sides", default=f"{OURS},{LIGHTLY}", help="one of them, or both")
    parser.add_argument("--root", help="data.root")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("outputs/peers"), help="folder of the runs and the table")
    parser.add_argument("--peer", metavar="METHOD", help=argparse.SUPPRESS)  # one run of lightly's, in this process
    parser.add_argument("overrides", nargs="*", help="more overrides for every training of ours")
    given = parser.parse_args(argv)
    given.methods, given.sides = given.methods.split(","), given.sides.split(",")
    given.seeds = [int(seed) for seed in given.seeds.split(",")]
    for name, found, known in (("methods", given.methods, METHODS), ("sides", given.sides, (OURS, LIGHTLY))):
        unknown = sorted({*found} - {*known})
        if unknown:
            parser.error(f"--{name}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return given


def words(given: argparse.Namespace, method: str, seed: int) -> list[str]:
    """The overrides of our run; lightly's takes images, network, batch and epochs from the same ones."""
    root = [f"data.root={given.root}"] if given.root else []
    return ["experiment=cifar10_quick", f"method={method}", f"seed={seed}", f"trainer.max_epochs={given.epochs}",
            "report=false", "few_labels=null", *root, *given.overrides]  # fmt: skip


def place(given: argparse.Namespace, side: str, method: str, seed: int) -> Path:
    return Path(given.out.absolute()) / side / f"{method}-{seed}"


def command(given: argparse.Namespace, side: str, method: str, seed: int) -> list[str]:
    folder = place(given, side, method, seed)
    if side == OURS:
        return [*COMMAND, *words(given, method, seed), f"hydra.run.dir={folder}", "overwrite=true"]
    root = ["--root", given.root] if given.root else []
    return [sys.executable, "-m", "ssl_zoo.benchmarks.peers", "--peer", method, "--seeds", str(seed), *root,
            "--epochs", str(given.epochs), "--out", str(given.out.absolute()), *given.overrides]  # fmt: skip


def accuracy(given: argparse.Namespace, side: str, method: str, seed: int) -> float | None:
    """kNN top-1 of a finished run, in percent; None: it is not finished."""
    file = place(given, side, method, seed) / "summary.json"
    return float(json.loads(file.read_text())["knn/top1"]) if file.is_file() else None


def run(given: argparse.Namespace, side: str, method: str, seed: int) -> tuple[str, int]:
    """What was run, and its exit status; what it says goes into its log."""
    name, folder = f"{side} {method} seed {seed}", place(given, side, method, seed)
    if accuracy(given, side, method, seed) is not None:
        return name, 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Path(f"{folder}.log").open("w") as log:
        words = command(given, side, method, seed)
        return name, subprocess.run(words, env=environment, stdout=log, stderr=log).returncode


def peer(given: argparse.Namespace) -> None:
    """Train lightly's form of a method here, and write ``summary.json``."""
    import pytorch_lightning as pl

    from ssl_zoo import config, worker
    from ssl_zoo.benchmarks.peer_methods import PEERS, train

    method, (seed,) = given.peer, given.seeds
    folder = place(given, LIGHTLY, method, seed)
    plain_norm = "batch_norm.group=null"  # lightly's loops know no groups of a method's own
    cfg = config.load([*words(given, method, seed), plain_norm, f"run_dir={folder}", "resume=null"])
    built, data = worker.build_run(cfg)
    pl.seed_everything(seed, verbose=False)
    net = PEERS[method](built.backbone, built.backbone.out_features)
    images = data.train.fetch(torch.arange(len(data.train)))
    pictures = Pictures(images, net.transform(images.shape[-1]))
    loader: Any = DataLoader(pictures, data.batch_size, shuffle=True, drop_last=True)
    train(net.train(), (loader for _ in range(given.epochs)), given.epochs)
    found = {"knn/top1": nearest(net.backbone.eval(), data), "method": method, "seed": seed}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n")


@torch.no_grad()
def nearest(backbone: torch.nn.Module, data: Any) -> float:
    """kNN top-1 of the validation images against the training images, in percent."""
    from ssl_zoo.knn import knn_top1

    bank, query = (features(backbone, part.fetch(torch.arange(len(part)))) for part in (data.train, data.val))
    labels = [torch.as_tensor(part.labels) for part in (data.val, data.train)]
    return knn_top1(query, labels[0], bank, labels[1], data.info.classes, K, TEMPERATURE)


def features(backbone: torch.nn.Module, images: Tensor) -> Tensor:
    """``uint8 [N, 3, H, W] -> [N, F]``."""
    mean_, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    return torch.cat([backbone((part.float() / 255 - mean_) / std) for part in images.split(512)])


def rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for each method of which both sides have finished a seed."""
    for method in METHODS:
        seeds = [seed for seed in given.seeds
                 if all(accuracy(given, side, method, seed) is not None for side in (OURS, LIGHTLY))]  # fmt: skip
        if not seeds:
            continue
        found = {side: [accuracy(given, side, method, seed) or 0.0 for seed in seeds] for side in (OURS, LIGHTLY)}
        yield {"method": method, "seeds": seeds, **found, "verdict": verdict(found[OURS], found[LIGHTLY])}


def verdict(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """In words: above or below only by more than twice the standard error of the difference of the means."""
    if len(ours) < 2:
        return "one seed"
    error = ((stdev(ours) ** 2 + stdev(theirs) ** 2) / len(ours)) ** 0.5
    difference = mean(ours) - mean(theirs)
    return "equal" if abs(difference) <= 2 * error else "above" if difference > 0 else "below"


def markdown(found: Sequence[dict[str, Any]]) -> str:
    lines = ["| method | ssl_zoo | lightly | difference | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in found:
        sides = [spread(row[side]) for side in (OURS, LIGHTLY)]
        difference = mean(row[OURS]) - mean(row[LIGHTLY])
        lines.append(f"| `{row['method']}` | {sides[0]} | {sides[1]} | {difference:+.1f} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a run failed; its log says why."""
    given = arguments(argv)
    if given.peer:
        peer(given)
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    tasks = [(side, method, seed) for method in given.methods for seed in given.seeds for side in given.sides]
    failed = False
    with ThreadPoolExecutor(given.lanes) as lanes:
        for name, status in lanes.map(lambda task: run(given, *task), tasks):
            failed |= status != 0
            ending = "finished" if status == 0 else f"failed ({status}), see its log in {given.out}"
            print(f"{name}: {ending}", flush=True)
            found = list(rows(given))
            (given.out / "peers.json").write_text(json.dumps(found, indent=2) + "\n")
            (given.out / "peers.md").write_text(markdown(found))
    print(markdown(found), end="")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
