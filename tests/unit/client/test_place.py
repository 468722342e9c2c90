"""Which labs live, and how a daemon is reached."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.deadline import scaled
from support.fake_api import FakeApi, Reply
from umlab.client import labs, survey
from umlab.client.place import dial, socket_path
from umlab.errors import ApiTimeout, LabError, LabNotRunning


@pytest.fixture
def hung(runtime: Path) -> Iterator[str]:
    """A daemon that accepts nobody."""
    path = socket_path("hung")
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        yield "hung"


def test_no_lab_makes_no_directory(runtime: Path) -> None:
    assert labs() == []
    assert list(runtime.iterdir()) == []


def test_only_labs_that_answer_are_found(runtime: Path, hung: str) -> None:
    for name in ("dead", "no socket"):
        (runtime / "umlab" / name).mkdir()
    (runtime / "umlab/file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path("dead")))
    with FakeApi(runtime, "b", lambda _: Reply([])), FakeApi(runtime, "a", lambda _: Reply([])):
        begin = time.monotonic()
        assert labs() == ["a", "b"]
        assert time.monotonic() - begin < scaled(2)


def test_hung_daemons_together_cost_one_time_limit(
    runtime: Path, hung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "ANSWER_TIME", 0.3)
    with ExitStack() as stack:
        for number in range(20):
            path = socket_path(f"hung{number}")
            path.parent.mkdir()
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen(8)
        begin = time.monotonic()
        assert labs() == []
        assert 0.3 <= time.monotonic() - begin < 20 * 0.3


def test_daemon_that_takes_no_connection_is_hung(hung: str) -> None:
    with dial(hung), pytest.raises(ApiTimeout, match="hung"):
        dial(hung)


@pytest.mark.parametrize("lab", ["nowhere", "file"])
def test_lab_without_a_socket_does_not_run(lab: str, runtime: Path) -> None:
    (runtime / "umlab").mkdir()
    (runtime / "umlab/file").touch()
    with pytest.raises(LabNotRunning, match="umlab switch run"):
        dial(lab)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 25])
def test_impossible_name_is_refused(name: str, runtime: Path) -> None:
    with pytest.raises(LabError, match="not usable"):
        dial(name)


def test_socket_of_another_user_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    with FakeApi(runtime, "lan", lambda _: Reply([])):
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(LabError, match=f"served by user {own}"):
            dial("lan")
        assert labs() == []
