"""Files are data: what hostile and damaged ones can do to every command that reads one. It should be: nothing."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo import build, cli, config, runs, trust
from ssl_zoo.data.image.datamodule import ImageData
from ssl_zoo.errors import ConfigError
from tests import helpers

FIXTURES = Path(__file__).parent / "fixtures" / "ff847eb"
SIMCLR = FIXTURES / "simclr" / "checkpoints" / "last.ckpt"
DINO = FIXTURES / "dino" / "checkpoints" / "last.ckpt"
# Names that would run code, reached in every way that there is.
NAMES = (
    "os.system", "builtins.exec", "builtins.eval", "subprocess.check_output", "torch.hub.load", "torch.load",
    "ssl_zoo.methods.simclr.torch.hub.load", "torch.nn.modules.module.torch.hub.load", "hydra.utils.instantiate",
    "functools.partial", "ssl_zoo.archives.torch.load", "ssl_zoo.methods.simclr.SimCLR.__init__",
    "torch.nn.Module.apply", "torch.nn.functional.handle_torch_function", "torch.nn.init.normal_",
    "torch.optim.Optimizer.load_state_dict", "ssl_zoo.backbones.weights.start_from", "not_installed.Thing",
    "ssl_zoo.evaluation.pseudo_labels.evaluate", "torch.nn..Linear", "torch.nn.Linear ", "",
)  # fmt: skip
PLACES = (
    "method.optimizer", "method.optimizer.values.lr", "method.backbone", "backbone", "data", "data.source",
    "callbacks.own", "logger.own", "card.deep.list.0", "method.projector.hidden.0",
)  # fmt: skip


class Payload:
    """What a pickle runs when it is read as one."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


def content(file: Path = SIMCLR) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def put(node: Any, path: str, value: Any) -> None:
    """Set a value in plain containers, and make the settings and lists on the way to it."""
    *parents, last = path.split(".")
    for name, after in zip(parents, path.split(".")[1:], strict=True):
        key: Any = int(name) if isinstance(node, list) else name
        if isinstance(node, dict) and not isinstance(node.get(key), (dict, list)):
            node[key] = [None] if after == "0" else {}
        node = node[key]
    node[int(last) if isinstance(node, list) else last] = value


def written(path: Path, *, file: Path = SIMCLR, **settings: Any) -> Path:
    """A checkpoint with other settings, as a person with bad intent would write it; ``__`` stands for a point."""
    found = content(file)
    for key, value in settings.items():
        put(found["ssl_zoo"]["config"], key.replace("__", "."), value)
    torch.save(found, path)
    return path


def code(marker: Path, target: str = "builtins.exec") -> dict[str, Any]:
    return {"_target_": target, "_args_": [f"open({str(marker)!r}, 'w').close()"]}


# Names


@pytest.mark.parametrize("place", PLACES)
def test_a_name_that_runs_code_is_refused_wherever_it_stands(place: str) -> None:
    for name in NAMES:
        stored = deepcopy(content()["ssl_zoo"]["config"])
        put(stored, place, {"_target_": name})
        with pytest.raises(ConfigError) as told:
            trust.read(stored, "checkpoint=x.ckpt")
        assert str(told.value).startswith("checkpoint=x.ckpt: its configuration ")
        assert f"{place}._target_" in str(told.value)
        if trust.NAME.fullmatch(name):
            assert f"names {name} in" in str(told.value)
            assert str(told.value).endswith(f"say so with trust=[{name.split('.')[0]}]")


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"_target_": ["os.system"]}, "method.optimizer._target_ is .*, wanted the name of a class"),
        ({"_target_": "torch.nn.Linear", "_args_": [1, 2]}, "optimizer._args_ is no argument by keyword"),
        ({"_target_": "torch.nn.Linear", "x=1)\nimport os #": 1}, "is no argument by keyword"),
        ({"lr": "${oc.env:HOME}"}, r"method.optimizer.lr is to be filled in from elsewhere"),
        ({"${oc.env:HOME}": 1}, r"method.optimizer has the key '\$\{oc.env:HOME\}'"),
        ({3: 1}, "method.optimizer has the key '3'"),
        ({"lr": "???"}, "filled in from elsewhere"),
        ({"lr": torch.zeros(2)}, "method.optimizer.lr is a Tensor, wanted settings, lists, words and numbers"),
        ({"lr": 10**400}, "method.optimizer.lr is 1000.*, and a file may ask for at most 9007199254740992"),
    ],
)
def test_what_is_no_plain_setting_is_refused_with_its_place(node: Any, words: str) -> None:
    stored = content()["ssl_zoo"]["config"]
    stored["method"]["optimizer"] = node
    with pytest.raises(ConfigError, match=words):
        trust.read(stored, "checkpoint=x.ckpt")


