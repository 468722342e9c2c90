"""Names for completion, in the shortest form that is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.fake_api import FakeApi, Reply
from support.lab_thread import LabThread
from umlab.cli.complete import console_names, guest_names, lab_names, setting_names, switch_names
from umlab.testing import SimulatedGuests


def test_names_of_running_labs(runtime: Path) -> None:
    with (
        LabThread(runtime, "lan", ("lan",), ("left", "both")),
        LabThread(runtime, "ring", ("a", "ring"), ("both",)),
    ):
        assert lab_names("") == ["lan", "ring"]
        assert lab_names("r") == ["ring"]
        assert switch_names("") == ["lan", "ring/a", "ring"]
        assert switch_names("ring/") == ["ring/a"]
        assert guest_names("") == ["lan/both", "left", "ring/both"]
        assert guest_names("l") == ["lan/both", "left"]
        assert guest_names("lan/") == ["lan/both", "lan/left"]


def test_names_for_the_console_are_those_of_all_guests(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = runtime / "other"
    other.mkdir()
    monkeypatch.setattr("umlab.client.find.guest_roots", lambda: [str(other)])
    with SimulatedGuests(other) as guests, LabThread(runtime, "lan", guests=("left",)):
        for name in ("left", "last", "dead"):
            guests.add(name)
        (other / "lost\x1b").mkdir()
        guests.add("dead\x1b")
        (other / "dead/mconsole").unlink()
        # As the console calls them.
        assert sorted(console_names("")) == sorted(["lan/left", f"{other}/left/mconsole", "last"])
        assert console_names("las") == ["last"]
        assert console_names("lan/") == ["lan/left"]
        assert console_names(f"{other}/la") == [f"{other}/last/mconsole"]


def test_nonsense_from_a_daemon_is_no_error(runtime: Path) -> None:
    bodies: list[Any] = [b"", b"oops", [], {}, [1], [{}], [{"switches": 3, "guests": []}]]
    replies = iter(bodies)
    with FakeApi(runtime, "lan", lambda _: Reply(next(replies))):
        for _ in bodies:
            assert switch_names("") == []


def test_settings() -> None:
    assert setting_names("f") == ["fdb_capacity="]
    assert setting_names("hub=o") == ["hub=on", "hub=off"]
    assert setting_names("hub=of") == ["hub=off"]
    assert setting_names("colour=") == []
    assert "ageing_time=" in setting_names("")
