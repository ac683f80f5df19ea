"""What the doctor has found, on one host or many, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    text: str
    fix: str = ""  # what to change, and how; nothing: it is fine
    fault: bool = False  # a training fails for it; otherwise it is slower than it need be


def fault(name: str, text: str, fix: str) -> Finding:
    return Finding(name, text, fix, fault=True)


def merged(by_host: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """The findings of several hosts as those of one.

    Args:
        by_host: What each of them has found, the same names in the same order.

    Returns:
        For each name what is to be changed, with the hosts that it concerns; where nothing is, what the first host has
        found.
    """
    found = []
    for name in dict.fromkeys(one.name for own in by_host.values() for one in own):
        hosts = {host: one for host, own in by_host.items() for one in own if one.name == name}
        bad = {host: one for host, one in hosts.items() if one.fix}
        if len(hosts) == len(by_host) and len(set(hosts.values())) == 1:
            found.append(next(iter(hosts.values())))
        elif bad:
            found += [one._replace(text=f"{host}: {one.text}") for host, one in bad.items()]
        else:
            host, one = next(iter(hosts.items()))
            found.append(one._replace(text=f"{host}: {one.text}; nothing to change on the others"))
    return found


def report(findings: Sequence[Finding]) -> list[str]:
    """A line for each; what is wrong begins with a cross, what is slow with an exclamation mark."""
    marks = {(True, True): "x", (False, True): "!", (False, False): " "}
    return [f"{marks[one.fault, bool(one.fix)]} {one.name:14} {one.text}" for one in findings]


def verdict(findings: Sequence[Finding]) -> list[str]:
    """What is fine, what must be changed and what could be, with the way to do it."""
    faults = [one for one in findings if one.fault]
    slow = [one for one in findings if one.fix and not one.fault]
    fine = ", ".join(dict.fromkeys(one.name for one in findings if not one.fix))
    if not faults and not slow:
        return ["Verdict: all is well, a training can start."]
    lines = [f"Verdict: fine: {fine or 'nothing'}."]
    if faults:
        lines += ["To change before a training starts:", *_fixes(faults)]
    if slow:
        lines += ["Better still:" if faults else "A training can start; better still:", *_fixes(slow)]
    return lines


def _fixes(findings: Sequence[Finding]) -> list[str]:
    told = (f"{one.name}: {one.fix}" for one in findings)
    return ["  " + text.replace("\n", "\n    ") for text in dict.fromkeys(told)]


def amount(number: float) -> str:
    """``24.1 GB``: bytes for people, in powers of ten."""
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= step:
            return f"{number / step:.3g} {unit}"
    return f"{number:.0f} B"


def short(seconds: float) -> str:
    """``1.2 s``, ``35 ms``, ``140 us``."""
    for unit, step in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= step:
            return f"{seconds / step:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
