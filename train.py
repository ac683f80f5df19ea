"""Train one method, for example ``python train.py method=byol data=cifar10``; the same as ``ssl-zoo train``."""

import sys

from ssl_zoo.cli import train

if __name__ == "__main__":
    sys.exit(train())