def test_nesting_without_end_and_lists_that_hold_themselves_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    wide: Any = [0]
    for _ in range(30):
        wide = [wide, wide]  # 2^30 values in a few bytes
    for node in (endless, wide):
        began = time.process_time()
        with pytest.raises(ConfigError, match="nested deeper than 32 or larger than 4,000 values"):
            trust.read({"card": node}, "checkpoint=x.ckpt")
        assert time.process_time() - began < 5


def test_every_name_of_our_own_configuration_is_one_that_exists_and_may_be_named() -> None:
    from ssl_zoo.signatures import locate

    names = trust.project_names()
    assert len(names) > 100 and "ssl_zoo.methods.simclr.SimCLR" in names
    assert all(name.startswith(("ssl_zoo.", "torch.optim.", "pytorch_lightning.loggers.")) for name in names)
    for name in names - {"pytorch_lightning.loggers.WandbLogger", "pytorch_lightning.loggers.MLFlowLogger"}:
        assert callable(locate(name))


def test_classes_of_torch_may_be_named_by_each_of_their_names() -> None:
    for name in ("torch.nn.GELU", "torch.nn.modules.activation.GELU", "torch.optim.AdamW", "torch.optim.adamw.AdamW",
                 "torch.optim.lr_scheduler.StepLR"):  # fmt: skip
        assert trust.library_class(name)
        assert trust.read({"method": {"_target_": name}}, "x")["method"]["_target_"] == name


def test_parts_that_touch_files_may_be_named_in_their_own_place_only() -> None:
    for name, place in (
        ("ssl_zoo.data.image.arrays.cifar10", "data.source"), ("ssl_zoo.loggers.MetricsCSV", "logger.csv"),
        ("pytorch_lightning.loggers.WandbLogger", "logger.wandb"),
        ("ssl_zoo.callbacks.online_knn.OnlineKNN", "callbacks.knn"),
    ):  # fmt: skip
        stored: dict[str, Any] = {}
        put(stored, place, {"_target_": name})
        trust.read(stored, "x")
        with pytest.raises(ConfigError, match=f"names {name} in method.optimizer"):
            trust.read({"method": {"optimizer": {"_target_": name}}}, "x")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of the user's, with a class of his own, what he has imported, and one that leaves a mark."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import os\nfrom mine.nets import Net\n")
    (tmp_path / "mine" / "nets.py").write_text(
        "import functools, os, torch\nfrom torch.hub import load\n\nclass Net(torch.nn.Module):\n"
        "    @classmethod\n    def small(cls):\n        return cls()\n\ncached = functools.lru_cache(torch.load)\n"
        "partial = functools.partial(print)\n"
    )
    (tmp_path / "mine2").mkdir()
    mark = f"open({str(tmp_path / 'imported')!r}, 'w').close()\nclass Net: pass\n"
    (tmp_path / "mine2" / "__init__.py").write_text(mark)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_trust_covers_a_package_of_the_users_and_not_what_it_has_imported(package: Path) -> None:
    for name in ("mine.Net", "mine.nets.Net", "mine.nets.Net.small"):
        assert trust.read({"method": {"_target_": name}}, "x", ["mine"])
        with pytest.raises(ConfigError, match=r"say so with trust=\[mine\]"):
            trust.read({"method": {"_target_": name}}, "x")
    for name in ("mine.os.system", "mine.nets.os.system", "mine.nets.load", "mine.nets.cached", "mine.nets.partial",
                 "mine.nets.torch.nn.Linear", "mine.Net.__init__", "mine.Net.__class__", "mine.absent",
                 "mine2.Net"):  # fmt: skip
        with pytest.raises(ConfigError, match=f"names {name} in method|_target_ is '{name}', wanted the name of a cl"):
            trust.read({"method": {"_target_": name}}, "x", ["mine"])
    assert not trust.trusted_name("mine.nets.Net", "mine.net")  # on dots only
    assert not (package / "imported").exists()  # nothing else has even been imported
    assert trust.read({"method": {"_target_": "mine2.Net"}}, "x", known=["mine2.Net"])  # as typed, and not imported
    assert not (package / "imported").exists()


