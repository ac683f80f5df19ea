"""From a checked configuration to objects: data, method, trainer arguments; and back from a checkpoint to a method."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_warn

from ssl_zoo import teachers
from ssl_zoo.config import plain
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from ssl_zoo.modules import grad_cache
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.signatures import argument_problems, locate, problems, views_problem
from ssl_zoo.trainer import devices_of, make_trainer


def check_signatures(cfg: DictConfig) -> None:
    """Bind every ``_target_`` to its signature and count the views that the method needs; all problems at once."""
    config = plain(cfg)
    found = list(problems(config))
    found += argument_problems(make_trainer, config["trainer"], "trainer", partial=True)
    if config["trainer"].get("clip"):
        found += argument_problems(Clip, config["trainer"]["clip"], "trainer.clip")
    found = found or _view_problems(config)
    # What the method refers to, its optimizer or its backbone, is told once, where it lies.
    found = [line for line in found if not (line.startswith("method.") and line.removeprefix("method.") in found)]
    if found:
        raise ConfigError("\n".join(found))


def _view_problems(config: dict[str, Any]) -> list[str]:
    from ssl_zoo.augmentations import registry
    from ssl_zoo.augmentations.views import ViewSpec

    views, found = config["augmentation"]["views"], []
    for i, view in enumerate(views):
        found += [f"augmentation.views.{i}: {text}" for text in ViewSpec.problems(view)]
    for i, view in enumerate([] if found else views):
        found += [f"augmentation.views.{i}.ops: {text}" for text in registry.check(view["ops"])]
    found += [f"augmentation.eval.ops: {text}" for text in registry.check(config["augmentation"]["eval"]["ops"])]
    counts = None if found else views_problem(locate(config["method"]["_target_"]), views)
    return found if counts is None else [counts]


def _build(node: Any, path: str, **injected: Any) -> Any:
    try:
        # In two steps: Hydra would turn an injected dataclass into a dictionary.
        return instantiate(node, _convert_="all", _partial_=True)(**injected)
    except InstantiationException as error:
        where = str(error).rpartition("full_key: ")[2].strip() if "full_key" in str(error) else path
        raise _told(error.__cause__ or error, where) from None
    except (ConfigError, ValueError, FileNotFoundError) as error:
        raise _told(error, path) from None


def _told(error: BaseException, where: str) -> BaseException:
    """A wrong input as a :class:`ConfigError` that begins with its path; anything else as it is."""
    if not isinstance(error, (ConfigError, ValueError, FileNotFoundError)):
        return error
    text = str(error)
    return ConfigError(text if text.startswith(("data", "method", "backbone", "augmentation")) else f"{where}: {text}")


def build_data(cfg: DictConfig) -> DataModule:
    """The data module, with its index read and its views built; nothing is decoded yet."""
    return _build(cfg.data, "data")


def build_method(cfg: DictConfig, info: DataInfo) -> Method:
    """The method with its backbone, heads and state; batch norms grouped as ``batch_norm.group`` says.

    The networks are drawn from ``seed`` alone: whatever was built before does not matter.
    """
    cls = locate(cfg.method._target_)
    if cls.needs_labels and info.classes is None:
        raise ConfigError(
            f"method {cls.__name__} needs labels and data._target_'s training set has none; "
            "use a labelled data set, or a method that needs no labels"
        )
    teachers.embed(cfg)
    torch.manual_seed(cfg.seed)
    wanted = {"data_info": info} if "data_info" in inspect.signature(cls).parameters else {}
    method: Method = _build(cfg.method, "method", **wanted)
    method.data_info = info
    method.seed = cfg.seed
    method.clip = _clip(cfg, method)
    convert(method, cfg.batch_norm.group)
    _check_chunks(cfg, method, info)
    return method


def _clip(cfg: DictConfig, method: Method) -> Clip | None:
    if not cfg.trainer.get("clip"):
        return None
    clip = Clip(**plain(cfg.trainer)["clip"])
    problem = clip.problem(name for name, p in method.named_parameters() if p.requires_grad)
    if problem is not None:
        raise ConfigError(problem)
    return clip


def _check_chunks(cfg: DictConfig, method: Method, info: DataInfo) -> None:
    """Large batches in small memory: what is exact, and what is not."""
    chunks = cfg.method.get("grad_cache")
    if chunks is None:
        return
    grad_cache.check(method, chunks, info.batch_size // (devices_of(cfg) * cfg.trainer.num_nodes), cfg.batch_norm.group)
    if cfg.trainer.accumulate > 1:
        rank_zero_warn(
            f"trainer.accumulate={cfg.trainer.accumulate}: {type(method).__name__} compares the samples of a micro-"
            f"batch with each other, {info.batch_size} of the {cfg.data.batch_size} of a step; trainer.accumulate=1 "
            f"method.grad_cache={cfg.trainer.accumulate} compares all of them in the same memory"
        )


def run_record(cfg: DictConfig, hashed: str, info: DataInfo) -> dict[str, Any]:
    """What a checkpoint says of its run, in plain containers only."""
    from ssl_zoo import __version__

    return {"config": plain(cfg), "hash": hashed, "version": __version__, "data_info": dict(vars(info))}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours, tensors and plain containers only.

    Args:
        path: A ``.ckpt`` file, or a run folder with ``checkpoints/last.ckpt``.

    Raises:
        ConfigError: If there is no such file, it is damaged, or it was not written by ssl_zoo.
    """
    file = Path(path)
    if file.is_dir():
        own = file / "checkpoints" / "last.ckpt"  # runs of the evaluation may lie below
        found = [own] if own.is_file() else sorted(file.rglob("last.ckpt"))
        if not found:
            raise ConfigError(f"checkpoint={path}: no last.ckpt anywhere below this folder; is it a run folder?")
        file = found[-1]
    if not file.is_file():
        raise ConfigError(f"checkpoint={path}: there is no such file; wanted a .ckpt file or a run folder")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"checkpoint={file}: cannot be read as a checkpoint ({reason})") from None
    if not isinstance(checkpoint, dict) or "ssl_zoo" not in checkpoint:
        raise ConfigError(
            f"checkpoint={file}: not written by ssl_zoo (no 'ssl_zoo' record in it); "
            "start from foreign weights with backbone.weights=FILE"
        )
    return checkpoint


