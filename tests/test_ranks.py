"""Which process of a run this is, as torchrun, srun and plain variables say; and what is wrong with half a set."""

from __future__ import annotations

import re
import socket

import pytest

from ssl_zoo import ranks
from ssl_zoo.errors import ConfigError

VARIABLES = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "alpha", "MASTER_PORT": "1234"}
TORCHRUN = {**VARIABLES, "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0",
        "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "alpha", "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "3"}  # fmt: skip


def test_plain_variables() -> None:
    assert ranks.find(VARIABLES) == (3, 4, 1, socket.gethostname(), "alpha", 1234, "the environment", False, 0)
    assert ranks.find({**VARIABLES, "NODE_RANK": "1"})[3] == "1"  # type: ignore[index]
    without = {key: value for key, value in VARIABLES.items() if key != "MASTER_PORT"}
    assert ranks.find(without)[5] == 29500  # type: ignore[index]


def test_torchrun() -> None:
    assert ranks.find(TORCHRUN) == (3, 4, 1, "1", "alpha", 1234, "torchrun", True, 2)
    assert ranks.find({**SRUN, **TORCHRUN})[6] == "torchrun"  # type: ignore[index]  # which srun has started


def test_srun() -> None:
    assert ranks.find(SRUN) == (1, 2, 1, "0", "127.0.0.1", 20000 + 77 * 31 + 3, "srun", False, 0)
    wide = {**SRUN, "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_RESTART_COUNT": "1"}
    found = ranks.find(wide)
    assert found is not None and (found.address, found.attempt) == ("gpu07", 1)
    chosen = ranks.find({**wide, "MASTER_ADDR": "gpu08", "MASTER_PORT": "1"})
    assert chosen is not None and (chosen.address, chosen.port) == ("gpu08", 1)
    ports = {ranks.find({**SRUN, "SLURM_STEP_ID": str(step)})[5] for step in range(20)}  # type: ignore[index]
    assert len(ports) == 20  # steps of one job do not meet


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MASTER_ADDR": "alpha", "MASTER_PORT": "1234"},  # some sites set these for everyone
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"},  # a batch script without srun
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        {**VARIABLES, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1"},
    ],
)
def test_one_process(environment: dict[str, str]) -> None:
    assert ranks.find(environment) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            "RANK and WORLD_SIZE are set and LOCAL_RANK and MASTER_ADDR are not: a process of several is known by all "
            "of RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR; set them all (torchrun does), or none of them to train "
            "without a launcher",
        ),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is set and RANK, WORLD_SIZE and MASTER_ADDR are not"),
        ({**VARIABLES, "RANK": "x"}, "the environment has RANK=x: wanted a whole number from 0 on"),
        ({**VARIABLES, "RANK": "4"}, "RANK=4, LOCAL_RANK=1, WORLD_SIZE=4: wanted LOCAL_RANK <= RANK < WORLD_SIZE"),
        ({**VARIABLES, "MASTER_PORT": "a"}, "the environment has MASTER_PORT=a: wanted a whole number"),
    ],
)
def test_what_cannot_be_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ranks.find(environment)


def test_a_node_of_several() -> None:
    assert ranks.is_node_of_several({"MASTER_ADDR": "alpha", "NODE_RANK": "0"})
    assert not ranks.is_node_of_several({"MASTER_ADDR": "alpha"})
