"""``umlab events``: one line for each event, of one lab or of several."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from support.cli_run import Run
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.cli.output import event_text

ATTACHED = {
    "event": "port_attached",
    "switch": "lan",
    "port_no": 1,
    "detail": "\x1b[2J",
    "peer": {"pid": 7, "uid": None, "boot": [1, 2]},
    "note": "",
}


def publish(record: dict[str, Any], lab: FakeLab) -> None:
    lab.events.publish(record)


def test_kept_events_are_printed(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan") as lan, LabThread(runtime, "ring") as ring:
        lan.call(lambda lab: lab.events.publish(ATTACHED))
        ring.call(lambda lab: lab.events.publish({"event": "guest_ready", "guest": "left"}))
        shown = run("events", "--no-follow", "--from", "oldest")
        records = run("events", "lan", "--no-follow", "--from", "oldest", "--json").records
        assert run("events", "lan", "--no-follow").out == ""
    lines = sorted(line.split("  ", 1)[1] for line in shown.out.splitlines())
    assert lines == [
        r"lan  port attached: switch lan, port_no 1, detail \x1b[2J, peer pid 7 uid - boot 1/2",
        "ring  guest ready: guest left",
    ]
    (record,) = records
    assert record.pop("at") > 0
    assert record == {"lab": "lan", **ATTACHED}


def test_guest_cannot_forge_lines(run: Run, runtime: Path) -> None:
    said = {"event": "guest_message", "guest": "left", "message": "a\x1b[2J\nlan  guest panicked: guest web"}
    with LabThread(runtime, "lan") as lan:
        lan.call(lambda lab: lab.events.publish(said))
        shown = run("events", "--no-follow", "--from", "oldest").out
    assert shown.count("\n") == 1
    assert shown.endswith(r"message a\x1b[2J\nlan  guest panicked: guest web" + "\n")


def test_only_some_kinds_and_guests(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan") as lan:
        for event in ("guest_silent", "guest_panicked", "guest_ready"):
            for guest in ("left", "web1"):
                lan.call(partial(publish, {"event": event, "guest": guest}))
        lan.call(partial(publish, ATTACHED))

        def kinds(*words: str) -> list[str]:
            shown = run("events", "--no-follow", "--from", "oldest", "--json", *words)
            return [record["event"] for record in shown.records]

        assert kinds("--on", "hang", "--on", "guest_ready") == [*["guest_silent"] * 2, *["guest_ready"] * 2]
        assert kinds("--guest", "w*") == ["guest_silent", "guest_panicked", "guest_ready"]
        assert kinds("--guest", "w*", "--on", "panic") == ["guest_panicked"]
        assert kinds("--on", "port_attached") == ["port_attached"]


def test_path_that_is_no_text_is_shown_escaped() -> None:
    assert event_text("listening", {"where": "/tmp/\udcff"}) == r"listening: where /tmp/\xff"


def test_lab_that_does_not_run_is_told_and_the_others_go_on(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan") as lan:
        lan.call(lambda lab: lab.events.publish(ATTACHED))
        done = run("events", "gone", "lan", "--no-follow", "--from", "oldest")
    assert done.status == 3
    assert done.err == "umlab: gone does not run; start it with: umlab switch run gone --background\n"
    assert "port attached" in done.out


def test_no_lab_at_all_is_an_error(run: Run) -> None:
    done = run("events")
    assert done.status == 3
    assert "no lab runs" in done.err


def test_event_that_is_none_is_refused(run: Run) -> None:
    done = run("events", "lan", "--on", "panic", "--on", "port_atached")
    assert (done.status, "did you mean port_attached?" in done.complaint) == (2, True)


def test_beginning_is_now_or_the_oldest(run: Run) -> None:
    assert run("events", "lan", "--from", "yesterday").status == 2
