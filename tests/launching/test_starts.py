"""Every way to start two processes makes one run with the weights of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.cli.test_run_folders import pictures
from tests.launching.starts import STARTS, TORCHRUN, TRAIN, alone, free_port, together, torchrun

WORDS = [
    "data=synthetic", "data.source.samples=40", "data.source.val_samples=16", "data.image_size=16", "data.batch_size=8",
    "backbone=resnet8", "backbone.width=4", "trainer.max_epochs=4", "trainer.precision=64-true", "trainer.log_every=1",
    "trainer=cpu", "report=false", "logger=csv", "data.workers=0", "few_labels=null", "hydra.run.dir=run",
]  # fmt: skip
METHODS = {
    "simclr": ["method.projector.hidden=[8]", "method.projector.out_features=8"],
    "byol": ["method.projector.hidden=[8]", "method.projector.out_features=8", "method.predictor.hidden=[8]"],
    "moco_v2": ["method.queue_size=16", "batch_norm.group=4"],
    "swav": ["method.prototypes=8"],
}

pytestmark = pytest.mark.slow


def words(method: str) -> list[str]:
    return [f"method={method}", *WORDS, *METHODS[method]]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 20
    return {key: value for key, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)}


def assert_close(run: Path, wanted: dict[str, torch.Tensor]) -> None:
    found = weights(run)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-9, msg=lambda text, name=key: f"{name}: {text}")


@pytest.fixture(scope="session")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The weights that one process reaches, by method; made once."""
    found = {}
    for method in METHODS:
        place = tmp_path_factory.mktemp(method)
        (done,) = alone(words(method), place)
        assert done.returncode == 0, done.stderr
        found[method] = weights(place / "run")
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", STARTS)
def test_one_run_with_the_weights_of_one_process(
    start: str, method: str, tmp_path: Path, of_one: dict[str, dict[str, torch.Tensor]]
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    done = STARTS[start](words(method), place)
    assert [one.returncode for one in done] == [0] * len(done), [one.stdout + one.stderr for one in done]
    # Of two agents that meet, torchrun makes either the first: where that was typed the run lies, and nowhere else.
    (run,) = [path for folder in tmp_path.iterdir() for path in folder.iterdir()]
    assert run.name == "run" and (run.parent == place or start == "two_agents")
    assert_close(run, of_one[method])
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "finished" and len(record["pieces"]) == 1
    steps = [line.split(",")[1] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=int)  # one process writes
    said = "\n".join(one.stdout for one in done)
    assert said.count("checkpoint     ") == 1


def test_a_wrong_word_is_told_once_and_ends_all(tmp_path: Path) -> None:
    (done,) = torchrun([*words("simclr"), "method.temperatur=1"], tmp_path)
    assert done.returncode == 1 and done.stderr.count("error: method.temperatur") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_than_the_launchers_are_refused(tmp_path: Path) -> None:
    (done,) = torchrun([*words("simclr"), "trainer.devices=4"], tmp_path)
    wanted = ("error: trainer.devices=4: torchrun has started 2 processes on each of 1 nodes; leave trainer.devices "
              "out, or start as many")  # fmt: skip
    assert done.returncode == 1 and wanted in done.stderr, done.stderr


def test_a_sweep_inside_started_processes_is_refused(tmp_path: Path) -> None:
    (done,) = torchrun([*words("simclr"), "-m", "seed=0,1"], tmp_path)
    assert done.returncode == 1 and done.stderr.count("error: -m starts many runs, and this process is one of 2") == 1
    assert list(tmp_path.iterdir()) == []


def test_several_nodes_that_nobody_has_named_are_refused(tmp_path: Path) -> None:
    (done,) = alone([*words("simclr"), "trainer.num_nodes=2"], tmp_path)
    assert done.returncode == 1
    wanted = ("error: trainer.num_nodes=2: nothing says where the other nodes are; start it on each of them with "
              "torchrun --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d")  # fmt: skip
    assert wanted in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_torchrun_starts_again_goes_on(tmp_path: Path, of_one: dict[str, dict[str, torch.Tensor]]) -> None:
    """Without ``resume``, and in the one folder, whose name is the time of a start."""
    given = [word for word in words("simclr") if not word.startswith("hydra.run.dir")]
    kill = f"+callbacks.kill={{_target_: tests.cli.kill.KillOnce, step: 12, marker: {tmp_path / 'killed'}}}"
    agent = [*TORCHRUN, "--nproc_per_node=2", "--max-restarts=1", f"--master-port={free_port()}", TRAIN, *given, kill]
    (done,) = together([(agent, tmp_path, {})])
    assert done.returncode == 0 and (tmp_path / "killed").exists(), done.stderr
    (run,) = (tmp_path / "outputs/simclr/synthetic").iterdir()
    assert "this job was started again (torchrun " in done.stdout and "from step 10" in done.stdout, done.stdout
    assert_close(run, of_one["simclr"])
    assert [piece["step"] for piece in json.loads((run / "run.json").read_text())["pieces"]] == [0, 10]


def test_a_relative_path_is_meant_from_where_rank_0_was_typed(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for i, name in enumerate(("cat", "dog")):
        pictures(here / "tree" / name, seed=i, count=16)
    own = ("data=synthetic", "data.source")
    given = [word for word in words("simclr") if not word.startswith(own)]
    given += ["data=folder", "data.root=tree", "data.source.cache=false", "trainer.max_epochs=1"]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    command = [sys.executable, TRAIN, *given]
    places = [(here, "0"), (elsewhere, "1")]
    done = together([(command, place, {**meet, "RANK": i, "LOCAL_RANK": i}) for place, i in places])
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    assert OmegaConf.load(here / "run/config.yaml").data.root == "tree" and list(elsewhere.iterdir()) == []
