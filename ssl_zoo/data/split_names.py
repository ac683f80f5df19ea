"""What people call the parts of a data set: ``Train``, ``training_set``, ``valid``, ``test2017``."""

from __future__ import annotations

import re
from typing import Literal

Split = Literal["train", "val", "test"]
NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
BESIDE = {"set", "split", "data", "image", "images", "imgs", "samples"}  # words that say nothing more


def split_of(name: str) -> Split | None:
    """The part that a folder, or a value of a table, means; None: none, so that it may be a class."""
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word and word not in BESIDE]
    if len(words) != 1:
        return None
    return NAMES.get(re.sub(r"(19|20)\d\d$", "", words[0]).removesuffix("set"))
