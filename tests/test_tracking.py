from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_zoo import config, tracking
from ssl_zoo.errors import ConfigError
from tests.callbacks.tiny import fit, tiny

ROOT = Path(__file__).parents[1]
CONFIG = {
    "method": {"_target_": "m.SimCLR", "temperature": 0.5, "betas": [0.9, 0.95]},
    "augmentation": {"views": [{"count": 2, "ops": [{"crop": {"scale": [0.2, 1.0]}}] * 9}], "normalize": None},
    "resume": None,
    "note": "x" * 300,
}
NUMBERS = {
    **{"probe/top1": 91.5, "seconds": 3, "report": "failed", "good": True},
    "raw pixels": {"linear": 80.25, "knn": 75.0},
    "SimCLR (ours)": {"linear": 91.0},
}
FINAL = {"final/probe/top1": 91.5, "final/seconds": 3.0, "final/raw pixels/linear": 80.25}
FINAL |= {"final/raw pixels/knn": 75.0, "final/SimCLR (ours)/linear": 91.0}
WANDB_WAYS = "run `wandb login`, or keep the run on this machine with WANDB_MODE=offline or logger.wandb.offline=true"


def logger_config(choice: str, folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(overrides=[f"+logger={choice}", f"+run_dir={folder}", *overrides])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any login or setting of a tracker, in an empty folder."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_")) or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(cfg: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        tracking.check(cfg)
    return str(caught.value)


# Before a folder is made


@pytest.mark.parametrize(
    ("choice", "package", "install"),
    [
        ("wandb", "wandb", "pip install ssl_zoo[tracking]"),
        ("mlflow", "mlflow", "pip install mlflow"),
        ("mlflow", "sqlalchemy", "pip install mlflow"),
        ("tensorboard", "tensorboard", "pip install tensorboard"),
    ],
)
def test_an_absent_package_is_named_with_what_installs_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, choice: str, package: str, install: str
) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda name: name != package)
    assert refused(logger_config(choice, home)) == (
        f"logger.{choice} needs the package {package}: {install}, or leave the logger out with ~logger.{choice}"
    )


def test_a_server_needs_no_database_of_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda name: name == "mlflow")
    tracking.check(logger_config("mlflow", home, "logger.mlflow.tracking_uri=http://there"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    tracking.check(logger_config("mlflow", home))


def test_a_folder_of_runs_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tracker_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not tracking._installed("tracker_of_nobody")
    (tmp_path / "tracker_of_nobody" / "__init__.py").touch()
    assert tracking._installed("tracker_of_nobody")


def test_settings_of_a_logger_that_was_not_chosen(home: Path) -> None:
    cfg = OmegaConf.create({"logger": {"csv": None, "wandb": {"offline": True}}})
    assert refused(cfg) == (
        "logger.wandb has settings and no _target_: nothing chose that logger; choose it too (logger=[…,wandb]), "
        "or leave its settings out"
    )


def test_weights_and_biases_without_a_login_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda name: True)
    (home / ".netrc").write_text("machine other.host login user password k\nmachine api.wandb.ai login user\n")
    said = refused(logger_config("wandb", home))
    assert said == f"logger.wandb: Weights & Biases has no login for api.wandb.ai: {WANDB_WAYS}"
    monkeypatch.setenv("WANDB_BASE_URL", "https://own.host:8080")
    assert "no login for own.host:8080:" in refused(logger_config("wandb", home))


@pytest.mark.parametrize("mode", ["offline", "dryrun", "disabled"])
def test_wandb_needs_no_login_in_these_modes(home: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda name: True)
    tracking.check(logger_config("wandb", home, f"+logger.wandb.mode={mode}"))
    (home / "wandb").mkdir()
    (home / "wandb" / "settings").write_text(f"[default]\nmode = {mode}\n")
    tracking.check(logger_config("wandb", home))
    monkeypatch.setenv("WANDB_MODE", "online")
    assert WANDB_WAYS in refused(logger_config("wandb", home))
    monkeypatch.setenv("WANDB_MODE", mode)
    tracking.check(logger_config("wandb", home))
    monkeypatch.delenv("WANDB_MODE")
    (home / "wandb" / "settings").write_text("nonsense")
    assert WANDB_WAYS in refused(logger_config("wandb", home))
    tracking.check(logger_config("wandb", home, "logger.wandb.offline=true"))


def test_every_place_of_a_login_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda name: True)
    cfg = logger_config("wandb", home)
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "k")
            tracking.check(cfg)
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://own.host\napi_key = k\n")
    tracking.check(cfg)
    settings.write_text("[default]\nbase_url = https://own.host\n")
    assert "no login for own.host:" in refused(cfg)
    (home / "elsewhere").write_text("machine own.host login user password k\n")
    monkeypatch.setenv("NETRC", str(home / "elsewhere"))
    tracking.check(cfg)
    (home / "elsewhere").write_text("machine")
    assert "no login for own.host:" in refused(cfg)


