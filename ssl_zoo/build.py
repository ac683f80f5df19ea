"""From a checked configuration to objects: data, method, trainer arguments; and back from a checkpoint to a method."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_warn

from ssl_zoo import __version__, bounds, runs, teacher_record, trust
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.weights import open_runs_with
from ssl_zoo.config import plain
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules import grad_cache
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.dropout import draw_for_samples
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side
from ssl_zoo.signatures import argument_problems, fits, locate, parameters_of, problems, views_problem
from ssl_zoo.trainer import devices_of, make_trainer

if TYPE_CHECKING:
    from ssl_zoo.methods.base import Method  # methods may read teachers, which are built here

# What networks and libraries raise on settings that make no sense to them; in a file they were trained with, so that
# such settings are a fault of the file. Where a user typed them, the error is shown as it is.
FAULTS = (
    TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError, ArithmeticError, MemoryError,
    OSError, OmegaConfBaseException,
)  # fmt: skip


def check_signatures(cfg: DictConfig, resolved: dict[str, Any] | None = None) -> None:
    """Bind every ``_target_`` to its signature and count the views that the method needs; all problems at once.

    Args:
        resolved: The same in plain containers, where that is known already.
    """
    config = plain(cfg) if resolved is None else resolved
    found = list(problems(config))
    found += argument_problems(make_trainer, config["trainer"], "trainer", partial=True)
    if config["trainer"].get("clip"):
        found += argument_problems(Clip, config["trainer"]["clip"], "trainer.clip")
    found = found or [*_view_problems(config), *_splitting_problems(config)]
    # What the method refers to, its optimizer or its backbone, is told once, where it lies.
    found = [line for line in found if not (line.startswith("method.") and line.removeprefix("method.") in found)]
    if found:
        raise ConfigError("\n".join(found))


def _view_problems(config: dict[str, Any]) -> list[str]:
    views = config["augmentation"]["views"]
    data, method = (locate(config[part]["_target_"]) for part in ("data", "method"))
    try:
        augmentation = data.augmentation_class(config["augmentation"])
        found = augmentation.problems(views, config["augmentation"]["eval"])
    except ConfigError as error:
        return [str(error)]
    if found:
        return found
    if method.modality not in (None, augmentation.modality):
        return [f"{method.__name__} is for samples of the kind {method.modality!r}, and those of the data are of the "
                f"kind {augmentation.modality!r}; data=synthetic_{method.modality} are some to try it with"]
    problem = views_problem(method, views) or method.view_problem(config["method"], views)
    return [problem] if problem else []


def _splitting_problems(config: dict[str, Any]) -> list[str]:
    method = locate(config["method"]["_target_"])
    if config["trainer"].get("strategy") != "fsdp" or method.unsplittable is None:
        return []
    return [f"trainer.strategy=fsdp: {method.__name__} {method.unsplittable}; use trainer=ddp"]


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


def build_data(cfg: DictConfig, trains: bool = True) -> DataModule:
    """The data module, with its index read and its views built; nothing is decoded yet.

    Args:
        trains: False: it is only judged or drawn, for which fewer samples than a batch will do.
    """
    return _build(cfg.data, "data", **({} if trains else {"trains": False}))


def check_kind(cfg: DictConfig, data: DataModule) -> None:
    """Whether the method and the compiler can take views that are no single tensors, where the data's are none.

    Raises:
        ConfigError: If not, before anything is built.
    """
    if data.tensor_views:
        return
    method = locate(cfg.method._target_)
    of = f"the views that {type(data.augmentation).__name__} makes are no single tensors"
    if method.tensor_views:
        raise ConfigError(
            f"{method.__name__} mixes, shuffles or cuts views, and {of}; take a method that passes them on as they "
            "are, such as simclr, byol, barlow_twins or vicreg"
        )
    if cfg.trainer.compile:
        raise ConfigError(
            f"trainer.compile={cfg.trainer.compile} wants batches of one shape, and {of}; set trainer.compile=false"
        )


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
    teacher_record.embed(cfg)
    torch.manual_seed(cfg.seed)
    wanted = {"data_info": info} if "data_info" in inspect.signature(cls).parameters else {}
    said: Any = filled_in(OmegaConf.to_container(cfg.method, resolve=True), info.facts, "method", cfg.get("data"))
    backbone = {} if said.get("backbone") is None else {"backbone": build_backbone(said.pop("backbone"))}
    method: Method = _build(OmegaConf.create({"method": said}).method, "method", **backbone, **wanted)
    method.data_info = info
    method.seed = cfg.seed
    method.clip = _clip(cfg, method)
    convert(method, cfg.batch_norm.group, bool(cfg.batch_norm.get("interleaved")))
    draw_for_samples(method)
    _check_chunks(cfg, method, info)
    return method


def filled_in(node: Any, facts: Mapping[str, Any], path: str, data: Mapping[str, Any] | None = None) -> Any:
    """Settings below ``method`` in which what is null and called as a fact of the data has its value.

    Args:
        data: The configuration's. A fact that is a setting of theirs (the size of images) may be another one of the
            network, as in fine-tuning at another size; one that only the samples tell may not. None: nothing is
            refused.

    Raises:
        ConfigError: If a network is set up for other samples than those of the data.
    """
    if isinstance(node, list):
        return [filled_in(value, facts, f"{path}.{i}", data) for i, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    found = {key: filled_in(value, facts, f"{path}.{key}", data) for key, value in node.items()}
    if "_target_" not in node:
        return found
    wanted = [key for key in parameters_of(locate(node["_target_"])) or () if key in facts and key in node]
    for key in wanted:
        # Another kind of value is a setting of the method that happens to have the name.
        own = type(found[key]) is type(facts[key]) and found[key] != facts[key]
        if own and data is not None and key not in data:
            raise ConfigError(f"{path}.{key}={found[key]}: the data's is {facts[key]}; leave it out, or set it to null")
    return {**found, **{key: facts[key] for key in wanted if found.get(key) is None}}


def build_backbone(said: Mapping[str, Any]) -> Backbone:
    """The network of a node of a configuration; it knows how to be built once more, with draws of its own."""
    backbone: Backbone = _build(said, "method.backbone")
    if isinstance(backbone, Backbone):  # a configuration may name any network
        fresh = {key: value for key, value in said.items() if key != "weights"}
        backbone.again = functools.partial(build_backbone, fresh)
        backbone.pretrained = said.get("weights") is not None
    return backbone


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


def run_record(cfg: DictConfig, record: runs.Record, info: DataInfo) -> dict[str, Any]:
    """What a checkpoint says of its run, in plain containers only: enough to continue, build and judge it anywhere."""
    return {
        "config": plain(cfg),
        "identity": record.identity,
        "hash": record.hash,
        "resolved": record.resolved,
        "length": record.length,
        "data": record.data,
        "version": __version__,
        "data_info": {**vars(info), "facts": dict(info.facts)},
    }


def load_method(path: str | Path, trusted: Iterable[str] | None = ()) -> tuple[Method, DictConfig, dict[str, Any]]:
    """The trained method of a checkpoint, on the CPU and in eval mode; its configuration; the checkpoint itself.

    The configuration is what :func:`ssl_zoo.trust.inert` leaves of it, with ``trust`` as it is given here.

    Args:
        path: As :func:`ssl_zoo.runs.find` takes it.
        trusted: Packages whose classes it may name, besides the project's own.

    Raises:
        ConfigError: If the checkpoint is damaged, names what it may not, asks for more than it holds, or is of another
            architecture than it says.
    """
    checkpoint = runs.read_checkpoint(path)
    said, where, names = checkpoint["ssl_zoo"], f"checkpoint={path}", trust.packages(trusted)
    config = {**trust.inert(trust.read(said["config"], where, names)), "trust": list(names)}
    _check_parts(config, where)
    if "root" in config["data"]:
        config["data"]["root"] = _from_here(config["data"]["root"], said.get("data"))
    cfg = OmegaConf.create(config)
    method = build_from_file(cfg, said["data_info"], checkpoint["state_dict"], where)
    with _faults_of(where):
        load_state(method, checkpoint["state_dict"], str(path))
    return method.eval(), cfg, checkpoint


def _from_here(root: Any, fingerprint: Any) -> Any:
    """Where the data of a run are: a relative path that leads nowhere from here is meant from where it was typed.

    Args:
        root: As it was typed.
        fingerprint: Of the data, with the absolute path; None: of earlier versions.
    """
    kept = fingerprint.get("root") if isinstance(fingerprint, dict) else None
    typed, there = _paths_of(root), _paths_of(kept)
    if not typed or len(typed) != len(there) or all(path.exists() for path in typed):
        return root
    return kept if all(path.is_absolute() and path.exists() for path in there) else root


def _paths_of(root: Any) -> list[Path]:
    """The paths that ``root``, one or a list, holds; none where it holds anything else, as the address of a store."""
    several = root if isinstance(root, list) else [root]
    paths = all(isinstance(x, str) and "://" not in x for x in several)
    return [Path(x).expanduser() for x in several] if paths else []


SIZES = {"image_size": Side, "channels": Size}


def _check_parts(config: dict[str, Any], where: str) -> None:
    """What is read by name of a stored configuration, for any purpose."""
    parts = ("method", "backbone", "data", "trainer", "batch_norm")
    wrong = [key for key in parts if not isinstance(config.get(key), dict)]
    data = {} if wrong else config["data"]
    wrong += [f"data.{key}" for key, kind in SIZES.items() if key in data and not fits(data[key], kind)]
    wrong += ["batch_norm.group"] if not wrong and not fits(config["batch_norm"].get("group"), Size | None) else []
    if wrong:
        raise ConfigError(f"{where}: its configuration cannot be used: {wrong[0]} is missing or makes no sense")


def build_from_file(cfg: DictConfig, info: Any, state: dict[str, Any] | None, where: str) -> Method:
    """The method of a configuration out of a file that :func:`ssl_zoo.trust.read` has let pass.

    Args:
        info: What the file says of its data.
        state: The weights in the file: nothing is made that these cannot fill. None: they are in another file, which
            bounds what is made while it is read.
        where: What to call the file in messages.
    """
    found = list(problems(plain(cfg).get("method")))
    if found:
        raise ConfigError(f"{where}: its configuration cannot be used: " + "\n".join(found))
    budget: AbstractContextManager[Any] = nullcontext() if state is None else bounds.Budget(state, where)
    with _faults_of(where), budget:
        return build_method(cfg, bounds.data_info(info, where))


@contextmanager
def _faults_of(where: str) -> Iterator[None]:
    """Settings that make no sense are a fault of the file that they are in, and a sentence."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if where in text else f"{where}: cannot be built as it says: {text}") from error
    except FAULTS as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(f"{where}: cannot be built as it says ({type(error).__name__}: {reason})") from error