def test_trust_wants_names() -> None:
    assert trust.packages("mine") == ("mine",) and trust.packages(None) == ()
    assert trust.packages(["mine", "other.part"]) == ("mine", "other.part")
    for wrong in ([""], ["a b"], ["a."], [3]):
        with pytest.raises(ConfigError, match=r"wanted names of packages, trust=\[my_package,other.part\]"):
            trust.packages(wrong)


def test_trust_that_stands_in_the_file_itself_counts_for_nothing(tmp_path: Path) -> None:
    file = written(tmp_path / "x.ckpt", trust=["os"], method__optimizer={"_target_": "os.system", "command": "true"})
    with pytest.raises(ConfigError, match=r"names os.system in method.optimizer._target_"):
        build.load_method(file)
    _, cfg, _ = build.load_method(written(tmp_path / "y.ckpt", trust=["os"]))
    assert cfg.trust == []


# Hostile files, on every command that reads one


def hostile(kind: str, folder: Path, marker: Path) -> Path:
    """A run folder with a checkpoint that tries to leave a mark."""
    file = folder / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    if kind == "pickle":
        torch.save({**content(), "epoch": Payload(marker)}, file)
    elif kind == "old pickle":
        torch.save({**content(), "epoch": Payload(marker)}, file, _use_new_zipfile_serialization=False)
    elif kind == "exec":
        written(file, method__optimizer=code(marker))
    elif kind == "hub":
        (folder / "repo").mkdir()
        (folder / "repo" / "hubconf.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef net(): pass\n")
        node = {"_target_": "torch.hub.load", "repo_or_dir": str(folder / "repo"), "model": "net", "source": "local"}
        written(file, method__optimizer=node)
    elif kind == "hub through us":
        node = {"_target_": "ssl_zoo.methods.simclr.torch.hub.load", "repo_or_dir": str(folder), "model": "net"}
        written(file, method__backbone=node)
    elif kind == "data":
        written(file, data__source=code(marker))
    elif kind == "callbacks":
        written(file, callbacks__own=code(marker), logger__own=code(marker, "builtins.eval"))
    elif kind == "interpolation":
        written(file, method__temperature="${oc.env:HOME}")
    return folder / "run"


KINDS = ("pickle", "old pickle", "exec", "hub", "hub through us", "data", "callbacks", "interpolation")
TINY = ["data=digits", "data.image_size=16", "data.channels=1", "trainer=cpu", "logger=none", "report=false"]


