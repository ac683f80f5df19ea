"""``python -m ssl_zoo.benchmarks [NAME ...] [quick=true] [out=bench.json] [root=DIR]``."""

import sys

from ssl_zoo.cli import entry

sys.exit(entry(["bench", *sys.argv[1:]]))
