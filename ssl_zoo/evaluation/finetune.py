"""Fine-tune the network of a checkpoint on labels: a run of its own below the checkpoint's, and its accuracy.

It trains as every method does (:class:`ssl_zoo.methods.finetune.FineTune`): views in batches on the device, mixed
precision, several processes, metrics, checkpoints that are continued after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_zoo import build, launch
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.config import plain
from ssl_zoo.distributed import world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.classifier import judge, scores, validation_of
from ssl_zoo.evaluation.run import Judged
from ssl_zoo.modules.heads import first_layers
from ssl_zoo.signatures import locate

START = "start.safetensors"
FINETUNE = "ssl_zoo.methods.finetune.FineTune"


def evaluate(judged: Judged, **settings: Any) -> dict[str, Any]:
    """The protocol of ``conf/protocol/finetune*.yaml``, whose keys are the settings.

    The network is left in ``evaluation/<name>`` of the run folder, where ``<name>`` is ``finetune``, followed by
    ``-labels0.1`` for a share of the labels and by ``-scratch`` for an untrained start. The test set chooses nothing:
    the accuracy is that after the last epoch.

    Returns:
        ``top1``, ``top5`` (with more than five classes) in percent, ``samples``, and ``name`` and ``run``, the folder.

    Raises:
        ConfigError: If the data has no labels or no validation set, too few labelled samples for a batch, or the method
            has no such head or no single backbone.
    """
    if world_size() > 1:
        raise ConfigError(
            f"devices={world_size()}: fine-tuning starts its processes itself; wanted devices=1 and "
            f"protocol.trainer.devices={world_size()}"
        )
    given = {str(key): _plain(value) for key, value in settings.items()}
    loader = validation_of(judged.datamodule)
    share = judged.target.data.get("labels")
    name = judged.name + (f"-labels{share:g}" if share else "") + ("-scratch" if given["from_scratch"] else "")
    folder = judged.source.folder / "evaluation" / name
    cfg = configuration(judged, folder, given)
    labelled = _check_batch(judged, given["batch_size"])
    _train(cfg, folder, None if given["from_scratch"] else lambda: pretrained(judged.method, given["head_layers"]))
    method, _, _ = build.load_method(folder / "checkpoints" / "last.ckpt", judged.target.get("trust"))
    found = scores(method.to(judged.device), loader, judged.device)
    samples = {"train": labelled, "test": int((found.labels >= 0).sum())}
    return {**judge(found, judged.datamodule.info.classes), "name": name, "run": str(folder), "samples": samples}


def configuration(judged: Judged, folder: Path, settings: Mapping[str, Any]) -> DictConfig:
    """What ``train.py`` would have composed: the checkpoint's data and network, and the protocol's settings."""
    base = plain(judged.target)
    seed = base["seed"] if settings["seed"] is None else settings["seed"]
    kind = locate(base["data"]["_target_"]).augmentation_class(base["augmentation"])
    view = kind.finetuning_view(base, settings["ops"])
    augmentation = {**base["augmentation"], "views": [view]}
    backbone = {**base["method"]["backbone"], **settings["backbone"]}
    backbone |= {"weights": None} if "weights" in backbone else {}
    projector = base["method"].get("projector") if settings["head_layers"] else None
    method = {"_target_": FINETUNE, "backbone": backbone, "optimizer": settings["optimizer"], "projector": projector}
    method |= {key: settings[key] for key in ("head_layers", "init", "label_smoothing")}
    scratch = settings["from_scratch"]
    data = {**base["data"], "batch_size": settings["batch_size"], "augmentation": augmentation, "seed": seed}
    card = {**base.get("card", {}), "name": f"{base.get('card', {}).get('name', 'network')}, fine-tuned"}
    return OmegaConf.create(
        {
            **base,
            "seed": seed,
            "resume": None,
            "report": False,
            "run_dir": str(folder),
            "card": card,
            "recipe": {"name": "finetune", "source": "protocol of evaluate.py"},
            "pretrained": {"checkpoint": None, "sha256": None}
            if scratch
            else {"checkpoint": str(judged.source.file), "sha256": judged.sha256},
            "batch_norm": {"group": None},
            "backbone": backbone,
            "optimizer": settings["optimizer"],
            "method": {**method, "start": None if scratch else str((folder / START).resolve())},
            "augmentation": augmentation,
            "data": {**data, "accumulate": 1, "drop_unlabelled": True},
            "trainer": {**base["trainer"], **_trainer(judged), **settings["trainer"]},
            "callbacks": {"progress": {"_target_": "ssl_zoo.callbacks.progress.Progress"}},
            "logger": {"csv": {"_target_": "ssl_zoo.loggers.MetricsCSV", "path": str(folder / "metrics.csv")}},
        }
    )


def _trainer(judged: Judged) -> dict[str, Any]:
    device = judged.device
    if device.type != "cpu" and device.index not in (None, 0):
        raise ConfigError(
            f"device={device}: fine-tuning trains on the first GPU that it sees; choose another with "
            f"CUDA_VISIBLE_DEVICES={device.index} and device=auto"
        )
    accelerator = "cpu" if device.type == "cpu" else "gpu"
    fixed = {"num_nodes": 1, "strategy": "auto", "max_steps": -1, "accumulate": 1, "checkpoint_every": None}
    return {"accelerator": accelerator, **fixed}


def _check_batch(judged: Judged, batch_size: int) -> int:
    """Number of labelled samples to train on."""
    labels = judged.datamodule.train_labels
    labelled = 0 if labels is None else int((labels >= 0).sum())
    if labelled < batch_size:
        raise ConfigError(
            f"protocol.batch_size={batch_size}: the training set has {labelled} labelled samples, not one step; try "
            f"protocol.batch_size={max(labelled // 4, 2)}, or more labels with data.labels"
        )
    return labelled


def pretrained(method: Any, head_layers: int) -> dict[str, Tensor]:
    """Weights of a method's encoder and of the beginning of its projector, by the names of ``FineTune``.

    Raises:
        ConfigError: If the encoder is not one backbone, or there is no such beginning.
    """
    encoder, projector = method.encoder, getattr(method, "projector", None)
    if not isinstance(encoder, Backbone):
        raise ConfigError(
            f"{type(method).__name__} is evaluated by a {type(encoder).__name__}, and protocol=finetune takes methods "
            "whose encoder is one backbone; use protocol=linear"
        )
    state = {f"backbone.{name}": value for name, value in encoder.state_dict().items()}
    if not head_layers:
        return state
    if projector is None:
        raise ConfigError(f"protocol.head_layers={head_layers}: {type(method).__name__} has no projector; wanted 0")
    try:
        kept = first_layers(projector, head_layers)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"protocol.head_layers={head_layers}: {error}") from None
    return state | {f"classifier.{name}": value for name, value in kept.state_dict().items()}


def _train(cfg: DictConfig, folder: Path, weights: Callable[[], dict[str, Tensor]] | None) -> None:
    """Train, go on with an interrupted training, or find that the same one has been finished."""
    build.check_signatures(cfg)

    def prepare() -> None:
        if weights is not None:
            save_file({name: value.cpu().contiguous() for name, value in weights().items()}, folder / START)

    def check(method: Any) -> None:
        if cfg.method.start is not None:
            _fits(method, cfg.method.start)

    launch.train_in(folder, cfg, prepare, check)
    (folder / START).unlink(missing_ok=True)  # from here on its weights are in last.ckpt


def _fits(method: Any, start: str) -> None:
    try:
        method.begin_with(load_file(start))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"protocol.backbone: {str(error).splitlines()[0]}; change only what has no weights") from None


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
