"""Loggers: checked before a folder is made, told the configuration at the start and the final numbers at the end.

:func:`check` imports neither torch nor a tracker. ``metrics.csv`` is a logger too, and needs none of this: the run
folder holds its configuration and its summary.
"""

from __future__ import annotations

import configparser
import importlib.util
import netrc
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf

from ssl_zoo.errors import ConfigError

# Logger classes of Lightning: the packages that they import, and what installs them.
PACKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "WandbLogger": (("wandb",), "pip install ssl_zoo[tracking]"),
    "MLFlowLogger": (("mlflow",), "pip install mlflow"),
    "TensorBoardLogger": (("tensorboard",), "pip install tensorboard"),
    "CometLogger": (("comet_ml",), "pip install comet_ml"),
    "NeptuneLogger": (("neptune",), "pip install neptune"),
}
RUN_TAG = "ssl_zoo.run"  # the tag by which a resumed run finds its MLflow run
PARAM_LENGTH = 250  # characters of an MLflow parameter that Lightning keeps
WANDB_HOST = "https://api.wandb.ai"


def check(cfg: DictConfig) -> None:
    """Whether every logger of ``cfg.logger`` can start.

    Raises:
        ConfigError: One sentence for each logger whose package is absent, and for Weights & Biases without a login.
    """
    problems = [line for name, node in entries(cfg.get("logger")).items() for line in _problems(name, node)]
    if problems:
        raise ConfigError("\n".join(problems))


def entries(nodes: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The loggers of ``cfg.logger`` by name, less the null ones; one whose settings stand there directly is ``logger``.

    ``logger=none +logger._target_=package.Logger +logger.option=value`` is a logger of any library.
    """
    plain = _plain(nodes or {})
    if "_target_" not in plain:
        return {name: node for name, node in plain.items() if node}
    others = {name: node for name, node in plain.items() if isinstance(node, dict) and "_target_" in node}
    return {**others, "logger": {name: value for name, value in plain.items() if name not in others}}


def _problems(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    if "_target_" not in node:
        yield (
            f"logger.{name} has settings and no _target_: nothing chose that logger; choose it too "
            f"(logger=[…,{name}]), or leave its settings out"
        )
        return
    kind = str(node["_target_"]).rpartition(".")[2]
    packages, install = PACKAGES.get(kind, ((), ""))
    # mlflow brings what a database needs, mlflow-skinny does not
    database = ("sqlalchemy", "alembic") if kind == "MLFlowLogger" and _mlflow_uri(node).startswith("sqlite") else ()
    absent = next((package for package in (*packages, *database) if not _installed(package)), None)
    if absent is not None:
        yield f"logger.{name} needs the package {absent}: {install}, or leave the logger out with ~logger.{name}"
    elif kind == "WandbLogger" and not _wandb_can_start(node):
        yield (
            f"logger.{name}: Weights & Biases has no login for {_wandb_host(node)}: run `wandb login`, or keep the run "
            f"on this machine with WANDB_MODE=offline or logger.{name}.offline=true"
        )


def _plain(node: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return {str(key): value for key, value in plain.items()}


def _installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder `wandb` of runs in the working folder has no origin


def _wandb_can_start(node: Mapping[str, Any]) -> bool:
    settings = _wandb_settings()
    mode = node.get("mode") or os.environ.get("WANDB_MODE") or settings.get("mode")
    if node.get("offline") or mode in ("offline", "dryrun", "disabled"):
        return True
    keys = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    return any(map(os.environ.get, keys)) or bool(settings.get("api_key")) or _in_netrc(_wandb_host(node))


def _wandb_host(node: Mapping[str, Any]) -> str:
    url = os.environ.get("WANDB_BASE_URL") or _wandb_settings().get("base_url") or WANDB_HOST
    return urlsplit(url).netloc or url


def _wandb_settings() -> dict[str, str]:
    """What `wandb login --host`, `wandb offline` and `wandb init` have written."""
    folders = (
        Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser(),
        Path(os.environ.get("WANDB_DIR") or ".") / "wandb",
    )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "settings" for folder in folders)
    except (configparser.Error, UnicodeDecodeError):
        return {}  # wandb says itself what is wrong with them
    return dict(parser["default"]) if parser.has_section("default") else {}


def _in_netrc(host: str) -> bool:
    for file in [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]:
        try:
            found = netrc.netrc(os.path.expanduser(file)).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue  # wandb says itself what is wrong with it
        if found is not None and found[2]:
            return True
    return False


def _mlflow_uri(node: Mapping[str, Any]) -> str:
    """Where Lightning's logger writes to."""
    uri = node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    return str(uri or f"file:{node.get('save_dir', './mlruns')}")


def build(nodes: Mapping[str, Any] | None, config: dict[str, Any], run_id: str) -> list[Any]:
    """The loggers of a run, told its whole configuration by global rank 0.

    Args:
        nodes: ``cfg.logger``: null entries are left out.
        config: Plain containers.
        run_id: Of letters and digits, the same for all pieces of an interrupted run: they are one run of Weights &
            Biases, and one of MLflow.

    Raises:
        ConfigError: If a logger cannot start.
    """
    loggers: list[Any] = []
    for name, node in entries(nodes).items():
        try:
            logger = _instantiate(node, run_id)
            if _is_main():
                _describe(logger, config)
            loggers.append(logger)
        except Exception as error:  # whatever a tracker or its server raises
            close(loggers, "failed")
            raise ConfigError(
                f"logger.{name} cannot start ({_first_line(error)}); leave it out with ~logger.{name}"
            ) from error
    return loggers


def _instantiate(settings: dict[str, Any], run_id: str) -> Any:
    from hydra.utils import instantiate

    from ssl_zoo.signatures import locate

    kinds = _kinds(locate(settings["_target_"]))
    if "WandbLogger" in kinds and not os.environ.get("WANDB_RUN_ID"):  # agents of a sweep choose the id
        named = settings.get("id") or settings.get("version")
        settings |= {"id": named or run_id, "resume": settings.get("resume") or "allow"}
    if "MLFlowLogger" in kinds and not settings.get("run_id"):
        settings["tags"] = {RUN_TAG: run_id, **(settings.get("tags") or {})}
        settings["run_id"] = _earlier_mlflow_run(settings, run_id) if _is_main() else None
    return instantiate(settings, _convert_="all")


def _earlier_mlflow_run(node: Mapping[str, Any], run_id: str) -> str | None:
    """The MLflow run of the earlier pieces of this run, opened again."""
    from mlflow import MlflowClient

    client = MlflowClient(_mlflow_uri(node))
    experiment = client.get_experiment_by_name(node.get("experiment_name", "lightning_logs"))
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1)
    if not found:
        return None
    client.update_run(found[0].info.run_id, status="RUNNING")
    return str(found[0].info.run_id)


