"""``umlab capture``: what is asked for, where frames go, what is told, and how it ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from support.cli_run import Run
from support.deadline import wait_until
from support.fake_captures import FakeCaptures, port
from umlab.capture.order import CaptureProgress

STARTED = CaptureProgress("started")
PORTS = {"lan": [port(1, "left"), port(2, "right"), port(4, umid="web")]}
ENDED = CaptureProgress("ended", 12_345, 12_340, 5, 1_000_000, "/srv/a.pcapng", 1)


def saved(order: dict[str, Any]) -> tuple[CaptureProgress, ...]:
    """Return what a capture says that is over at once."""
    return (STARTED, ENDED)


def test_options_are_the_order(run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runtime)
    with FakeCaptures(runtime, "lan", PORTS, saved) as lan:
        run("capture", "lan", "-w", "a.pcapng")
        words = ["-f", "arp", "-s", "96", "--rotate-size", "1M", "--rotate-time", "2min", "--files", "3"]
        run("capture", "lan:2,left", "-w", "/srv/a.pcapng", *words)
        run("capture", "lan/lan", "-w", "a.pcapng", "--last", "1.5s")
    plain: dict[str, Any] = {
        **{"switch": "lan", "ports": None, "filter": "", "snap_length": 65_535, "last": None},
        **{"file": f"{runtime}/a.pcapng", "rotate_size": None, "rotate_time": None, "files": None},
    }
    assert lan.orders == [
        plain,
        plain
        | {"ports": [1, 2], "filter": "arp", "snap_length": 96, "file": "/srv/a.pcapng"}
        | {"rotate_size": 1 << 20, "rotate_time": 120, "files": 3},
        plain | {"last": 1.5},
    ]


def test_ports_are_numbers_ranges_and_guests(run: Run, runtime: Path) -> None:
    with FakeCaptures(runtime, "lan", PORTS, saved) as lan:
        for words in (["lan:1-3,web"], ["lan:7", "lan:left"], ["lan:7", "lan"]):
            assert run("capture", *words, "-w", "/srv/a").status == 0
        assert [order["ports"] for order in lan.orders] == [[1, 2, 4], [1, 7], None]

        for name, status, said in (
            ("lan:", 2, "numbers, ranges and guests"),
            ("lan:3-1", 2, "runs backwards"),
            ("lan:0", 2, "between 1 and"),
            ("lan:99999", 2, "between 1 and"),
            ("lan:middle", 3, "no guest middle"),
            ("lan:5-9", 1, "nothing is plugged in at lan/lan:5-9"),
            ("lan/core", 1, "write lan/lan"),
            ("wan", 3, "wan does not run"),
        ):
            done = run("capture", name, "-w", "/srv/a")
            assert (done.status, said in " ".join(done.err.split())) == (status, True), done
        assert len(lan.orders) == 3


def test_several_switches_have_a_file_each(run: Run, runtime: Path) -> None:
    with FakeCaptures(runtime, "ring", {"ring": [], "core": []}, saved) as ring:
        assert run("capture", "ring", "ring/core", "-w", "/srv/x.pcapng").status == 0
        files = {order["switch"]: order["file"] for order in ring.orders}
    assert files == {"ring": "/srv/x-ring.pcapng", "core": "/srv/x-ring-core.pcapng"}


def test_the_end_is_told(run: Run, runtime: Path) -> None:
    steps = {
        "lan": ENDED,
        "past": CaptureProgress("ended", 3, 2, 0, 300, "/srv/p", 1, reason="saved", covered=2.34),
        "many": CaptureProgress("ended", 3, 3, 0, 400, "/srv/a_00002.pcapng", 2, reason="switch"),
        "full": CaptureProgress("ended", 3, 1, 2, 200, "/srv/b", 1, "No space left on device"),
    }
    ports: dict[str, Any] = {name: [] for name in steps}
    with FakeCaptures(runtime, "lan", ports, lambda order: (STARTED, steps[order["switch"]])):
        assert run("capture", "lan", "-w", "/srv/a").err == (
            "umlab: lan/lan: 12,340 frames, 1,000,000 bytes, 5 lost, in /srv/a.pcapng\n"
        )
        assert run("capture", "lan/many", "-w", "/srv/a").err == (
            "umlab: lan/many: 3 frames, 400 bytes, 0 lost, in 2 files, the last one /srv/a_00002.pcapng; "
            "the switch has ended\n"
        )
        assert run("capture", "lan/past", "-w", "/srv/p", "--last", "5s").err == (
            "umlab: lan/past: 2 frames, 300 bytes, 0 lost, in /srv/p, of the last 2.34 seconds\n"
        )
        full = run("capture", "lan/full", "-w", "/srv/b")
        assert (full.status, full.err) == (
            1,
            "umlab: lan/full: 1 frames, 200 bytes, 2 lost, in /srv/b; No space left on device\n",
        )
        records = run("capture", "lan", "-w", "/srv/a", "--json").records
    assert [record["event"] for record in records] == ["started", "ended"]
    assert records[1].items() > {"lab": "lan", "switch": "lan", "frames": 12_340, "lost": 5}.items()


def test_refusal_of_the_daemon_is_the_error(run: Run, runtime: Path) -> None:
    error = {"error": {"class": "LabError", "message": "the filter does not compile", "fields": {}}}
    with FakeCaptures(runtime, "lan", PORTS, lambda _: (error,)):
        done = run("capture", "lan", "-w", "/srv/a", "-f", "(")
    assert (done.status, done.err) == (1, "umlab: the filter does not compile\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a switch"),
        (["lan", "--json"], "--json goes with -w"),
        (["lan", "--rotate-size", "1M"], "go with -w"),
        (["lan", "-w", "a", "--rotate-size", "1"], "write a number and its unit"),
        (["lan", "-w", "a", "--rotate-size", "1K"], "rotate_size must be between"),
        (["lan", "-w", "a", "--last", "soon"], "write a number and its unit"),
        (["lan", "--last", "1s", "--duration", "1s"], "exclude each other"),
        (["lan", "-w", "a", "--files", "2"], "files goes with"),
        (["lan", "-s", "3", "-w", "a"], "snap_length must be between"),
        (["lan", "-w", "a\udcff"], "is not UTF-8"),
        (["lan", "-w", "a", "-f", "\udcff"], r"filter: '\udcff' is not UTF-8"),
    ],
)
def test_wrong_command_line_is_told(run: Run, runtime: Path, words: list[str], said: str) -> None:
    with FakeCaptures(runtime, "lan", PORTS, saved) as lan:
        done = run("capture", *words)
        assert lan.orders == []
    assert done.status == 2
    assert said in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_frames_do_not_go_to_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    done = run("capture", "lan", "-w", name)
    assert done.status == 2
    assert "wireshark -k -i -" in " ".join(done.err.replace("│", " ").split())


def test_counts_are_shown_each_second_on_a_terminal(
    run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    step = CaptureProgress("progress", 7, 6, 1, 420, "/srv/a", 1, "No space left on device")
    with FakeCaptures(runtime, "lan", PORTS, lambda _: (STARTED, step, ENDED)):
        shown = run("capture", "lan", "-w", "/srv/a").err.split("\r\x1b[K")
    problem = "No space left on device"
    assert shown[:3] == ["", "0 frames, 0 bytes, 0 lost", f"6 frames, 420 bytes, 1 lost; {problem}"]
    assert shown[-1].startswith("umlab: lan/lan: 12,340 frames")


def test_it_ends_by_itself_after_a_duration(run: Run, runtime: Path) -> None:
    with FakeCaptures(runtime, "lan", PORTS, lambda _: (STARTED,), saved):
        done = run("capture", "lan", "-w", "/srv/a", "--duration", "50ms")
    assert (done.status, "12,340 frames" in done.err) == (0, True)


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_ends_it_in_good_order(run: Run, runtime: Path, signal_name: str) -> None:
    import signal

    with FakeCaptures(runtime, "lan", PORTS, lambda _: (STARTED,), saved) as lan:

        def interrupt() -> None:
            wait_until(lambda: lan.orders, 10, "the order")
            os.kill(os.getpid(), getattr(signal, signal_name))

        thread = threading.Thread(target=interrupt)
        thread.start()
        done = run("capture", "lan", "-w", "/srv/a")
        thread.join()
    assert (done.status, "12,340 frames" in done.err) == (0, True)