def build_data_from_file(cfg: DictConfig) -> DataModule:
    """The data to judge a network on; a part of the configuration is a file's: what is wrong is a sentence too."""
    found = list(problems(plain(cfg.data), "data"))
    if found:
        raise ConfigError("\n".join(found))
    with _faults_of("data"):
        return build_data(cfg, trains=False)


def load_state(method: Method, state: dict[str, Any], path: str) -> None:
    """Load weights by name and shape; a :class:`ConfigError` shows what differs."""
    own = method.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    tensors = [name for name in own.keys() & state.keys() if isinstance(own[name], torch.Tensor)]
    shaped = [name for name in tensors if own[name].shape != getattr(state[name], "shape", None)]
    if missing or extra or shaped:
        lines = [
            f"{name}: got {list(getattr(state[name], 'shape', []))}, wanted {list(own[name].shape)}"
            for name in shaped[:3]
        ]
        lines += [f"{name}: not in the checkpoint" for name in missing[:3]]
        lines += [f"{name}: not in this model" for name in extra[:3]]
        raise ConfigError(
            f"checkpoint={path}: of another architecture than the configuration's "
            f"({len(missing)} tensors missing, {len(extra)} unexpected, {len(shaped)} of another shape)\n  "
            + "\n  ".join(lines)
            + "\n  use the backbone and method of the checkpoint (its run folder has config.yaml)"
        )
    method.load_state_dict(state)


open_runs_with(lambda path: load_method(path)[0])
