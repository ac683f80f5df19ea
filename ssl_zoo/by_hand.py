"""Several nodes on each of which somebody has typed the same command, with ``MASTER_ADDR`` and ``NODE_RANK`` set."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from ssl_zoo import config, launch, words
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranks import PORT
from ssl_zoo.trainer import devices_of


def train(argv: Sequence[str]) -> int | None:
    """Start the processes of this node as a launcher would, and wait for them.

    Returns:
        The exit status; None: the run has one node, and nothing was started.
    """
    options, overrides = words.split(argv)
    if words.are_several(options, overrides):
        return None
    cfg = config.load([*words.search_path(options), *overrides])
    nodes, devices = int(cfg.trainer.num_nodes), devices_of(cfg)
    if nodes == 1:
        return None
    node = os.environ["NODE_RANK"]
    if not node.isdigit() or int(node) >= nodes:
        raise ConfigError(f"NODE_RANK={node}: with trainer.num_nodes={nodes} the nodes are 0 to {nodes - 1}")
    everywhere = {
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(PORT)), "WORLD_SIZE": str(nodes * devices), "NODE_RANK": node,
    }  # fmt: skip
    command = [sys.executable, "-m", "ssl_zoo.typed_rank", *argv]
    return launch.start(command, devices, int(node) * devices, everywhere, cfg.trainer.accelerator)


def check(cfg: DictConfig) -> None:
    """Refuse several nodes where nothing says where they are, with the commands that do.

    Raises:
        ConfigError: If ``trainer.num_nodes`` is above 1.
    """
    nodes = int(cfg.trainer.num_nodes)
    if nodes == 1:
        return
    each = devices_of(cfg)
    raise ConfigError(
        f"trainer.num_nodes={nodes}: nothing says where the other nodes are; start it on each of them with "
        f"torchrun --nnodes={nodes} --nproc-per-node={each} --rdzv-backend=c10d --rdzv-endpoint=HOST:{PORT} "
        f"--no-python ssl-zoo train …, or once with srun -N {nodes} --ntasks-per-node={each} ssl-zoo train …, or set "
        "MASTER_ADDR, MASTER_PORT and NODE_RANK (0, 1, …) on each"
    )