def load_method(path: str | Path) -> tuple[Method, DictConfig, dict[str, Any]]:
    """The trained method of a checkpoint, on the CPU and in eval mode; its configuration; the checkpoint itself."""
    checkpoint = read_checkpoint(path)
    cfg = OmegaConf.create(checkpoint["ssl_zoo"]["config"])
    assert isinstance(cfg, DictConfig)
    # The encoder's weights are in the checkpoint: the file that they once started from may be gone.
    if "weights" in cfg.backbone:
        cfg.backbone.weights = cfg.method.backbone.weights = None
    if cfg.method.get("teacher"):
        cfg.method.teacher.pretrained = False
    method = build_method(cfg, DataInfo(**checkpoint["ssl_zoo"]["data_info"]))
    load_state(method, checkpoint["state_dict"], str(path))
    return method.eval(), cfg, checkpoint


def load_state(method: Method, state: dict[str, Any], path: str) -> None:
    """Load weights by name and shape; a :class:`ConfigError` shows what differs."""
    own = method.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    tensors = [name for name in own.keys() & state.keys() if isinstance(own[name], torch.Tensor)]
    shaped = [name for name in tensors if own[name].shape != state[name].shape]
    if missing or extra or shaped:
        lines = [f"{name}: got {list(state[name].shape)}, wanted {list(own[name].shape)}" for name in shaped[:3]]
        lines += [f"{name}: not in the checkpoint" for name in missing[:3]]
        lines += [f"{name}: not in this model" for name in extra[:3]]
        raise ConfigError(
            f"checkpoint={path}: of another architecture than the configuration's "
            f"({len(missing)} tensors missing, {len(extra)} unexpected, {len(shaped)} of another shape)\n  "
            + "\n  ".join(lines)
            + "\n  use the backbone and method of the checkpoint (its run folder has config.yaml)"
        )
    method.load_state_dict(state)
