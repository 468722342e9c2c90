"""The clients against the real API: terminals, events, the lab that they manage together."""

from __future__ import annotations

import asyncio
import os
import termios
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import pytest

from support.both_clients import Shell
from support.deadline import scaled, wait_until
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.api import server
from umlab.client import AsyncClient, Client, Event, labs
from umlab.client.terminal import AsyncTerminal, Terminal, TerminalOptions
from umlab.daemon.device_order import DeviceOrder
from umlab.daemon.view import DeviceView, GuestVitals
from umlab.errors import (
    AlreadyExists,
    ApiError,
    ApiTimeout,
    ConnectionLost,
    LabError,
    LabNotRunning,
    LimitReached,
    NoSuchConsole,
    NoSuchDevice,
    NoSuchGuest,
    NoSuchPort,
    NoSuchSwitch,
    StateError,
    SwitchError,
)
from umlab.guest.cmdline import BessNic, DaemonNic, DiskRoot, GuestSpec
from umlab.guest.device import Disk
from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet


def test_lab_is_managed(shell: Shell, runtime: Path) -> None:
    """One call of each kind, and the errors as the API really writes them."""
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1))
        assert labs() == ["lan"]
        assert shell.ask("lan", "lab").switches == ("lan",)
        assert shell.ask("lan", "set_switch", "lan", hub=True).changed
        ports, tap = {1: PortConfig(PortVlan.access(10))}, MirrorSession("tap", 1, vids=VidSet.of([10]))
        assert shell.ask("lan", "set_switch", "lan", ports=ports, mirrors={"tap": tap}).changed
        assert shell.ask("lan", "switch", "lan").config == SwitchConfig(hub=True, ports=ports, mirrors=(tap,))
        with pytest.raises(SwitchError, match="at port 7"):
            shell.ask("lan", "set_switch", "lan", ports={7: ports[1]})
        # Long before the daemon has read that to its end.
        many = PortConfig(PortVlan.trunk(VidSet.of(range(1, 4095, 2))))
        with pytest.raises(ApiError, match="a body has at most"):
            shell.ask("lan", "set_switch", "lan", ports=dict.fromkeys(range(1, 500), many), ahead=True)
        assert [port.port_no for port in shell.ask("lan", "ports", "lan")] == [1]
        assert shell.ask("lan", "flush_fdb", "lan", 1).changed
        assert shell.ask("lan", "fdb", "lan") == []
        assert shell.ask("lan", "remove_port", "lan", 1).changed
        with pytest.raises(NoSuchPort):
            shell.ask("lan", "port", "lan", 1)
        with pytest.raises(NoSuchSwitch, match="other"):
            shell.ask("lan", "switch", "other")
        assert b"umlab" in shell.ask("lan", "metrics").encode()


def test_guest_is_managed(shell: Shell, runtime: Path) -> None:
    nics = (DaemonNic("/run/lan.ctl", "02:00:00:00:00:01"), BessNic("/run/lan.bess", mtu=9000))
    spec = GuestSpec("left", root=DiskRoot("/srv/left.cow", "/srv/x.img"), nics=nics, writable=("/srv",))
    with LabThread(runtime, "lan") as daemon:
        assert shell.ask("lan", "put_guest", spec).changed
        assert daemon.call(lambda lab: lab.guest_by_name["left"].spec) == spec
        assert not shell.ask("lan", "put_guest", spec).changed
        with pytest.raises(AlreadyExists):
            shell.ask("lan", "put_guest", GuestSpec("left"))
        assert shell.ask("lan", "guest", "left").state == "ready"
        assert shell.ask("lan", "put_device", "left", "eth1", "daemon,,unix,/x").changed
        assert shell.ask("lan", "device", "left", "eth1").setting == "daemon,,unix,/x"
        disk = DeviceOrder(disk=Disk("/srv/x.img", read_only=True))
        added = DeviceView("ubdb", "r=/srv/x.img", "disk")
        assert shell.ask("lan", "add_device", "left", disk) == added
        assert shell.ask("lan", "device", "left", "ubd1") == added
        assert shell.ask("lan", "reset_device", "left", "eth1").changed
        with pytest.raises(NoSuchDevice, match="guest left has no device eth9"):
            shell.ask("lan", "device", "left", "eth9")
        with pytest.raises(LabError, match="eth2: there is no transport 'dæmon'"):
            shell.ask("lan", "put_device", "left", "eth2", "dæmon")
        assert shell.ask("lan", "stack", "left", 3) == "stack of 3"
        assert shell.ask("lan", "sysrq", "left", "m") == "sysrq m"
        assert shell.ask("lan", "vitals", "left").load == (0.5, 0.25, 0.0)
        daemon.call(lambda lab: setattr(lab.guest_by_name["left"], "vitals", GuestVitals("left", "silent")))
        assert shell.ask("lan", "vitals", "left") == GuestVitals("left", "silent")
        assert shell.ask("lan", "mconsole", "left", "proc uptime") == "mconsole proc uptime"
        assert shell.ask("lan", "log", "left", 6, 7).data == b"version"
        assert shell.ask("lan", "remove_guest", "left").changed
        with pytest.raises(NoSuchGuest):
            shell.ask("lan", "guest", "left")