def _describe(logger: Any, config: dict[str, Any]) -> None:
    """Tell a logger the configuration; what an earlier piece of the run has told is not told twice."""
    kinds = _kinds(type(logger))
    if "MLFlowLogger" in kinds:
        # A parameter cannot be changed: that of an earlier piece stays; the file is replaced.
        known = logger.experiment.get_run(logger.run_id).data.params
        flat = {name: value for name, value in _flat_config(config) if name not in known}
        if flat:
            logger.log_hyperparams(flat)
        logger.experiment.log_text(logger.run_id, _yaml(config), "config.yaml")
        return
    logger.log_hyperparams(config)
    if "TensorBoardLogger" in kinds:
        told = Path(logger.log_dir) / logger.NAME_HPARAMS_FILE
        if not told.is_file():
            text = "".join(f"    {line}\n" for line in _yaml(config).splitlines())  # Markdown: code is indented
            logger.experiment.add_text("config", text, 0)
            logger.save()  # writes that file


def _flat_config(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their paths; a list is one leaf, unless it would be cut."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    if not items or (isinstance(node, list) and len(str(node)) <= PARAM_LENGTH):
        yield path, node
        return
    for key, value in items:
        yield from _flat_config(value, f"{path}/{key}" if path else str(key))


def _yaml(config: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(config))


def end(loggers: Sequence[Any], numbers: Mapping[str, Any], step: int | None = None) -> None:
    """Give every logger the final numbers, as ``final/...``, and close it; one that fails costs a warning.

    Args:
        loggers: Of :func:`build`.
        numbers: What ``summary.json`` holds: numbers, and dictionaries of them; what is neither is left out.
        step: The last step of the run.
    """
    final = dict(_flat_numbers(numbers, "final"))
    for logger in loggers if _is_main() and final else ():
        _guarded(logger, partial(_tell, logger, final, step))
    close(loggers, "success")


def close(loggers: Sequence[Any], status: str) -> None:
    """End the runs of the loggers, which the next job of this process would continue otherwise.

    Args:
        loggers: Of :func:`build`.
        status: ``success`` or ``failed`` (also: interrupted).
    """
    for logger in loggers:
        _guarded(logger, partial(_close, logger, status))


def _flat_numbers(node: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat_numbers(value, f"{path}/{key}")
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield path, float(node)


def _tell(logger: Any, final: dict[str, float], step: int | None) -> None:
    kinds = _kinds(type(logger))
    if "WandbLogger" in kinds:
        logger.experiment.summary.update(final)
    elif "TensorBoardLogger" in kinds:
        logger.log_hyperparams(logger.hparams, final, step)  # with scalars of these names
    elif "MLFlowLogger" in kinds:
        allowed = {re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII): value for name, value in final.items()}
        logger.log_metrics(allowed, step)
    elif "MetricsCSV" not in kinds:
        logger.log_metrics(final, step)


def _close(logger: Any, status: str) -> None:
    logger.finalize(status)
    if "WandbLogger" in _kinds(type(logger)) and _is_main():
        logger.experiment.finish(exit_code=0 if status == "success" else 1)


def _guarded(logger: Any, call: Callable[[], None]) -> None:
    """A run that is trained is not lost because a tracker fails."""
    from pytorch_lightning.utilities import rank_zero_warn

    try:
        call()
    except Exception as error:  # whatever a tracker or its server raises
        rank_zero_warn(f"{type(logger).__name__} did not get the end of the run ({_first_line(error)})")


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error  # of Hydra's, which repeats the whole call
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}".rstrip(": ")


def _kinds(cls: Any) -> set[str]:
    """Names of a class and its bases; Lightning has two packages with the same loggers."""
    return {base.__name__ for base in getattr(cls, "__mro__", ())}


def _is_main() -> bool:
    from pytorch_lightning.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0
