"""Take an encoder away: weights under the names of torchvision or timm, and a card that says how to use them.

The card's ``load`` is Python that needs nothing of this project (formats ``torchvision`` and ``timm``). Before success
is claimed, a fresh process runs exactly those lines on exactly those files and must compute the same features.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_zoo import __version__, build, runs
from ssl_zoo.backbones.base import Backbone, backbone_of
from ssl_zoo.errors import ConfigError, require

FILE = "<FILE>"  # stands in the lines of `load` until the name of the file is known
TOLERANCE = 1e-5  # of the features, relative to the largest where that is above 1

# Runs in the fresh process, in the folder of the files: card and reference in, the difference out.
CHECK = """
import json, sys, torch
from safetensors.torch import load_file
card, given = json.load(open(sys.argv[1], encoding="utf-8")), load_file(sys.argv[2])
scope = {}
exec(card["load"], scope)
with torch.no_grad():
    output = scope["net"](given["input"] if "input" in given else scope["net"].example())
if output.shape != given["output"].shape:
    sys.exit(f"features have shape {list(output.shape)} instead of {list(given['output'].shape)}")
print(json.dumps({"difference": (output - given["output"]).abs().max().item(), "own": "ssl_zoo" in sys.modules}))
"""


def export(
    run: str | Path, format: str = "safetensors", out: str | Path | None = None, trust: Iterable[str] = ()
) -> Path:
    """Write the encoder of a run as ``.safetensors`` with a ``.json`` card beside it, verified by a fresh process.

    Args:
        run: Run folder or checkpoint file.
        format: ``torchvision`` or ``timm`` (the library that builds the network) or ``safetensors`` (this project).
        out: File or folder; by default ``export/`` in the run folder.
        trust: Packages whose classes the run's configuration may name, besides the project's own.

    Returns:
        Path of the weights.

    Raises:
        ConfigError: If the checkpoint is no good, the network does not exist in that library (the message says in which
            it does), or the fresh process computes anything else; nothing is written then.
    """
    require("format", format, FORMATS, ConfigError)
    source = runs.find(run)
    method, cfg, checkpoint = build.load_method(source.file, trust)
    backbone = backbone_of(method.encoder).eval()
    facts = method.data_info.facts
    load = FORMATS[format](backbone, cfg, facts)
    if load is None:
        possible = [name for name, recipe in FORMATS.items() if recipe(backbone, cfg, facts) is not None]
        raise ConfigError(
            f"format={format}: there is no network like {backbone.name!r} (stem {backbone.origin.stem}) in {format}; "
            f"this encoder can be exported as: {', '.join(possible)}"
        )
    file = _target(source, out, f"{_name(cfg.method)}-{backbone.name}-{format}")
    view = backbone.example()
    with torch.no_grad():
        reference = {"output": backbone(view).contiguous()}
    if isinstance(view, Tensor):
        reference["input"] = view
    card = _card(backbone, cfg, checkpoint, source, format, load.replace(FILE, repr(file.name)))
    card["data"] |= facts
    return _write_verified(file, backbone, card, reference)


# How each format builds the network: Python that leaves it in `net`, or None where the library has no such network.


def _torchvision(backbone: Backbone, cfg: DictConfig, facts: Mapping[str, Any]) -> str | None:
    from torchvision import models

    origin = backbone.origin
    if origin.name not in models.list_models(module=models):
        return None
    arguments = dict(origin.arguments) if origin.library == "torchvision" else {}
    net = models.get_model(origin.name, **arguments)
    first = f"net = torchvision.models.get_model({_call(origin.name, arguments)})"
    return _library("torchvision", first, net, backbone.net)


def _timm(backbone: Backbone, cfg: DictConfig, facts: Mapping[str, Any]) -> str | None:
    import timm

    origin = backbone.origin
    if not timm.is_model(origin.name):
        return None
    arguments = dict(origin.arguments) if origin.library == "timm" else {"num_classes": 0}
    net = timm.create_model(origin.name, **arguments)
    first = f"net = timm.create_model({_call(origin.name, arguments)})"
    return _library("timm", first, net, backbone.net)


def _safetensors(backbone: Backbone, cfg: DictConfig, facts: Mapping[str, Any]) -> str | None:
    arguments = build.filled_in(OmegaConf.to_container(cfg.backbone, resolve=True), facts, "backbone")
    kept = {str(key): value for key, value in arguments.items() if key not in ("_target_", "weights")}
    module, _, factory = str(cfg.backbone["_target_"]).rpartition(".")
    words = "".join(f", {key}={value!r}" for key, value in kept.items()).removeprefix(", ")
    imports, call = f"from {module} import {factory}\n", f"{factory}({words}, weights={FILE})"
    around = backbone.built_around(f"{factory}({words})", FILE)
    imports, call = (imports, call) if around is None else (imports + around[0], around[1])
    return f"{imports}\nnet = {call}\nnet.eval()\n"


FORMATS: dict[str, Callable[[Backbone, DictConfig, Mapping[str, Any]], str | None]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "safetensors": _safetensors,
}


def _call(name: str, arguments: dict[str, Any]) -> str:
    return repr(name) + "".join(f", {key}={value!r}" for key, value in arguments.items())


def _library(library: str, first: str, net: nn.Module, ours: nn.Module) -> str | None:
    """Lines that build ``net`` and turn it into ``ours``, or None if its tensors are then not ours."""
    edits = _edits(net, ours)
    for path, module, _ in edits:
        net.set_submodule(path, module)
    theirs, own = net.state_dict(), ours.state_dict()
    if {name: value.shape for name, value in theirs.items()} != {name: value.shape for name, value in own.items()}:
        return None
    lines = ["import torch", f"import {library}", "from safetensors.torch import load_file", "", first]
    lines += [f"net.set_submodule({path!r}, torch.nn.{text})" for path, _, text in edits]
    lines += [f"net.load_state_dict(load_file({FILE}))", "net.eval()"]
    return "\n".join(lines) + "\n"


def _edits(net: nn.Module, ours: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Where ours has another convolution or nothing at all: no classifier, small stem, other channels.

    Returns:
        Path, replacement, and the replacement as Python, which for these layers is how torch prints them.
    """
    own = dict(ours.named_modules())
    edits: list[tuple[str, nn.Module, str]] = []
    for path, module in net.named_modules():
        new = own.get(path)
        if new is None or not path or repr(new) == repr(module):
            continue
        if type(new) is nn.Identity:
            edits.append((path, nn.Identity(), "Identity()"))
        elif type(new) is nn.Conv2d:
            edits.append((path, new, repr(new)))
    return edits


