"""What the fuzz tests have tried, printed below the results, whatever is captured and in whichever process it ran."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Call it with one line for the end of the output."""
    return lambda line: record_property("fuzz", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found = ((name, line) for report in reports for name, line in report.user_properties)
    lines = [str(line) for name, line in found if name == "fuzz"]
    if lines:
        terminalreporter.section("fuzz")
        for line in lines:
            terminalreporter.line(line)
