"""The two clients: what they send, what they return, and how they bear a daemon that fails them."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from support.both_clients import Shell
from support.fake_api import Asked, FakeApi, Reply, refused
from umlab.capture.talkers import Talker, TalkerPair, Talkers
from umlab.client import AsyncClient, Client, Event, call, event
from umlab.daemon.device_order import DeviceOrder, SwitchNic
from umlab.daemon.spec import SwitchSpec
from umlab.daemon.view import (
    Change,
    ConsoleView,
    DeviceView,
    FdbEntryView,
    GuestView,
    GuestVitals,
    HookView,
    LabView,
    ListenerView,
    LogPiece,
    LogTime,
    PortView,
    ProcessView,
    ScreenView,
    SwitchView,
)
from umlab.errors import (
    ApiError,
    ApiTimeout,
    ConnectionLost,
    LabNotRunning,
    MconsoleError,
    NoSuchGuest,
    StateError,
)
from umlab.guest.cmdline import BessNic, GuestSpec, TinyRoot
from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan
from umlab.transports.contract import Argument

LAB = LabView("lan", "0.1.0", 7, 8, 1.5, ("lan",), ("left",))
SWITCH = SwitchView(
    "lan",
    "py",
    SwitchConfig(hub=True),
    (ListenerView("bess", "/x", (Argument("uml", "vec0:", "bess"),)),),
    1,
    1,
    {"learned": 2},
)
PORT = PortView(
    1, "daemon", "v3", "up", 9, 0, "root", "left", "left", ("02:00:00:00:00:01",), 1, 0, {"rx_frames": 4}
)
ENTRY = FdbEntryView("02:00:00:00:00:01", 1, 2.5, 10)
TALKERS = Talkers(
    2.5,
    3,
    180,
    (Talker("02:00:00:00:00:01", 3, 180),),
    (TalkerPair("02:00:00:00:00:01", "02:00:00:00:00:02", 3, 180),),
)
GUEST = GuestView("left", "ready", 9, None, "/usr/bin/linux", 1 << 27, 2.5, ("con0", "con1"), "/x/mconsole")
VITALS = GuestVitals("left", "answers", 0.5, "6.1.176", 9.5, (0.5, 0.25, 0.0), 1 << 27, 1 << 20, 0.25)
CONSOLE = ConsoleView("con1", "terminal", 1, 2)
DEVICE = DeviceView("eth0", "daemon,,unix,/x", "nic", "lan", 3)
HOOK = HookView("mail", ("guest_panicked",), "web*", ("/usr/bin/mail", "-s", "x"), "/x/hook-mail.log")
HOOK_BODY = {"on": ["guest_panicked"], "guests": "web*", "run": ["/usr/bin/mail", "-s", "x"]}
CHANGED = Change(True)
SPEC = GuestSpec("left", root=TinyRoot(("dummy",)), nics=(BessNic("/x/lan.bess"),))
SPEC_BODY = {key: value for key, value in asdict(SPEC).items() if key != "umid"} | {
    "root": {"modules": ["dummy"]},
    "nics": [{"path": "/x/lan.bess", "mac": None, "mtu": None}],
    "extra": [],
    "writable": [],
}
SWITCH_SPEC = SwitchSpec("lan", SwitchConfig(), ("bess:/x",))

#: Method, its arguments, the request, the answer, the result.
CALLS: list[tuple[str, tuple[Any, ...], str, Any, Any, Any]] = [
    ("lab", (), "GET /v1/labs/lan", None, LAB, LAB),
    ("switches", (), "GET /v1/switches", None, [SWITCH], [SWITCH]),
    ("switch", ("lan",), "GET /v1/switches/lan", None, SWITCH, SWITCH),
    (
        "put_switch",
        (SWITCH_SPEC,),
        "PUT /v1/switches/lan",
        {
            "config": asdict(SwitchConfig()) | {"mirrors": []},
            "listen": ["bess:/x"],
            "access": {"mode": 0o600, "gid": None, "uids": [], "gids": []},
            "recorder": 16 << 20,
            "lldp": False,
        },
        CHANGED,
        CHANGED,
    ),
    ("remove_switch", ("lan",), "DELETE /v1/switches/lan", None, CHANGED, CHANGED),
    ("ports", ("lan",), "GET /v1/switches/lan/ports", None, [PORT], [PORT]),
    ("port", ("lan", 1), "GET /v1/switches/lan/ports/1", None, PORT, PORT),
    ("remove_port", ("lan", 1), "DELETE /v1/switches/lan/ports/1", None, Change(False), Change(False)),
    ("fdb", ("lan",), "GET /v1/switches/lan/fdb", None, [ENTRY], [ENTRY]),
    ("flush_fdb", ("lan",), "DELETE /v1/switches/lan/fdb", None, CHANGED, CHANGED),
    ("flush_fdb", ("lan", 3), "DELETE /v1/switches/lan/fdb?port_no=3", None, CHANGED, CHANGED),
    ("talkers", ("lan",), "GET /v1/switches/lan/talkers?seconds=10&count=10", None, TALKERS, TALKERS),
    ("guests", (), "GET /v1/guests", None, [GUEST], [GUEST]),
    ("guest", ("a/../b?",), "GET /v1/guests/a%2F..%2Fb%3F", None, GUEST, GUEST),
    ("guest", ("\udcff",), "GET /v1/guests/%5Cudcff", None, GUEST, GUEST),
    ("put_guest", (SPEC,), "PUT /v1/guests/left", SPEC_BODY, CHANGED, CHANGED),
    ("remove_guest", ("left",), "DELETE /v1/guests/left", None, CHANGED, CHANGED),
    ("consoles", ("left",), "GET /v1/guests/left/consoles", None, [CONSOLE], [CONSOLE]),
    (
        "screen",
        ("left", "con1"),
        "GET /v1/guests/left/consoles/con1/screen",
        None,
        ScreenView(1, 9, ("login:",), 1, 7, True, False),
        ScreenView(1, 9, ("login:",), 1, 7, True, False),
    ),
    (
        "log_times",
        ("left", 5, None, 9, "con1"),
        "GET /v1/guests/left/log/times?console=con1&start=5&limit=9",
        None,
        [LogTime(0, 1.5)],
        [LogTime(0, 1.5)],
    ),
    (
        "log_times",
        ("left", 0, 2.5),
        "GET /v1/guests/left/log/times?console=con0&start=0&since=2.5&limit=1000",
        None,
        [],
        [],
    ),
    ("devices", ("left",), "GET /v1/guests/left/devices", None, [DEVICE], [DEVICE]),
    ("device", ("left", "eth0"), "GET /v1/guests/left/devices/eth0", None, DEVICE, DEVICE),
    (
        "put_device",
        ("left", "eth0", "daemon"),
        "PUT /v1/guests/left/devices/eth0",
        {"setting": "daemon"},
        CHANGED,
        CHANGED,
    ),
    (
        "put_device",
        ("left", "vec0", DeviceOrder(nic=SwitchNic("lan", mtu=9000))),
        "PUT /v1/guests/left/devices/vec0",
        {"nic": {"switch": "lan", "transport": None, "mac": None, "mtu": 9000}},
        CHANGED,
        CHANGED,
    ),
    (
        "add_device",
        ("left", DeviceOrder(console="pty")),
        "POST /v1/guests/left/devices",
        {"console": "pty"},
        DEVICE,
        DEVICE,
    ),
    (
        "reset_device",
        ("left", "eth0"),
        "POST /v1/guests/left/devices/eth0/reset",
        {"down": False},
        CHANGED,
        CHANGED,
    ),
    ("remove_device", ("left", "eth0"), "DELETE /v1/guests/left/devices/eth0", None, CHANGED, CHANGED),
    ("stack", ("left", 1), "POST /v1/guests/left/stack", {"pid": 1}, {"output": "a\n"}, "a\n"),
    ("sysrq", ("left", "m"), "POST /v1/guests/left/sysrq", {"letter": "m"}, {"output": "ok"}, "ok"),
    (
        "processes",
        ("left",),
        "GET /v1/guests/left/processes",
        None,
        [{"pid": 1, "name": "init"}],
        [ProcessView(1, "init")],
    ),
    ("vitals", ("left",), "GET /v1/guests/left/vitals", None, VITALS, VITALS),
    (
        "mconsole",
        ("left", "proc uptime", 2.5),
        "POST /v1/guests/left/mconsole",
        {"command": "proc uptime", "timeout": 2.5},
        {"output": "1.5 0.5\n"},
        "1.5 0.5\n",
    ),
    ("hooks", (), "GET /v1/hooks", None, [HOOK], [HOOK]),
    ("hook", ("mail",), "GET /v1/hooks/mail", None, HOOK, HOOK),
    ("put_hook", ("mail", HOOK.on, HOOK.run, "web*"), "PUT /v1/hooks/mail", HOOK_BODY, CHANGED, CHANGED),
    ("remove_hook", ("mail",), "DELETE /v1/hooks/mail", None, CHANGED, CHANGED),
    ("metrics", (), "GET /metrics", None, b"# HELP\n", "# HELP\n"),
]


@pytest.mark.parametrize("case", CALLS, ids=lambda case: f"{case[0]}{len(case[1])}")
def test_call_asks_and_returns(case: tuple[Any, ...], shell: Shell, runtime: Path) -> None:
    method, args, request, body, answer, result = case
    with FakeApi(runtime, "lan", lambda _: Reply(answer)) as api:
        assert shell.ask("lan", method, *args) == result
    (asked,) = api.requests
    assert f"{asked.method} {asked.target}" == request
    assert asked.body == body


def test_both_clients_have_the_same_methods() -> None:
    public = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public[0] == public[1]
    tested = {case[0] for case in CALLS}
    elsewhere = {
        *("run", "close", "stop", "events", "log", "follow_log", "terminal", "capture", "set_switch"),
        *("exec", "open_exec"),
    }
    assert public[0] == tested | elsewhere
    for name in public[0]:
        assert inspect.getdoc(getattr(Client, name))


def test_set_switch_sends_what_changes_and_no_more(shell: Shell, runtime: Path) -> None:
    with FakeApi(runtime, "lan", lambda _: Reply(CHANGED)) as api:
        assert shell.ask("lan", "set_switch", "lan", hub=True, max_frame=1518) == CHANGED
    assert api.requests[0].method == "PATCH"
    assert api.requests[0].body == {"hub": True, "max_frame": 1518}


def test_set_switch_sends_ports_and_sessions_in_their_form(shell: Shell, runtime: Path) -> None:
    ports = {1: PortConfig(PortVlan.access(10)), 2: None, 3: PortConfig()}
    mirrors = {"tap": MirrorSession("tap", 9, frozenset({2, 1})), "old": None}
    with FakeApi(runtime, "lan", lambda _: Reply(CHANGED)) as api:
        assert shell.ask("lan", "set_switch", "lan", ports=ports, mirrors=mirrors, ahead=True) == CHANGED
    tap = {"name": "tap", "destination": 9, "ports": [1, 2], "vlans": "", "ingress": True, "egress": True}
    assert api.requests[0].body == {
        "ports": {"1": {"access": 10}, "2": None, "3": {}},
        "mirrors": {"tap": tap, "old": None},
        "ahead": True,
    }


def test_log_has_its_place_and_raw_bytes(shell: Shell, runtime: Path) -> None:
    reply = Reply(b"\x1b\xff", headers={"Umlab-Start": "5", "Umlab-End": "7"})
    with FakeApi(runtime, "lan", lambda _: reply) as api:
        assert shell.ask("lan", "log", "left", -2, 10) == LogPiece(5, 7, b"\x1b\xff")
    assert api.requests[0].target == "/v1/guests/left/log?console=con0&start=-2&limit=10"


def test_followed_log_comes_in_pieces_and_ends_with_the_guest(shell: Shell, runtime: Path) -> None:
    with FakeApi(runtime, "lan", lambda _: Reply(iter([b"a\n", b"b\n"]))) as api:
        assert b"".join(shell.take(99, "lan", "follow_log", "left", -64)) == b"a\nb\n"
    assert api.requests[0].target == "/v1/guests/left/log?console=con0&start=-64&follow=true"


def test_refusal_is_raised_as_what_it_is(shell: Shell, runtime: Path) -> None:
    reply = refused("MconsoleError", status=409, umid="left", command="config", output="no", err=1)
    with FakeApi(runtime, "lan", lambda _: reply), pytest.raises(MconsoleError) as raised:
        shell.ask("lan", "devices", "left")
    assert (raised.value.umid, raised.value.output) == ("left", "no")


def test_refused_stream_is_raised_as_well(shell: Shell, runtime: Path) -> None:
    with FakeApi(runtime, "lan", lambda _: refused("NoSuchGuest", name="x")), pytest.raises(NoSuchGuest):
        shell.take(1, "lan", "follow_log", "x")


@pytest.mark.parametrize("method", ["switches", "lab", "stop"])
def test_lab_without_a_daemon_does_not_run(method: str, shell: Shell, runtime: Path) -> None:
    with pytest.raises(LabNotRunning):
        shell.ask("lan", method)
    with pytest.raises(LabNotRunning):
        shell.take(1, "lan", "events")
    with pytest.raises(LabNotRunning):
        shell.ask("lan", "terminal", "left", "con1")


def test_daemon_that_ends_in_the_middle_is_named(shell: Shell, runtime: Path) -> None:
    with (
        FakeApi(runtime, "lan", lambda _: Reply([SWITCH], cut=20)),
        pytest.raises(ConnectionLost, match="lan: the daemon ended before it had answered"),
    ):
        shell.ask("lan", "switches")


def test_daemon_that_does_not_answer_is_given_up(
    shell: Shell, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "QUICK_TIMEOUT", 0.2)
    given_up = threading.Event()

    def answer(_: Asked) -> Reply:
        given_up.wait(60)
        return Reply()

    quick = call.Call(call.switches().request, call.switches().read, 0.2)
    with FakeApi(runtime, "lan", answer):
        with pytest.raises(ApiTimeout, match="did not answer in time"):
            shell.ask("lan", "run", quick)
        with pytest.raises(ApiTimeout, match="did not answer in time"):
            shell.take(1, "lan", "events")
        given_up.set()


def test_nonsense_is_an_api_error(shell: Shell, runtime: Path) -> None:
    replies = iter([Reply(b"oops"), Reply({"name": 1})])
    with FakeApi(runtime, "lan", lambda _: next(replies)):
        for _ in range(2):
            with pytest.raises(ApiError, match="version"):
                shell.ask("lan", "switch", "lan")
    with FakeApi(runtime, "lan", lambda _: Reply(b"")), pytest.raises(ApiError, match="version"):
        shell.ask("lan", "log", "left")


def test_call_that_is_run_again_keeps_its_key(shell: Shell, runtime: Path) -> None:
    again = call.sysrq("left", "m")
    with FakeApi(runtime, "lan", lambda _: Reply({"output": ""})) as api:
        shell.ask("lan", "run", again)
        shell.ask("lan", "run", again)
        shell.ask("lan", "sysrq", "left", "m")
    keys = [asked.headers["idempotency-key"] for asked in api.requests]
    assert keys[0] == keys[1] != keys[2]


def _stream(*events: str) -> Iterator[bytes]:
    for each in events:
        yield each.encode()


def test_events_go_on_over_a_restart(shell: Shell, runtime: Path) -> None:
    """Three daemons follow each other; the second one dies while it sends."""
    answers = [
        Reply(_stream('id: a-1\nevent: learned\ndata: {"n":1}\n\n')),
        Reply(_stream('id: b-1\nevent: lost\ndata: {"count":3}\n\n', "id: b-2\nda")),
        Reply(_stream('id: b-2\nevent: learned\ndata: {"n":2}\n\n')),
    ]
    remaining = iter(answers)
    with FakeApi(runtime, "lan", lambda _: next(remaining)) as api:
        events = shell.take(3, "lan", "events", "oldest")
    assert events == [
        Event("a-1", "learned", {"n": 1}),
        Event("b-1", "lost", {"count": 3}),
        Event("b-2", "learned", {"n": 2}),
    ]
    assert [asked.headers.get("last-event-id") for asked in api.requests] == [None, "a-1", "b-1"]


def test_events_end_when_no_daemon_comes_back(
    shell: Shell, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "RETRY_TIME", 0.3)

    def answer(_: Asked) -> Reply:
        (runtime / "umlab/gone/api.sock").rename(runtime / "umlab/gone/away")
        return Reply(_stream("id: a-1\ndata: {}\n\n"))

    with FakeApi(runtime, "gone", answer):
        with pytest.raises(LabNotRunning):
            shell.take(2, "gone", "events")
        (runtime / "umlab/gone/away").rename(runtime / "umlab/gone/api.sock")


@pytest.mark.parametrize("keep", [False, True])
def test_stop_waits_for_the_processes(keep: bool, shell: Shell, runtime: Path) -> None:
    """Two shells that wait stand for daemon and keeper; the API ends them as asked."""
    with (
        subprocess.Popen(["sh", "-c", "read x"], stdin=subprocess.PIPE) as daemon,
        subprocess.Popen(["sh", "-c", "read x"], stdin=subprocess.PIPE) as keeper,
    ):
        view = LabView("lan", "0.1.0", daemon.pid, keeper.pid, 1.5, (), ())

        def answer(asked: Asked) -> Reply:
            if asked.method == "GET":
                return Reply(view)
            os.kill(daemon.pid, signal.SIGTERM)
            if "keep" not in asked.target:
                os.kill(keeper.pid, signal.SIGTERM)
            return Reply({}, 202)

        with FakeApi(runtime, "lan", answer) as api:
            shell.ask("lan", "stop", keep=keep)
        assert [asked.method for asked in api.requests] == ["GET", "DELETE"]
        assert api.requests[1].target == "/v1/labs/lan" + ("?keep=true" if keep else "")
        assert daemon.wait(0) == -signal.SIGTERM
        assert keeper.poll() is None if keep else keeper.wait(0) == -signal.SIGTERM


def test_closing_ends_what_another_thread_waits_for(runtime: Path) -> None:
    asked = threading.Event()
    done = threading.Event()

    def answer(_: Asked) -> Reply:
        asked.set()
        done.wait(60)
        return Reply([])

    failures: list[BaseException] = []
    client = Client("lan")

    def ask() -> None:
        try:
            client.switches()
        except ConnectionLost as error:
            failures.append(error)

    with FakeApi(runtime, "lan", answer):
        thread = threading.Thread(target=ask)
        thread.start()
        asked.wait(60)
        client.close()
        thread.join()
        done.set()
    assert len(failures) == 1
    with pytest.raises(StateError, match="closed"):
        client.switches()


@pytest.mark.parametrize(
    ("command", "told", "limit"), [("version", None, 5), ("proc stat", None, 30), ("proc stat", 2, 2)]
)
def test_a_console_call_lasts_little_longer_than_its_answer_may_take(
    command: str, told: float | None, limit: float
) -> None:
    assert call.mconsole("left", command, told).timeout == limit + call.TURN_TIME
