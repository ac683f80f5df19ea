"""Whether this process is one of several that a launcher has started, as its environment says."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssl_zoo.errors import ConfigError

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
PORT = 29500  # as torch.distributed's own launchers have it
FIRST_PORT, PORTS = 20000, 20000  # of the jobs of Slurm


class Ranks(NamedTuple):
    """One of several processes that train together."""

    rank: int  # among all
    world: int  # how many there are
    local_rank: int  # among those of its node
    node: str  # a name that the processes of a node share
    address: str  # where all meet
    port: int
    by: str  # who started them, for messages
    hosted: bool = False  # the launcher itself listens at that address, else rank 0 does
    attempt: int = 0  # how often the launcher has started all of them again


def find(environment: Mapping[str, str]) -> Ranks | None:
    """The process that torchrun, srun or a complete set of variables describes; None: one process, or one to come.

    torchrun comes first, because srun may have started it.

    Raises:
        ConfigError: If a part of the set is missing, or is no number.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return _of_torchrun(environment)
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _of_srun(environment)
    return of_variables(environment)


def is_node_of_several(environment: Mapping[str, str]) -> bool:
    """Whether the environment says which node this is, and where the first one is, and nothing of processes."""
    return all(environment.get(name) for name in ("MASTER_ADDR", "NODE_RANK"))


def _of_torchrun(environment: Mapping[str, str]) -> Ranks | None:
    found = of_variables(environment)
    if found is None:
        return None
    return found._replace(
        node=environment.get("GROUP_RANK", found.node),
        by="torchrun",
        hosted=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
    )


def _of_srun(environment: Mapping[str, str]) -> Ranks:
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    several = int(environment.get("SLURM_STEP_NUM_NODES", 1)) > 1
    return Ranks(
        rank=int(environment["SLURM_PROCID"]),
        world=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        node=environment.get("SLURM_NODEID", "0"),
        address=environment.get("MASTER_ADDR") or (_first_of(nodes) if several else "127.0.0.1"),
        port=_number(environment, "MASTER_PORT", _port(environment)),
        by="srun",
        attempt=int(environment.get("SLURM_RESTART_COUNT", 0)),
    )


def of_variables(environment: Mapping[str, str]) -> Ranks | None:
    """The process that ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``MASTER_ADDR`` describe."""
    present = [name for name in NEEDED if environment.get(name)]
    if present in ([], ["MASTER_ADDR"]) or environment.get("WORLD_SIZE") == "1":
        return None
    missing = [name for name in NEEDED if name not in present]
    if missing:
        raise ConfigError(
            f"{listed(present)} {'is' if len(present) == 1 else 'are'} set and {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not: a process of several is known by all of "
            f"{listed(NEEDED)}; set them all (torchrun does), or none of them to train without a launcher"
        )
    rank, world, local_rank = (_number(environment, name) for name in NEEDED[:3])
    if not local_rank <= rank < world:
        raise ConfigError(f"RANK={rank}, LOCAL_RANK={local_rank}, WORLD_SIZE={world}: wanted "
                          "LOCAL_RANK <= RANK < WORLD_SIZE")  # fmt: skip
    node = environment.get("NODE_RANK") or socket.gethostname()
    return Ranks(rank, world, local_rank, node, environment["MASTER_ADDR"], _number(environment, "MASTER_PORT", PORT),
                 "the environment")  # fmt: skip


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = environment.get(name) or default
    if isinstance(value, int):
        return value
    if value is None or not value.isdigit():
        raise ConfigError(f"the environment has {name}={value}: wanted a whole number from 0 on")
    return int(value)


def _first_of(nodes: str) -> str:
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    return SLURMEnvironment.resolve_root_node_address(nodes)


def _port(environment: Mapping[str, str]) -> int:
    """Of a step of a job: two of them on one node must not meet."""
    job, step = (int(environment.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return FIRST_PORT + (job * 31 + step) % PORTS


def listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
