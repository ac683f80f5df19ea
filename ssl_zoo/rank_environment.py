"""What Lightning is told of processes that exist already."""

from __future__ import annotations

from pytorch_lightning.plugins.environments import ClusterEnvironment

from ssl_zoo.rendezvous import Meeting


class Started(ClusterEnvironment):
    """The processes of a :class:`~ssl_zoo.rendezvous.Meeting`.

    Lightning's own classes read the environment again, and Slurm's starts runs from files called ``hpc_ckpt`` and asks
    Slurm to start the job again.
    """

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.meeting.ranks.address

    @property
    def main_port(self) -> int:
        return self.meeting.ranks.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.meeting.ranks.world

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def global_rank(self) -> int:
        return self.meeting.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """Known already."""

    def local_rank(self) -> int:
        return self.meeting.ranks.local_rank

    def node_rank(self) -> int:
        return self.meeting.node