def test_log_is_followed_until_the_guest_ends(shell: Shell, runtime: Path) -> None:
    taken: list[bytes] = []
    follow = lambda: shell.take(99, "lan", "follow_log", "left", into=taken)  # noqa: E731
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        thread = threading.Thread(target=follow)
        thread.start()
        wait_until(lambda: taken, 30, "what was printed before")
        daemon.call(lambda lab: lab.guest_by_name["left"].print(b"Booting\n"))
        daemon.call(lambda lab: lab.guest_by_name["left"].end())
        thread.join(scaled(30))
    assert b"".join(taken) == b"Linux version 6.1\nBooting\n"


def test_events_survive_another_daemon(shell: Shell, runtime: Path) -> None:
    """The second daemon is a new one with its own numbers: what lies between is told as lost."""
    taken: list[Event] = []
    thread = threading.Thread(target=lambda: shell.take(3, "lan", "events", "oldest", into=taken))
    with LabThread(runtime, "lan") as daemon:
        daemon.call(lambda lab: lab.events.publish({"event": "learned", "n": 1}))
        thread.start()
        wait_until(lambda: taken, 30, "the first event")
    with LabThread(runtime, "lan") as daemon:
        daemon.call(lambda lab: lab.events.publish({"event": "moved", "n": 2}))
        thread.join(scaled(30))
    assert [event.kind for event in taken] == ["learned", "lost", "moved"]
    assert taken[1].data == {"count": None}
    assert taken[2].data["n"] == 2


def test_kept_events_end_where_nothing_more_has_happened(shell: Shell, runtime: Path) -> None:
    with LabThread(runtime, "lan") as daemon:
        assert shell.take(9, "lan", "events", "oldest", follow=False) == []

        def publish(lab: FakeLab) -> None:
            for number in range(3):
                lab.events.publish({"event": "moved", "n": number})

        daemon.call(publish)
        events = shell.take(9, "lan", "events", "oldest", follow=False)
        assert shell.take(9, "lan", "events", "now", follow=False) == []
    assert [event.data["n"] for event in events] == [0, 1, 2]


class BothTerminals:
    """The blocking and the asyncio terminal, called in the same way."""

    def __init__(
        self, kind: str, lab: str, guest: str, console: str, **options: Unpack[TerminalOptions]
    ) -> None:
        self._runner = asyncio.Runner() if kind == "aio" else None
        self._terminal: Terminal | AsyncTerminal
        try:
            if self._runner:
                self._terminal = self._runner.run(AsyncClient(lab).terminal(guest, console, **options))
            else:
                self._terminal = Client(lab).terminal(guest, console, **options)
        except BaseException:
            if self._runner:
                self._runner.close()
            raise

    def __enter__(self) -> BothTerminals:
        if isinstance(self._terminal, Terminal):
            self._terminal.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.do("close")
        if self._runner:
            self._runner.close()

    @property
    def size(self) -> tuple[int, int]:
        return self._terminal.size

    def do(self, method: str, *args: Any) -> Any:
        result = getattr(self._terminal, method)(*args)
        return self._runner.run(result) if self._runner else result

    def read_until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            piece = self.do("read")
            assert piece, data
            data += piece
        return data


