"""``umlab guest``: what its commands print, and what they do."""

from __future__ import annotations

import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from support.cli_run import Run
from support.fake_api import Asked, FakeApi, Reply, refused
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.cli.main import main
from umlab.daemon.view import LabView, LogTime
from umlab.testing import SimulatedGuests

HOSTILE = b"\x1b]0;title\x07\xff\r\nlogin: "


def test_guest_is_found_in_any_lab(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left", "both")), LabThread(runtime, "ring", guests=("both",)):
        assert run("guest", "logs", "left").status == 0
        assert run("guest", "logs", "ring/both").status == 0
        done = run("guest", "logs", "both")
        assert done.status == 1
        assert done.err == (
            "umlab: both: several labs have a guest of that name; write lan/both or ring/both\n"
        )
        assert run("guest", "logs", "nobody").status == 3
        assert run("guest", "logs", "lan/nobody").status == 3
        assert run("guest", "logs", "gone/left").status == 3


def test_guest_outside_labs_has_no_log(run: Run, runtime: Path) -> None:
    with SimulatedGuests(runtime) as guests:
        path = str(guests.add("other").path)
        done = run("guest", "logs", path)
    assert done.status == 1
    assert done.err == (
        f"umlab: no lab's daemon speaks for the guest {path}, only its management console: "
        f"umlab console {path}\n"
    )


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_log_is_shown_as_text(follow: tuple[str, ...], run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].print(HOSTILE))
        daemon.call(lambda lab: lab.guest_by_name["left"].end())
        shown = run("guest", "logs", "left", *follow)
        records = run("guest", "logs", "left", "--json", *follow).records
    lines = ["Linux version 6.1", r"\x1b]0;title\x07\xff", "login: "]
    assert shown.out.splitlines() == lines
    assert [each["line"] for each in records] == lines


def test_long_log_comes_whole(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].print(b"y" * 3_000_000 + b"\nend"))
        shown = run("guest", "logs", "left")
    assert shown.out.count("y") == 3_000_000
    assert shown.out.endswith("end\n")


def test_raw_log_is_what_the_guest_said(
    runtime: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].print(HOSTILE))
        monkeypatch.setattr(sys, "argv", ["umlab", "guest", "logs", "left", "--raw"])
        with pytest.raises(SystemExit):
            main()
    assert capfdbinary.readouterr().out == b"Linux version 6.1\n" + HOSTILE


def test_raw_log_is_not_for_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    done = run("guest", "logs", "left", "--raw")
    assert done.status == 2
    assert "not for a terminal" in done.err
    assert run("guest", "logs", "left", "--raw", "--json").status == 2


