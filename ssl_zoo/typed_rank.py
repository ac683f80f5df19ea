"""One of the processes that :mod:`ssl_zoo.by_hand` starts: ``python -m ssl_zoo.typed_rank WORDS`` trains as typed."""

from __future__ import annotations

import sys

from ssl_zoo import cli, machine

if __name__ == "__main__":
    machine.die_with_parent()
    sys.exit(cli.train(sys.argv[1:]))
