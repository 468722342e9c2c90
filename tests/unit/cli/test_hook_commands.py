"""``umlab hook``: commands for what happens to guests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.cli_run import Run
from support.lab_thread import LabThread
from umlab.cli.complete import hook_names
from umlab.cli.hook import EVENTS, event_names
from umlab.daemon.hook import GUEST_EVENTS

TRUE = shutil.which("true")


def test_hook_is_set_listed_and_removed(run: Run, runtime: Path) -> None:
    words = (
        "hook",
        "set",
        "lan/mail",
        "--on",
        "panic",
        "--on",
        "hang",
        "--guest",
        "web*",
        "--",
        "true",
        "-x y",
    )
    with LabThread(runtime, "lan"):
        assert run(*words).out == "lan/mail: set\n"
        assert run(*words).out == "lan/mail: as it was\n"
        assert run("hook", "ls").out == (
            f"lan/mail: on guest_panicked, guest_hung, guest_silent of web*: {TRUE} '-x y'"
            "  (log: /var/log/hook-mail.log)\n"
        )
        (record,) = run("hook", "ls", "lan", "--json").records
        assert record["run"] == [TRUE, "-x y"]
        assert hook_names("") == ["lan/"]
        assert hook_names("lan/m") == ["lan/mail"]
        assert hook_names("ring/") == hook_names("lan/x") == []
        assert run("hook", "rm", "lan/mail").out == "lan/mail: removed\n"
        assert run("hook", "ls").out == ""
        gone = run("hook", "rm", "lan/mail")
    assert (gone.status, gone.err) == (3, "umlab: no hook mail\n")


def test_program_is_found_from_here(
    run: Run, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "collect.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    with LabThread(runtime, "lan"):
        assert run("hook", "set", "lan/h", "--on", "guest_ended", "./collect.sh").status == 0
        assert run("hook", "ls", "--json").records[0]["run"] == [str(program)]
        missing = run("hook", "set", "lan/h", "--on", "end", "--", "no-such-program")
    assert (missing.status, missing.err) == (1, "umlab: there is no program no-such-program\n")


def test_lab_is_named_and_there_and_the_event_is_one(run: Run, runtime: Path) -> None:
    assert run("hook", "set", "mail", "--on", "panic", "--", "true").status == 2
    assert run("hook", "set", "lan/mail", "--", "true").status == 2
    assert run("hook", "rm", "lan/mail").status == 3
    with LabThread(runtime, "lan"):
        wrong = run("hook", "set", "lan/mail", "--on", "port_attached", "--", "true")
        misspelt = run("hook", "set", "lan/mail", "--on", "guest_panic", "--", "true")
    assert (wrong.status, misspelt.status) == (2, 2)
    # It is an event, and none of a guest.
    assert "--on port_attached: there is no such event here; there are start, ready," in wrong.complaint
    assert "guest_ended, guest_removed" in wrong.complaint
    assert "did you mean guest_panicked?" in misspelt.complaint


def test_short_names_are_events_of_guests() -> None:
    assert {kind for kinds in EVENTS.values() for kind in kinds} <= set(GUEST_EVENTS)
    assert event_names("s") == ["start", "silent"]
