"""Rules for every test: what may be skipped, who runs what, and that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.leaks import TAG_VARIABLE, end_processes, holdings, leaks_since
from support.require import everything_is_required
from umlab.engine.select import why_not_native

pytest_plugins = ["support.scenario_count"]

INTEGRATION = Path(__file__).parent / "integration"

# A busy machine is no finding: how long an example takes, or its making, fails no test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Tag every process that the tests start, and let none of them begin with ignored signals.

    ``nohup`` and a shell's ``&`` leave signals ignored, in all children as well.
    """
    os.environ[TAG_VARIABLE] = str(uuid.uuid4())
    # Labs of the tests are nobody else's, and their sockets have short paths.
    place = tempfile.mkdtemp(prefix="uml")
    config.add_cleanup(lambda: shutil.rmtree(place))
    for variable, name in (("XDG_RUNTIME_DIR", "r"), ("XDG_STATE_HOME", "s")):
        os.environ[variable] = os.path.join(place, name)
        os.mkdir(os.environ[variable], 0o700)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say so where the tests run on the Python engine only."""
    missing = why_not_native()
    return f"the native engine is not tested: {missing}" if missing else "engines: py, native"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that only another user can run: that is no skip, the other run has them."""
    other = "needs_plain_user" if os.geteuid() == 0 else "needs_root"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker(other)]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of an integration test into a failure where everything is required."""
    report = yield
    expected = hasattr(report, "wasxfail")
    if (
        report.skipped
        and not expected
        and everything_is_required()
        and item.get_closest_marker("integration")
    ):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole integration module into a failure where everything is required."""
    report = yield
    if report.skipped and everything_is_required() and collector.path.is_relative_to(INTEGRATION):
        _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"an integration test must not be skipped under UMLAB_REQUIRE=all: {reason}"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a descriptor, thread or process behind, and end such processes."""
    before = holdings()
    yield
    if leaks := leaks_since(before):
        end_processes(before)
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Yield an empty directory of our own whose path is short enough for the sockets in it.

    A socket's path has 107 bytes at most, and pytest's ``tmp_path`` may use up most of them.
    """
    directory = Path(tempfile.mkdtemp(prefix="uml"))
    yield directory
    shutil.rmtree(directory)
