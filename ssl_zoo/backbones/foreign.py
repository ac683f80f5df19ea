"""Where a network lies in a file of weights: below which name, among which other parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ssl_zoo.errors import ConfigError

# Of several copies in one file, the one that the authors judge: MoCo's query, MoCo v3's base, BYOL's online network,
# the teachers of DINO, iBOT and their kind, I-JEPA's target. Else the one with the shortest name.
JUDGED = ("encoder_q", "base_encoder", "online", "teacher", "target_encoder")
SHOWN = 4  # names in a message


class Part(NamedTuple):
    """A network out of a file."""

    prefix: str  # below which it lies, with its last dot; empty: the file holds nothing else
    state: dict[str, Tensor]  # by the network's own names, with heads of its own that the network does not have
    others: list[str]  # prefixes below which the same names lie


def flat(file: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor below names, by its path; what lies in lists or below numbers (optimizers) is no weight."""
    if isinstance(file, Tensor):
        yield prefix, file
    elif isinstance(file, Mapping):
        for key, value in file.items():
            if isinstance(key, str) and key != "optimizer":
                yield from flat(value, f"{prefix}.{key}" if prefix else key)


def find(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, asked: str | None = None) -> Part:
    """The part of a file whose names are most of a network's.

    Args:
        tensors: Of the file, by path.
        own: Of the network.
        source: What to call the file.
        asked: Prefix that the user wants; None: the best, of equal ones as :data:`JUDGED` has them.

    Raises:
        ConfigError: If none of the names is the network's, or nothing lies below the prefix that was asked for.
    """
    found = _prefixes(tensors, own)
    if not found:
        raise ConfigError(
            f"weights={source}: none of its {len(tensors)} tensors ({_few(list(tensors))}) has the name of one of the "
            f"network's ({_few(list(own))}); choose the backbone of these weights, or rename them"
        )
    most = max(found.values())
    equal = [prefix for prefix, count in found.items() if count == most]
    if asked is not None:
        equal = [prefix for prefix, count in found.items() if 2 * count > most]  # copies that may lack something
        if not any(prefix.strip(".") == asked.strip(".") for prefix in equal):
            raise ConfigError(f"weights={source}#{asked}: no network lies there; wanted {_few(_shown(equal))}")
    asks = [prefix for prefix in equal if asked is None or prefix.strip(".") == asked.strip(".")]
    prefix = min(asks, key=lambda each: (_rank(each), len(each)))
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return Part(prefix, state, [each for each in equal if each != prefix])


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Counter[str]:
    """How many of the network's names lie below each prefix."""
    ends: dict[str, list[str]] = {}
    for name in own:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    found: Counter[str] = Counter()
    for path in tensors:
        for name in ends.get(path.rpartition(".")[2], ()):
            if path == name or path.endswith(f".{name}"):
                found[path.removesuffix(name)] += 1
    return found


def _rank(prefix: str) -> int:
    return next((i for i, word in enumerate(JUDGED) if word in prefix), len(JUDGED))


def left(tensors: Mapping[str, Tensor], taken: str, unused: list[str]) -> str:
    """What of a file is not used, by parts and numbers of tensors, in words; empty: nothing is left.

    Args:
        tensors: Of the file, by path.
        taken: Prefix of the part that is used.
        unused: Names in this part that the network does not have.
    """
    parts: Counter[str] = Counter()
    steps = taken.split(".")[:-1]
    for path in tensors:
        if not path.startswith(taken):
            words = path.split(".")
            shared = next(i for i in range(len(steps) + 1) if words[: i + 1] != steps[: i + 1])
            parts[".".join(words[: shared + 1])] += 1
    for name in unused:
        parts[taken + name.partition(".")[0]] += 1
    told = [f"{part} ({count})" for part, count in parts.most_common()]
    return _few(told)


def _shown(prefixes: list[str]) -> list[str]:
    return [prefix.strip(".") or "'' (the file itself)" for prefix in prefixes]


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
