"""What gradient boosting makes of the labelled rows of a table: a number beside those of networks.

``python benchmarks/boosting.py data=sklearn data.source.name=digits data.labels=0.1 seed=0`` takes the rows and the
labels that the training command with the same words would have, as a network sees them in evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from ssl_zoo import build, config
from ssl_zoo.data.source import Source
from ssl_zoo.errors import ConfigError


def accuracy(words: Sequence[str]) -> tuple[float, int]:
    """Top-1 in percent on the validation rows, and how many training rows had a label.

    Args:
        words: Of a training command.
    """
    cfg = config.load(words)
    data = build.build_data(cfg, trains=False)
    if data.val is None or data.train.labels is None:
        raise ConfigError("boosting wants labels and validation rows, and the data lacks one of them")

    def rows(source: Source) -> tuple[torch.Tensor, torch.Tensor]:
        assert source.labels is not None
        kept = (source.labels >= 0).nonzero().flatten()
        return data.eval_view(source.fetch(kept)), source.labels[kept]

    (x, y), (held_out, wanted) = rows(data.train), rows(data.val)
    found = HistGradientBoostingClassifier(random_state=cfg.seed).fit(x.numpy(), y.numpy())
    return 100.0 * float(found.score(held_out.numpy(), wanted.numpy())), len(y)


if __name__ == "__main__":
    top1, labelled = accuracy(sys.argv[1:])
    print(f"gradient boosting on {labelled} labelled rows: top1 {top1:.2f} %")