def typed(command: str, run: Path, out: Path) -> list[str]:
    checkpoint = run / "checkpoints" / "last.ckpt"
    train = ["train", f"hydra.run.dir={out}", *TINY]
    return {
        "evaluate": ["evaluate", f"checkpoint={run}", "device=cpu"],
        "pseudo-label": ["pseudo-label", f"checkpoint={run}", f"out={out}/p.safetensors", "device=cpu"],
        "export": ["export", f"run={run}", f"out={out}"],
        "attention": ["report", "attention", str(run), f"out={out}/a.png"],
        "reconstruction": ["report", "reconstruction", str(run), f"out={out}/r.png"],
        "finetune": ["evaluate", f"checkpoint={run}", "protocol=finetune", "device=cpu"],
        "resume": [*train, f"resume={checkpoint}"],
        "teacher": [*train, "method=distill", f"method.teacher.checkpoint={run}"],
        "weights": [*train, f"backbone.weights={checkpoint}"],
        "pseudo_labels": [*train, f"data.pseudo_labels={checkpoint}"],
        "packed": ["train", f"hydra.run.dir={out}", "data=packed", f"data.root={checkpoint}", *TINY[3:]],
    }[command]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "command",
    helpers.quickly(["evaluate", "resume", "teacher", "pseudo-label", "export", "attention", "reconstruction",
                     "finetune", "weights", "pseudo_labels", "packed"], ["evaluate"]),
)  # fmt: skip
def test_no_command_runs_what_a_file_hides(
    command: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "marker"
    run = hostile(kind, tmp_path, marker)
    monkeypatch.chdir(tmp_path)
    status = cli.entry(typed(command, run, tmp_path / "out"))
    told = capsys.readouterr().err
    assert not marker.exists()
    assert status == 1 and told.startswith("error: "), told


def test_the_files_of_these_tests_are_hostile_indeed(tmp_path: Path) -> None:
    """Each would leave its mark on a reader that trusts it: the test above can fail."""
    from hydra.utils import instantiate

    marker = tmp_path / "marker"
    torch.load(hostile("pickle", tmp_path / "a", marker) / "checkpoints" / "last.ckpt", weights_only=False)
    assert marker.exists()
    marker.unlink()
    run = hostile("exec", tmp_path / "b", marker)
    node = content(run / "checkpoints" / "last.ckpt")["ssl_zoo"]["config"]["method"]["optimizer"]
    node["_target_"] = "tests.test_trust.run_it"  # newer versions of Hydra refuse exec itself
    instantiate(node)
    assert marker.exists()


def run_it(text: str) -> None:
    exec(text)


def test_a_folder_of_runs_can_put_nothing_into_the_configuration_of_a_run_that_goes_on(tmp_path: Path) -> None:
    cfg = config.load(["method=simclr", *helpers.TINY])
    before = deepcopy(cfg)
    for value in ({"_target_": "os.system"}, "${oc.env:HOME}", [{"_target_": "os.system"}]):
        runs.apply(cfg, {"trainer.precision": {"typed": "auto", "value": value}})
        runs.apply(cfg, {"method.optimizer._target_": {"typed": cfg.method.optimizer._target_, "value": "os.system"}})
    assert cfg == before
    runs.apply(cfg, {"trainer.precision": {"typed": "auto", "value": "32-true"}})
    assert cfg.trainer.precision == "32-true"
    found = content()
    found["ssl_zoo"]["resolved"] = {"trainer.precision": {"typed": "auto", "value": {"_target_": "os.system"}}}
    torch.save(found, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match="damaged or changed: 'trainer.precision' in its record is no word or number"):
        runs.read_checkpoint(tmp_path / "x.ckpt")


# Teachers


def test_a_teacher_inside_a_students_checkpoint_is_held_to_the_same_rules(tmp_path: Path) -> None:
    record = {"config": content()["ssl_zoo"]["config"], "data_info": content()["ssl_zoo"]["data_info"]}
    record["config"]["method"]["optimizer"] = {"_target_": "os.system", "command": "true"}
    stored = {"method": {"teacher": {"checkpoint": "gone.ckpt", "network": json.dumps(record)}}}
    with pytest.raises(ConfigError, match=r"x.ckpt, method.teacher.network: its configuration names os.system in meth"):
        trust.read(stored, "checkpoint=x.ckpt")
    for text in ("[", "[]", "{}", "[" * 100_000, '{"config": [], "data_info": {}}'):
        stored["method"]["teacher"]["network"] = text
        with pytest.raises(ConfigError, match="network does not say how to build a teacher|wanted settings"):
            trust.read(stored, "checkpoint=x.ckpt")


def test_a_students_checkpoint_is_built_without_looking_at_its_teachers_file(tmp_path: Path) -> None:
    from tests.methods.test_crd import student_config
    from tests.methods.test_crd import written as saved

    saved(tmp_path / "teacher.ckpt", "supervised", helpers.info(), ["seed=7"])
    cfg = student_config(tmp_path / "teacher.ckpt")
    student = build.build_method(cfg, helpers.info()).eval()
    record = build.run_record(cfg, runs.Record.begin(config.plain(cfg)), helpers.info())
    torch.save({"state_dict": student.state_dict(), "ssl_zoo": record}, tmp_path / "student.ckpt")
    (tmp_path / "teacher.ckpt").write_bytes(b"something else by now")
    again, found, _ = build.load_method(tmp_path / "student.ckpt")
    assert found.method.teacher.kept and again.teacher is not None
    view = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.teacher(view), student.teacher(view))  # type: ignore[operator]


