"""Commands in guests through both clients."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from support.both_clients import Shell
from support.deadline import scaled, wait_until
from support.fake_execs import FakeExecs
from support.lab_thread import LabThread
from umlab.client import AsyncClient, Client
from umlab.client import exec as client_exec
from umlab.client.exec import ExecOrder, ExecResult
from umlab.errors import (
    CommandTimeout,
    ConnectionLost,
    GuestFailed,
    LabNotRunning,
    LimitReached,
    LocalProtocolError,
    NoSuchGuest,
    StateError,
)


@pytest.fixture
def daemon(runtime: Path) -> Iterator[LabThread]:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        yield daemon


@pytest.fixture(params=["sync", "aio"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return Shell(request.param)


def sessions(daemon: LabThread) -> list[Any]:
    return daemon.call(lambda lab: list(cast(FakeExecs, lab.execs).sessions))


def test_command_runs_to_its_end(daemon: LabThread, shell: Shell) -> None:
    assert shell.ask("lan", "exec", "left", ["echo", "a"]) == ExecResult(3, b"a\n", b"an error\n")
    data = os.urandom(10 << 20)
    result = shell.ask("lan", "exec", "left", ["cat"], input=data, timeout=scaled(30))
    assert (result.status, result.stderr) == (0, b"")
    assert result.stdout == data
    facts = shell.ask("lan", "exec", "left", ["order"], environment={"A": "ü"}, directory="/srv").stdout
    assert json.loads(facts) == [{"A": "ü"}, "/srv", "none", [24, 80]]
    # What is no UTF-8 goes as well.
    assert shell.ask("lan", "exec", "left", ["echo", "ü\udcff"]).stdout == b"\xc3\xbc\xff\n"
    facts = shell.ask(
        "lan", "exec", "left", ["order"], environment={"A": "\udcff"}, directory="/\udcfe"
    ).stdout
    assert json.loads(facts) == [{"A": "\udcff"}, "/\udcfe", "none", [24, 80]]


def test_failures_are_those_of_the_daemon(
    daemon: LabThread, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandTimeout):
        shell.ask("lan", "exec", "left", ["sleep"], timeout=0.2)
    wait_until(lambda: all(each.released for each in sessions(daemon)), 10, "what runs is killed")
    with pytest.raises(GuestFailed) as failed:
        shell.ask("lan", "exec", "left", ["die"])
    assert (failed.value.status, failed.value.console_tail) == (134, "Kernel panic")
    with pytest.raises(NoSuchGuest):
        shell.ask("lan", "exec", "right", ["cat"])
    with pytest.raises(LocalProtocolError):
        shell.ask("lan", "exec", "left", [])
    with pytest.raises(LocalProtocolError):
        shell.ask("lan", "exec", "left", ["\ud800"])
    with pytest.raises(LocalProtocolError, match="name of a variable"):
        shell.ask("lan", "exec", "left", ["cat"], environment={"\udcff": ""})
    with pytest.raises(LocalProtocolError, match="at most 122880"):
        shell.ask("lan", "exec", "left", ["x" * 200_000])
    with pytest.raises(LabNotRunning):
        shell.ask("nowhere", "exec", "left", ["cat"])
    daemon.call(lambda lab: setattr(lab.held("left"), "state", "silent"))
    with pytest.raises(StateError):
        shell.ask("lan", "exec", "left", ["cat"])
    daemon.call(lambda lab: setattr(lab.held("left"), "state", "ready"))
    monkeypatch.setattr(client_exec, "MAX_OUTPUT", 1 << 20)
    with pytest.raises(LimitReached):
        shell.ask("lan", "exec", "left", ["flood"])
    wait_until(lambda: all(each.released for each in sessions(daemon)), 10, "what floods is killed")


def test_input_that_nobody_reads_holds_nobody_up(daemon: LabThread, shell: Shell) -> None:
    assert shell.ask("lan", "exec", "left", ["echo"], input=bytes(20 << 20)).status == 3


def test_blocking_streams(daemon: LabThread) -> None:
    with Client("lan") as client:
        with client.open_exec("left", ExecOrder(("tty",), input="tty", window=(5, 7))) as running:
            assert running.read() == ("stdout", b"window 5 7\r\n")
            running.resize(6, 8)
            assert running.read() == ("stdout", b"window 6 8\r\n")
            running.write(b"ls\n")
            assert running.read() == ("stdout", b"typed b'ls\\n'\r\n")
            assert running.status is None
            running.write(b"\x04")
            assert running.read(scaled(10)) is None
            assert running.status == 7
            running.signal("INT")
        with client.open_exec("left", ExecOrder(("sleep",))) as running:
            assert running.read() == ("stdout", b"asleep\n")
            running.signal("INT")
            assert running.read() is None
            assert running.status == 130


def test_blocked_writer_goes_on_when_the_command_is_left(daemon: LabThread) -> None:
    with Client("lan") as client, client.open_exec("left", ExecOrder(("sleep",), input="pipe")) as running:
        writer = threading.Thread(target=running.write, args=(bytes(30 << 20),))
        writer.start()
        assert running.read() == ("stdout", b"asleep\n")
        running.close()
        writer.join(scaled(10))
        assert not writer.is_alive()


def test_asynchronous_streams(daemon: LabThread) -> None:
    async def work() -> None:
        async with AsyncClient("lan") as client:
            async with await client.open_exec("left", ExecOrder(("cat",), input="pipe")) as running:
                await running.write(b"x")
                assert await running.read() == ("stdout", b"x")
                await running.end_input()
                assert await running.read() is None
                assert running.status == 0
            order = ExecOrder(("sleep",), input="pipe")
            async with asyncio.timeout(scaled(20)), await client.open_exec("left", order) as running:
                assert await running.read() == ("stdout", b"asleep\n")
                writing = asyncio.create_task(running.write(bytes(30 << 20)))
                await running.signal("KILL")
                while await running.read() is not None:
                    pass
                await writing
                assert running.status == 137

    asyncio.run(work())


def test_end_of_the_daemon_is_told(runtime: Path) -> None:
    with Client("lan") as client:
        with LabThread(runtime, "lan", guests=("left",)):
            running = client.open_exec("left", ExecOrder(("sleep",)))
            assert running.read() == ("stdout", b"asleep\n")
        with running, pytest.raises(ConnectionLost):
            running.read()
