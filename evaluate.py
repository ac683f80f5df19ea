"""Evaluate a run: ``python evaluate.py checkpoint=outputs/RUN protocol=knn``; the same as ``ssl-zoo evaluate``."""

import sys

from ssl_zoo.cli import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
