"""All checks together: one that cannot look stops no other, and a bug is not hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlab.guest.kernel.config import TransportSupport
from umlab.lab.doctor import guest, registry
from umlab.lab.doctor.finding import Finding, Status, Subject, Verdict
from umlab.lab.doctor.registry import run_checks


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject("/nonexistent/linux", str(tmp_path / "run"), str(tmp_path / "state"))


def test_check_that_cannot_look_stops_no_other(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: Subject) -> Verdict:
        raise PermissionError(13, "Permission denied", "/proc/x")

    monkeypatch.setattr(
        registry, "_OF_MACHINE", {"first": unreadable, "second": lambda _: Verdict(Status.OK, "fine")}
    )
    kernel, first, second = run_checks(subject)
    assert (kernel.name, kernel.status) == ("kernel", Status.FAIL)
    assert (first.name, first.status) == ("first", Status.WARN)
    assert "/proc/x" in first.detail
    assert second == Finding("second", Status.OK, "fine", "")


def test_bug_in_a_check_is_not_a_finding(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: Subject) -> Verdict:
        raise AssertionError("a bug")

    monkeypatch.setattr(registry, "_OF_MACHINE", {"wrong": wrong})
    with pytest.raises(AssertionError, match="a bug"):
        run_checks(subject)


@pytest.mark.parametrize(
    ("support", "verdict"),
    [
        ({"daemon": (), "bess": ()}, Verdict(Status.OK, "daemon, bess")),
        ({"daemon": ("CONFIG_A",), "bess": ()}, Verdict(Status.OK, "bess; no daemon: without CONFIG_A")),
        (
            {"daemon": ("CONFIG_A", "CONFIG_B"), "bess": ("CONFIG_C",)},
            Verdict(
                Status.FAIL,
                "its guests cannot be attached to a switch: "
                "no daemon: without CONFIG_A, CONFIG_B; no bess: without CONFIG_C",
                "install the package user-mode-linux, or name another kernel with --kernel",
            ),
        ),
    ],
)
def test_transports_are_told_with_what_the_others_lack(
    support: dict[str, tuple[str, ...]], verdict: Verdict
) -> None:
    given = [TransportSupport(kind, missing) for kind, missing in support.items()]
    assert guest.judge_transports(given) == verdict
