from __future__ import annotations

import pytest

from ssl_zoo.doctor.findings import Finding, amount, fault, merged, report, short, verdict

FINE = Finding("cores", "2 of 2 for a process")
SLOW = Finding("disk", "10 MB/s", "write elsewhere")
BROKEN = fault("devices", "none", "install some")


def test_lines_are_marked_by_how_bad_they_are() -> None:
    assert report([FINE, SLOW, BROKEN]) == [
        "  cores          2 of 2 for a process",
        "! disk           10 MB/s",
        "x devices        none",
    ]


def test_the_verdict_says_what_is_fine_and_what_to_change() -> None:
    assert verdict([FINE]) == ["Verdict: all is well, a training can start."]
    assert verdict([FINE, SLOW]) == [
        "Verdict: fine: cores.", "A training can start; better still:", "  disk: write elsewhere",
    ]  # fmt: skip
    assert verdict([FINE, SLOW, BROKEN]) == [
        "Verdict: fine: cores.", "To change before a training starts:", "  devices: install some",
        "Better still:", "  disk: write elsewhere",
    ]  # fmt: skip
    assert verdict([BROKEN])[0] == "Verdict: fine: nothing."


def test_hosts_that_say_the_same_are_one_line() -> None:
    assert merged({"a": [FINE, BROKEN], "b": [FINE, BROKEN]}) == [FINE, BROKEN]


def test_of_several_hosts_those_with_a_fault_are_named() -> None:
    assert merged({"a": [FINE], "b": [FINE._replace(text="1 of 2")], "c": [FINE]}) == [
        FINE._replace(text="a: 2 of 2 for a process; nothing to change on the others")
    ]
    other = BROKEN._replace(text="one too few")
    fine = Finding("devices", "8")
    assert [one.text for one in merged({"a": [fine], "b": [BROKEN], "c": [other]})] == ["b: none", "c: one too few"]


def test_what_one_host_alone_has_found_names_it() -> None:
    assert merged({"a": [FINE], "b": [FINE, BROKEN]}) == [FINE, BROKEN._replace(text="b: none")]


@pytest.mark.parametrize(
    "number, told", [(12, "12 B"), (4096, "4.1 kB"), (19267584, "19.3 MB"), (66.7e9, "66.7 GB"), (2e12, "2 TB")]
)
def test_amounts(number: float, told: str) -> None:
    assert amount(number) == told


@pytest.mark.parametrize("seconds, told", [(17.41, "17.4 s"), (0.0961, "96.1 ms"), (3.86e-4, "386 us")])
def test_times(seconds: float, told: str) -> None:
    assert short(seconds) == told