def _name(node: DictConfig) -> str:
    return str(node["_target_"]).rpartition(".")[2].lower()


def _target(source: runs.Checkpoint, out: str | Path | None, name: str) -> Path:
    path = source.folder / "export" if out is None else Path(os.path.expanduser(str(out)))
    if path.suffix and path.suffix != ".safetensors" and not path.is_dir():
        raise ConfigError(f"out={out}: wanted a folder, or a file that ends in .safetensors")
    return path if path.suffix == ".safetensors" else path / f"{name}.safetensors"


def _card(
    backbone: Backbone, cfg: DictConfig, checkpoint: dict[str, Any], source: runs.Checkpoint, format: str, load: str
) -> dict[str, Any]:
    import timm
    import torchvision

    config: Any = OmegaConf.to_container(cfg, resolve=True)
    augmentation = config["augmentation"]
    record = checkpoint["ssl_zoo"]
    return {
        "format": format,
        "load": load,
        "features": backbone.out_features,
        "preprocessing": {**backbone.preprocessing(config), "ops": augmentation["eval"]["ops"]},
        "method": config["method"]["_target_"],
        "card": config.get("card"),
        "backbone": config["backbone"],
        "data": {key: config["data"].get(key) for key in ("source", "subset", "batch_size")},
        "epoch": checkpoint.get("epoch"),
        "step": checkpoint.get("global_step"),
        "metrics": metrics(source.folder),
        "config_hash": record["hash"],
        "checkpoint": str(source.file),
        "versions": {
            "ssl_zoo": __version__,
            "trained_with": record["version"],
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
    }


def metrics(folder: Path) -> dict[str, Any]:
    """Last value of every accuracy in ``metrics.csv``, and the top-1 of each evaluation that was run."""
    found: dict[str, Any] = {}
    table = folder / "metrics.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found |= {name: float(value) for name, value in row.items() if value and name.endswith("/top1")}
    for result in sorted((folder / "evaluation").glob("*.json")):
        numbers = json.loads(result.read_text(encoding="utf-8"))
        if "top1" in numbers:  # clustering and retrieval have none
            found[f"evaluation/{result.stem}/top1"] = numbers["top1"]
    return found


def _write_verified(file: Path, backbone: Backbone, card: dict[str, Any], reference: dict[str, Tensor]) -> Path:
    """Write to a folder beside the target, let a fresh process judge, then rename."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as name:
            folder = Path(name)
            tensors = {key: value.contiguous() for key, value in backbone.net.state_dict().items()}
            save_file(tensors, folder / file.name, metadata={"format": "pt"})
            save_file(reference, folder / "reference.safetensors")
            written = folder / f"{file.stem}.json"
            _dump(written, card)
            card["verified"] = {"difference": verify(written, folder / "reference.safetensors", card["format"])}
            _dump(written, card)
            (folder / file.name).replace(file)
            written.replace(file.with_suffix(".json"))
    except OSError as error:
        raise ConfigError(f"cannot write to {file.parent} ({error.strerror}); choose another: out=FILE") from None
    return file


def _dump(file: Path, card: dict[str, Any]) -> None:
    file.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def verify(card: Path, reference: Path, format: str) -> float:
    """Largest difference of the features that a fresh process computes by the card alone.

    Raises:
        ConfigError: If it fails, differs by more than 1e-5, or needed this project for a library's format.
    """
    # The project may run from a checkout that is not installed; a library's format must not need it anyway.
    root = str(Path(build.__file__).resolve().parents[1])
    own = [root, *(path or os.getcwd() for path in sys.path)]  # where networks of the user's lie too
    paths = own if format == "safetensors" else [os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", CHECK, card.name, reference.name],
        cwd=card.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    failed = f"export as {format} failed its check, nothing was written"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ConfigError(f"{failed}: a fresh process says: {lines[-1]}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    limit = TOLERANCE * max(1.0, load_file(reference)["output"].abs().max().item())
    if not answer["difference"] <= limit:  # not <=: NaN fails too
        raise ConfigError(f"{failed}: features differ by {answer['difference']:.3g}, at most {limit:.3g} wanted")
    if answer["own"] and format != "safetensors":
        raise ConfigError(f"{failed}: loading it imported ssl_zoo")
    return float(answer["difference"])