def _line(daemon: LabThread) -> int:
    """Return the guest's end of the terminal that a viewer has opened."""

    def line(lab: FakeLab) -> int:
        return lab.guest_by_name["left"].line

    wait_until(lambda: daemon.call(line) >= 0, 30, "a viewer")
    return daemon.call(line)


def test_terminal_carries_bytes_and_its_size(shell: Shell, runtime: Path) -> None:
    with (
        LabThread(runtime, "lan", guests=("left",)) as daemon,
        BothTerminals(shell.kind, "lan", "left", "con1", picture=False) as terminal,
    ):
        line = _line(daemon)
        attributes = termios.tcgetattr(line)
        attributes[1] = attributes[3] = 0
        termios.tcsetattr(line, termios.TCSANOW, attributes)
        os.write(line, b"login: \xff\x1b[m")
        assert terminal.read_until(b"\x1b[m") == b"login: \xff\x1b[m"
        terminal.do("write", b"root\n")
        assert os.read(line, 99) == b"root\n"
        terminal.do("resize", 50, 132)
        wait_until(lambda: tuple(os.get_terminal_size(line)) == (132, 50), 30, "the new size")
        daemon.call(lambda lab: lab.guest_by_name["left"].end())
        assert terminal.do("read") == b""
        with pytest.raises(StateError, match="left: con1 is closed: the guest has ended"):
            terminal.do("write", b"x")


def test_terminal_that_is_only_looked_at(shell: Shell, runtime: Path) -> None:
    with (
        LabThread(runtime, "lan", guests=("left",)) as daemon,
        BothTerminals(shell.kind, "lan", "left", "con1", window=(7, 30)) as writer,
        BothTerminals(shell.kind, "lan", "left", "con1", role="read") as terminal,
    ):
        assert b"\x1b[2J" in writer.do("read")
        assert writer.size == (7, 30)
        assert b"\x1b[2J" in terminal.do("read")
        os.write(_line(daemon), b"seen")
        assert terminal.read_until(b"seen") == b"seen"
        assert terminal.size == (7, 30)
        for method, args in (("write", (b"x",)), ("resize", (1, 1))):
            terminal.do(method, *args)
            with pytest.raises(ApiError, match="only reads"):
                terminal.do("read")
        screen = shell.ask("lan", "screen", "left", "con1")
        assert (screen.lines[0], screen.cursor_column) == ("seen", 5)


@pytest.mark.parametrize(
    ("guest", "console", "error"), [("right", "con1", NoSuchGuest), ("left", "con9", NoSuchConsole)]
)
def test_terminal_that_is_not_there(
    guest: str, console: str, error: type[Exception], shell: Shell, runtime: Path
) -> None:
    with (
        LabThread(runtime, "lan", guests=("left",)),
        BothTerminals(shell.kind, "lan", guest, console) as terminal,
        pytest.raises(error),
    ):
        terminal.do("read")


def test_refused_input_is_told_and_the_terminal_goes_on(shell: Shell, runtime: Path) -> None:
    with (
        LabThread(runtime, "lan", guests=("left",)) as daemon,
        BothTerminals(shell.kind, "lan", "left", "con1", picture=False) as terminal,
    ):
        line = _line(daemon)
        terminal.do("write", b"x" * 100_000)
        with pytest.raises(LimitReached, match="does not read"):
            terminal.do("read")
        os.write(line, b"still here")
        assert terminal.read_until(b"here")


def test_terminal_ends_with_its_daemon(shell: Shell, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_TIME", 0.05)
    with (
        ExitStack() as stack,
        LabThread(runtime, "lan", guests=("left",)) as daemon,
    ):
        terminal = stack.enter_context(BothTerminals(shell.kind, "lan", "left", "con1", picture=False))
        _line(daemon)
        ended = stack.enter_context(pytest.raises(ConnectionLost))
        stack.callback(lambda: terminal.do("read"))
    assert "lan" in str(ended.value)


def test_waiting_for_output_has_a_limit(runtime: Path) -> None:
    with (
        LabThread(runtime, "lan", guests=("left",)),
        Client("lan").terminal("left", "con1", picture=False) as terminal,
        pytest.raises(ApiTimeout),
    ):
        terminal.read(0.05)


def test_terminal_without_a_daemon(shell: Shell, runtime: Path) -> None:
    with pytest.raises(LabNotRunning):
        BothTerminals(shell.kind, "lan", "left", "con1")