def test_the_check_imports_no_tracker_and_no_torch(home: Path) -> None:
    code = (
        "import sys; from omegaconf import OmegaConf; from ssl_zoo import tracking\n"
        "for name in ('WandbLogger', 'MLFlowLogger', 'TensorBoardLogger'):\n"
        "    cfg = OmegaConf.create({'logger': {'x': {'_target_': 'pytorch_lightning.loggers.' + name}}})\n"
        "    try: tracking.check(cfg)\n"
        "    except tracking.ConfigError as error: print(error)\n"
        "print({'torch', 'wandb', 'mlflow', 'tensorboard'} & set(sys.modules))\n"
    )
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **path})
    assert done.stdout.splitlines()[-1] == "set()", done.stdout + done.stderr
    assert done.stdout.startswith("logger.x")


# Start and end


class Kept(Logger):
    """Any logger: keeps what it is told."""

    name, version = "kept", "0"

    def __init__(self, fail: str = "") -> None:
        super().__init__()
        self.fail = fail
        self.told: list[Any] = []

    def _keep(self, what: str, *values: Any) -> None:
        if self.fail == what:
            raise ConnectionError("no route\nto host")
        self.told.append((what, *values))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._keep("config", params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._keep("metrics", dict(metrics), step)

    def finalize(self, status: str) -> None:
        self._keep("finalize", status)


def kept(**settings: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.Kept", **settings}


def test_any_logger_gets_the_configuration_and_the_final_numbers() -> None:
    nodes = OmegaConf.create({"a": kept(), "none": None, "b": kept()})
    loggers = tracking.build(nodes, CONFIG, "r1")
    assert [logger.told for logger in loggers] == [[("config", CONFIG)]] * 2
    tracking.end(loggers, NUMBERS, step=7)
    assert [logger.told[1:] for logger in loggers] == [[("metrics", FINAL, 7), ("finalize", "success")]] * 2
    assert tracking.build(None, CONFIG, "r1") == []


def test_a_logger_that_fails_at_the_end_costs_a_warning_and_the_others_get_theirs() -> None:
    for fail in ("metrics", "finalize"):
        loggers = tracking.build({"a": kept(fail=fail), "b": kept()}, CONFIG, "r1")
        with pytest.warns(UserWarning) as caught:
            tracking.end(loggers, NUMBERS)
        assert [str(warning.message) for warning in caught] == [
            "Kept did not get the end of the run (ConnectionError: no route)"
        ]
        assert loggers[1].told[-2:] == [("metrics", FINAL, None), ("finalize", "success")]


def test_a_logger_that_cannot_start_ends_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Kept] = []
    init = Kept.__init__
    monkeypatch.setattr(Kept, "__init__", lambda self, fail="": (init(self, fail), made.append(self))[0])
    for node, reason in (
        (kept(fail="config"), "ConnectionError: no route"),
        (kept(fail="", no=1), "TypeError: .*unexpected keyword argument 'no'"),
    ):
        with pytest.raises(ConfigError, match=rf"^logger.b cannot start \({reason}\); leave it out with ~logger.b$"):
            tracking.build({"a": kept(), "b": node}, CONFIG, "r1")
        assert made[0].told[-1] == ("finalize", "failed")
        made.clear()


def test_only_global_rank_0_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    loggers = tracking.build({"a": kept()}, CONFIG, "r1")
    tracking.end(loggers, NUMBERS)
    assert loggers[0].told == [("finalize", "success")]  # Lightning's own do nothing there


def test_metrics_csv_takes_no_final_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    loggers = tracking.build({"csv": {"_target_": "ssl_zoo.loggers.MetricsCSV", "path": str(path)}}, CONFIG, "r1")
    loggers[0].log_metrics({"train/loss": 1.0}, step=1)
    before = path.read_text()
    tracking.end(loggers, NUMBERS)
    assert path.read_text() == before and "final" not in before


def report_late(loggers: list[Logger], first_step: int = 1) -> None:
    """Rows as a method sends them: those of one step arrive after the next step's."""
    method = tiny()
    fit([], method=method, logger=loggers, max_epochs=1)  # type: ignore[arg-type]
    for step, row in ((first_step + 50, {"late/first": 1.0}), (first_step + 49, {"late/second": 2.0})):
        method.report(row, step, epoch=1)


def test_tensorboard_shows_the_configuration_once_and_the_final_numbers(tmp_path: Path) -> None:
    nodes = logger_config("tensorboard", tmp_path).logger
    for piece in range(2):
        loggers = tracking.build(nodes, {**CONFIG, "resume": piece}, "r1")
        report_late(loggers, 100 * piece)
        if not piece:
            tracking.close(loggers, "failed")
    tracking.end(loggers, NUMBERS, step=150)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert all(line.startswith("    ") for line in shown.splitlines()) and "      temperature: 0.5\n" in shown
    found = {tag: events.Scalars(tag)[0] for tag in events.Tags()["scalars"] if tag.startswith("final/")}
    assert {tag: (event.value, event.step) for tag, event in found.items()} == {n: (v, 150) for n, v in FINAL.items()}
    assert [event.step for event in events.Scalars("late/second")] == [49, 149]
    start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert b"method/temperature" in start.content and start.plugin_name == "hparams"


def test_lightnings_csv_logger_works_by_its_target(tmp_path: Path) -> None:
    node = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path), "name": "", "version": "v"}
    loggers = tracking.build({"x": node}, CONFIG, "r1")
    report_late(loggers)
    tracking.end(loggers, NUMBERS, step=60)
    with (tmp_path / "v" / "metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    assert rows[60]["final/raw pixels/linear"] == "80.25" and rows[50]["late/second"] == "2.0"
    assert "temperature: 0.5" in (tmp_path / "v" / "hparams.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_mlflow_offline_keeps_one_run_over_two_pieces(home: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    if store == "sqlite":
        pytest.importorskip("alembic", reason="mlflow-skinny has no databases")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"sqlite:///{home}/mlflow.db" if store == "sqlite" else f"file:{home}/runs"
    cfg = logger_config("mlflow", home, f"logger.mlflow.tracking_uri={uri}", "++logger.mlflow.tags={team: a}")
    tracking.check(cfg)
    for piece in range(2):
        loggers = tracking.build(cfg.logger, {**CONFIG, "resume": piece}, "r1")
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("ssl_zoo").experiment_id
        assert [run.info.status for run in client.search_runs([experiment])] == ["RUNNING"]
        report_late(loggers, 100 * piece)
        if not piece:
            tracking.close(loggers, "failed")
            assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]
    tracking.end(loggers, NUMBERS, step=150)
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED" and run.data.tags["team"] == "a"
    params = run.data.params
    assert params["method/temperature"] == "0.5" and params["method/betas"] == "[0.9, 0.95]"
    assert params["augmentation/views/0/ops/8/crop/scale"] == "[0.2, 1.0]"  # a list that would be cut, leaf by leaf
    assert params["resume"] == "0" and params["note"] == "x" * 250
    file = client.download_artifacts(run.info.run_id, "config.yaml", str(home))
    assert OmegaConf.to_container(OmegaConf.load(file)) == {**CONFIG, "resume": 1}
    assert run.data.metrics["final/raw pixels/linear"] == 80.25
    assert run.data.metrics["final/SimCLR _ours_/linear"] == 91.0
    history = client.get_metric_history(run.info.run_id, "late/second")
    assert [(metric.step, metric.value) for metric in history] == [(49, 2.0), (149, 2.0)]
    tracking.end(tracking.build(cfg.logger, CONFIG, "r2"), NUMBERS)
    assert len(client.search_runs([experiment])) == 2


def offline_records(file: Path) -> list[Any]:
    """Records of a ``.wandb`` file: a seven byte header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts, at = parts + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def values_of(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.slow
def test_wandb_offline_keeps_one_id_and_every_row_over_two_pieces(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    cfg = logger_config("wandb", home)
    tracking.check(cfg)
    for piece in range(2):
        loggers = tracking.build(cfg.logger, {**CONFIG, "resume": piece}, "run1")
        assert loggers[1].version == "run1"
        report_late(loggers, 100 * piece)
        if not piece:
            tracking.close(loggers, "failed")
    tracking.end(loggers, NUMBERS, step=150)
    tracking.end(tracking.build(cfg.logger, CONFIG, "run2"), NUMBERS)  # the next job of a sweep in this process
    files = sorted((home / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    assert [file.name for file in files] == ["run-run1.wandb", "run-run1.wandb", "run-run2.wandb"]
    for piece, file in enumerate(files[:2]):
        records = offline_records(file)
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        assert run.run_id == "run1" and run.project == "ssl_zoo"
        told: dict[str, Any] = values_of(run.config.update)
        for record in records:
            told |= values_of(record.config.update)
        assert {key: told[key] for key in CONFIG} == {**CONFIG, "resume": piece}
        rows = [values_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
        late = [(row["trainer/global_step"], row["late/second"]) for row in rows if "late/second" in row]
        assert late == [(49 + 100 * piece, 2.0)]
        assert sum("train/loss" in row for row in rows) == 4  # steps of the tiny run
        ended = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
        assert ended == [0 if piece else 1]
        summary: dict[str, Any] = {}
        for record in records:
            summary |= values_of(record.summary.update)
        assert {key: summary[key] for key in FINAL if key in summary} == (FINAL if piece else {})


def test_the_id_of_a_wandb_run_is_the_users_where_there_is_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wandb(Kept):
        def __init__(self, **settings: Any) -> None:
            super().__init__()
            self.settings = settings

    Wandb.__name__ = "WandbLogger"
    monkeypatch.setattr(f"{__name__}.Kept", Wandb)

    def settings(**own: Any) -> dict[str, Any]:
        (logger,) = tracking.build({"w": kept(**own)}, CONFIG, "r1")
        return logger.settings

    assert settings() == {"id": "r1", "resume": "allow"}
    assert settings(id="mine", resume="must") == {"id": "mine", "resume": "must"}
    assert settings(version="mine") == {"version": "mine", "id": "mine", "resume": "allow"}
    monkeypatch.setenv("WANDB_RUN_ID", "agent")
    assert settings(project="p") == {"project": "p"}


def test_a_logger_may_be_named_directly(tmp_path: Path) -> None:
    words = ["logger=none", "+logger._target_=pytorch_lightning.loggers.CSVLogger", f"+logger.save_dir={tmp_path}"]
    cfg = config.load([*words, "data=synthetic"])
    config.quick_check(cfg)
    tracking.check(cfg)
    (logger,) = tracking.build(cfg.logger, config.plain(cfg), "r1")
    assert type(logger).__name__ == "CSVLogger" and logger.save_dir == str(tmp_path)
    both = config.load(["logger=csv", *words[1:], "data=synthetic"])
    assert list(tracking.entries(both.logger)) == ["csv", "logger"]