def test_log_says_when_each_line_was_printed(
    run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(lab: FakeLab) -> None:
        guest = lab.guest_by_name["left"]
        guest.log[:] = b"Linux\nfirst, second\n\xff\n"
        guest.times["con0"][:] = [
            LogTime(3, 1000.0),
            LogTime(13, 1001.5),
            LogTime(20, 1002.25),
            LogTime(22, 9e9),
        ]

    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        daemon.call(printed)
        records = run("guest", "logs", "left", "-t", "--json").records
        shown = run("guest", "logs", "left", "--timestamps").out.splitlines()
        monkeypatch.setattr(time, "time", lambda: 1061.0)
        recent = run("guest", "logs", "left", "--since", "1min", "--json").records
        none = run("guest", "logs", "left", "--since", "1ms", "--tail", "5")
        last = run("guest", "logs", "left", "--tail", "2", "--json", "-t").records
    lines = ["Linux", "first, second", "\\xff"]
    assert records == [
        {"at": at, "line": line} for at, line in zip((None, 1000.0, 1002.25), lines, strict=True)
    ]
    stamp = datetime.fromtimestamp(1002.25).strftime("%Y-%m-%d %H:%M:%S.250")
    assert shown == [f"{'':25}Linux", shown[1], f"{stamp}  \\xff"]
    assert [each["line"] for each in recent] == ["second", "\\xff"]
    assert (none.status, none.out) == (0, "")
    assert last == records[1:]


def test_times_of_a_log_that_goes_on_come_with_it(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        guest = daemon.call(lambda lab: lab.guest_by_name["left"])

        def print_and_end(_: FakeLab) -> None:
            guest.print(b"late\n")
            guest.end()

        printing = threading.Timer(0.1, lambda: daemon.call(print_and_end))
        printing.start()
        records = run("guest", "logs", "left", "--follow", "-t", "--json").records
        printing.join()
        assert [each["line"] for each in records] == ["Linux version 6.1", "late"]
        assert records[1]["at"] == guest.times["con0"][-1].at


def test_log_of_the_terminal(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].terminal_log.extend(b"a\n" * 100_000 + b"b"))
        assert run("guest", "logs", "left", "--console", "con1", "--tail", "3").out == "a\na\nb\n"
        assert run("guest", "logs", "left", "--console", "con1", "--tail", "200000").out.count("a") == 100_000
        assert run("guest", "logs", "left", "--console", "con9").status == 1
        for words in (("--since", "soon"), ("--tail", "0"), ("--raw", "-t")):
            assert run("guest", "logs", "left", *words).status == 2


def test_devices_are_managed(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].devices.update({"ubdb": "/srv/\x1b[m"}))
        shown = run("guest", "device", "ls", "left")
        assert [line.split() for line in shown.out.splitlines()] == [
            ["DEVICE", "KIND", "SETTING", "PORT"],
            ["mem", "memory", "128M", "-"],
            ["ubda", "disk", "/srv/left.img", "-"],
            ["ubdb", "disk", r"/srv/\x1b[m", "-"],
        ]
        assert run("guest", "device", "show", "left", "mem", "--json").records == [
            {
                **{"lab": "lan", "guest": "left", "name": "mem", "setting": "128M"},
                **{"kind": "memory", "switch": None, "port_no": None},
            }
        ]
        setting = "daemon,,unix,/x"
        assert run("guest", "device", "set", "left", "eth1", setting).out == "left: eth1 plugged in\n"
        assert daemon.call(lambda lab: lab.guest_by_name["left"].devices["eth1"]) == setting
        assert run("guest", "device", "set", "left", "mem", "96M").out == "left: mem is 96M\n"
        assert run("guest", "device", "reset", "left", "eth1").out == "left: eth1 plugged in anew\n"
        assert run("guest", "device", "rm", "left", "eth1", "--json").records == [
            {"lab": "lan", "guest": "left", "device": "eth1", "changed": True}
        ]
        assert run("guest", "device", "rm", "left", "eth1").out == "left: eth1: nothing to do\n"
        done = run("guest", "device", "show", "left", "eth9")
    assert done.status == 1
    assert done.err == "umlab: guest left has no device eth9\n"


def test_devices_are_added(run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runtime)
    add = ("guest", "device", "add", "left")
    with LabThread(runtime, "lan", guests=("left",)):
        assert run(*add, "console").out == "left: con2 plugged in\n"
        (record,) = run(*add, "disk", "--file", "a.img", "--cow", "a.cow", "--json").records
        assert (record["name"], record["setting"]) == ("ubdb", f"{runtime}/a.cow,{runtime}/a.img")
        assert run(*add, "disk", "--file", "a.img", "--read-only").out == "left: ubdc plugged in\n"
        assert run("guest", "device", "show", "left", "ubdc", "--json").records[0]["setting"] == (
            f"r={runtime}/a.img"
        )
        assert run("guest", "device", "set", "left", "ubdfcr", "/a.img").out == "left: ubdf plugged in\n"
        (record,) = run("guest", "device", "set", "left", "ubd6r", "/b.img", "--json").records
        assert record == {"lab": "lan", "guest": "left", "device": "ubdg", "changed": True}
        done = run(*add, "nic", "--switch", "none")
        assert (done.status, done.err) == (3, "umlab: no switch none\n")
    for words in (
        ("nic",),
        ("disk",),
        ("nic", "--switch", "lan", "--file", "x"),
        ("disk", "--file", "x", "--mtu", "9000"),
        ("usb",),
    ):
        assert run(*add, *words).status == 2, words
    assert all(f"[default: ({each})]" in run(*add, "-h").out for each in ("daemon", "random", "1500", "pts"))


def test_error_of_a_guest_is_shown_as_text(run: Run, runtime: Path) -> None:
    reply = refused("MconsoleError", umid="left", command="config eth0", output="\x1b[2Jno", err=1)
    view = LabView("lan", "1", 1, 1, 1.0, (), ("left",))

    def answer(asked: Asked) -> Reply:
        return reply if "devices" in asked.target else Reply([view] if asked.target == "/v1/labs" else view)

    with FakeApi(runtime, "lan", answer):
        done = run("guest", "device", "ls", "left")
    assert (done.status, done.err) == (1, "umlab: guest left: config eth0: \\x1b[2Jno\n")