# Nothing is fetched, nothing written


def test_what_would_fetch_or_write_is_left_out_of_a_stored_configuration(tmp_path: Path) -> None:
    stored = content()["ssl_zoo"]["config"]
    for path, value in {
        "data.download": True, "data.source.download": True, "data.source.cache": str(tmp_path / "cache"),
        "backbone.weights": "timm:resnet18", "method.backbone.weights": "/some/file",
        "method.backbone.checkpoint_path": "/some/file.pth", "method.backbone.pretrained": True,
        "method.backbone.pretrained_cfg": {"url": "https://example.org"}, "method.teacher.timm": "resnet18",
        "method.teacher.pretrained": True, "resume": "/some/file", "method.start": "/some/file", "trust": ["os"],
    }.items():  # fmt: skip
        put(stored, path, value)
    found = trust.inert(trust.read(stored, "x"))
    assert found["data"]["download"] is False and found["data"]["source"]["download"] is False
    assert found["data"]["source"]["cache"] is None
    backbone = found["method"]["backbone"]
    assert [backbone[key] for key in ("weights", "checkpoint_path", "pretrained_cfg")] == [None, None, None]
    assert backbone["pretrained"] is False and found["method"]["teacher"]["pretrained"] is False
    assert found["backbone"]["weights"] is found["resume"] is found["method"]["start"] is None
    assert found["callbacks"] == found["logger"] == {} and found["trust"] == []


def test_the_address_of_data_is_opened_only_when_the_user_says_it(tmp_path: Path) -> None:
    from ssl_zoo.evaluation.run import data_config

    stored = content()["ssl_zoo"]["config"]
    with pytest.raises(ConfigError, match="data.source.root is the address 's3://b/x', and nothing is fetched"):
        trust.read({**stored, "data": {"source": {"root": "s3://b/x"}}}, "x")
    stored["data"]["root"] = "s3://b/x"
    cfg = OmegaConf.create(trust.inert(trust.read(stored, "x")))
    assert isinstance(cfg, type(OmegaConf.create({})))
    with pytest.raises(ConfigError, match="nothing is fetched because a file says so: read it with data.root=s3://b/x"):
        data_config(cfg, {"root": None})
    assert data_config(cfg, {"root": "s3://b/x", "download": True}).data.download is True


# What is no attack still works


@pytest.mark.parametrize("name", ["simclr", "dino", "moco_v2", "deepcluster_v2", "simclr_finished"])
def test_checkpoints_of_before_load_under_these_rules(name: str) -> None:
    method, _, checkpoint = build.load_method(FIXTURES / name)
    state = method.state_dict()
    tensors = {key: value for key, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)}
    assert len(tensors) > 20 and all(torch.equal(state[key], value) for key, value in tensors.items())


CODE = """
from ssl_zoo.methods.simclr import SimCLR

class Mine(SimCLR):
    pass
"""


@pytest.mark.slow
def test_a_method_of_the_users_own_is_evaluated_with_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_own.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    written(file, method___target_="my_own.Mine")
    argv = ["evaluate", f"checkpoint={tmp_path / 'run'}", "device=cpu"]
    assert cli.entry(argv) == 1
    assert "names my_own.Mine in method._target_, and a file may name only" in capsys.readouterr().err
    assert cli.entry([*argv, "trust=[my_own]"]) == 0
    assert (tmp_path / "run/evaluation/knn.json").is_file()
    assert cli.entry(["export", f"run={tmp_path / 'run'}", f"out={tmp_path / 'out'}", "trust=[my_own]"]) == 0
    assert cli.entry(["report", "reconstruction", str(tmp_path / "run"), "trust=[my_own]"]) == 1
    assert "Mine paints no pixels" in capsys.readouterr().err


def test_data_from_a_file_with_wrong_words_is_a_sentence() -> None:
    cfg = config.load(["method=simclr", *helpers.TINY])
    assert isinstance(build.build_data_from_file(cfg), ImageData)
    cfg.data.source.samples = "many"
    with pytest.raises(ConfigError, match="data.source.samples='many'"):
        build.build_data_from_file(cfg)
