"""A pytest plug-in: says in the summary how many scenarios ran on which engine.

Where everything is required, a run of scenarios of which none met the native engine is a failure:
nothing would have been compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from support.require import everything_is_required

#: The user property of a test report that holds (engine, number of scenarios).
PROPERTY = "scenarios"

_counts: Counter[str] = Counter()


@pytest.fixture
def count_scenario(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function to call with an engine's name after each scenario that it has run."""
    return lambda kind: record_property(PROPERTY, (kind, 1))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what a test reports, in the process that prints the summary as well."""
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == PROPERTY:
                kind, count = value
                _counts[kind] += count


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which the native engine should have been compared and was not."""
    if _native_is_missed():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers."""
    if not _counts:
        return
    terminalreporter.write_sep("=", "scenarios compared with the core")
    terminalreporter.write_line(", ".join(f"{kind}: {_counts[kind]}" for kind in sorted(_counts)))
    if _native_is_missed():
        terminalreporter.write_line("no scenario ran on the native engine (required here: UMLAB_REQUIRE=all)")


def _native_is_missed() -> bool:
    return bool(_counts) and not _counts["native"] and everything_is_required()
