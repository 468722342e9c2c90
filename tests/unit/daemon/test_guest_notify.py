"""What a guest says without being asked: its events, their bounds, and that a restart loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until_async
from support.kept_lab import KeptLab
from umlab._clock import ManualClock
from umlab.daemon import guest_notify
from umlab.daemon.event_log import EventLog
from umlab.daemon.guest_notify import GuestNotify, notify_path
from umlab.errors import LabError
from umlab.transports.socketfile import SocketFile
from umlab.wire.mconsole import HANG, PANIC, SOCKET, USER, Notification, serialize_notification

#: What uml_watchdog of Debian sends on a 64-bit machine; see the vectors.
WATCHDOG_HANG = bytes.fromhex("bebafeca00000000 0200000002000000 00000000ff7f0000")

Records = list[dict[str, Any]]


class Said:
    """A guest's socket, and what came of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "n"
        self.events = EventLog()
        self.clock = ManualClock()
        self.boots = 0
        file = SocketFile(self.path, socket.SOCK_DGRAM)
        self.notify = GuestNotify("g", file, self.events, clock=self.clock)
        self.notify.listen(self._boot)

    def _boot(self) -> None:
        self.boots += 1

    def say(self, kind: int, data: bytes = b"") -> None:
        send(self.path, serialize_notification(Notification(kind, data)))

    async def records(self, count: int) -> Records:
        """Return the events so far, which are so many at last."""
        return await records(self.events, count)


def send(path: Path, data: bytes) -> None:
    """Send as a guest does, which waits while the queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.sendto(data, str(path))


async def records(events: EventLog, count: int) -> Records:
    await wait_until_async(lambda: events.next_number > count, 20, f"{count} events")
    found = [json.loads(record) for record in events.since(1).records]
    for record in found:
        assert record.pop("at") > 0
    return found


@pytest.fixture
async def said(short_dir: Path) -> AsyncIterator[Said]:
    made = Said(short_dir)
    yield made
    made.notify.close()
    assert not made.path.exists()


async def test_each_kind_is_an_event(said: Said) -> None:
    said.say(SOCKET, b"/run/g/mconsole")
    said.say(USER, b"hello\n")
    said.say(USER, b"\x1b[2J\xff\0")
    said.say(PANIC, b"sysrq triggered crash")
    said.say(HANG)
    send(said.path, WATCHDOG_HANG)
    said.say(SOCKET, b"/run/g/mconsole")
    assert await said.records(7) == [
        {"event": "guest_console", "guest": "g"},
        {"event": "guest_message", "guest": "g", "message": "hello"},
        {"event": "guest_message", "guest": "g", "message": "\x1b[2J\\xff\0"},
        {"event": "guest_panicked", "guest": "g", "message": "sysrq triggered crash"},
        {"event": "guest_hung", "guest": "g"},
        {"event": "guest_hung", "guest": "g"},
        {"event": "guest_rebooted", "guest": "g"},
    ]
    assert said.boots == 2
    assert stat.S_IMODE(said.path.stat().st_mode) == 0o600


async def test_flood_of_messages_is_cut_counted_and_hides_no_panic(said: Said) -> None:
    message = serialize_notification(Notification(USER, b"x" * 512))

    def say_so_often() -> None:
        for _ in range(500):
            send(said.path, message)

    flood = asyncio.create_task(asyncio.to_thread(say_so_often))
    # Others have their turn meanwhile.
    turns = 0
    while not flood.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    # The queue may be full still, and we are who reads it.
    await asyncio.to_thread(said.say, PANIC, b"after all")
    said.notify.read_rest()
    found = await said.records(22)
    # What was left out is told once a second, and at the guest's end.
    dropped = [record for record in found if record["event"] == "guest_notify_dropped"]
    assert sum(record["over_limit"] for record in dropped) == 480
    others = [record["event"] for record in found if record not in dropped]
    assert others == [*["guest_message"] * 20, "guest_panicked"]
    # A second later there may be five more.
    before = len(found)
    said.clock.advance(1_000_000_000)
    for _ in range(6):
        said.say(USER, b"again")
    said.notify.read_rest()
    found = (await said.records(before + 6))[before:]
    assert [record["event"] for record in found] == [*["guest_message"] * 5, "guest_notify_dropped"]


async def test_flood_of_news_is_cut_as_well(said: Said) -> None:
    for _ in range(11):
        said.say(SOCKET)
        said.notify.read_rest()
    found = await said.records(11)
    assert [record["event"] for record in found[1:]] == [*["guest_rebooted"] * 9, "guest_notify_dropped"]
    assert said.boots == 10


BAD = {
    "empty": b"",
    "short": b"\xbe\xba\xfe\xca\x02\0\0\0",
    "another magic": b"\0" * 16,
    "another version": serialize_notification(Notification(USER, b""))[:4] + b"\x07" + b"\0" * 11,
    "text that is missing": serialize_notification(Notification(USER, b"hello"))[:-1],
    "negative length": serialize_notification(Notification(USER, b""))[:12] + b"\xff" * 4,
    "too long": serialize_notification(Notification(USER, b""))[:12] + b"\xff\xff\0\0" + b"x" * 4000,
    "unknown kind": serialize_notification(Notification(9, b"")),
}


async def test_malformed_ones_are_counted_and_logged_once(
    said: Said, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_notify, "_TELL_TIME", 0.1)
    for data in BAD.values():
        send(said.path, data)
    said.say(USER, b"good")
    found = await said.records(2)
    assert found == [
        {"event": "guest_message", "guest": "g", "message": "good"},
        {"event": "guest_notify_dropped", "guest": "g", "over_limit": 0, "malformed": len(BAD)},
    ]
    assert [record.message for record in caplog.records] == [
        "guest g: a notification that is none: message is cut: 0 of 16 bytes"
    ]


class TestInALab:
    def path(self, kept: KeptLab) -> Path:
        return Path(notify_path(str(kept.runtime / "g"), "g"))

    async def test_every_guest_is_told_where_and_nothing_is_left(self, kept: KeptLab) -> None:
        kept.kernel.write_text(kept.kernel.read_text().replace("console of", "$*\nconsole of"))
        await kept.lab.put_guest(kept.spec())
        await kept.ready()
        path = self.path(kept)
        assert f" mconsole=notify:{path} " in kept.log()
        send(path, serialize_notification(Notification(USER, b"hello")))
        await wait_until_async(lambda: "guest_message" in kinds(kept), 10, "the event")
        await kept.lab.remove_guest("g")
        assert os.listdir(kept.runtime / "g") == []

    async def test_stale_socket_of_a_killed_lab_is_replaced(self, kept: KeptLab) -> None:
        path = self.path(kept)
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
            left.bind(str(path))
        await kept.lab.put_guest(kept.spec())

    async def test_what_is_in_the_way_is_named(self, kept: KeptLab) -> None:
        path = self.path(kept)
        path.parent.mkdir()
        path.write_text("mine")
        with pytest.raises(LabError, match=f"guest g: cannot be started: .*{path}"):
            await kept.lab.put_guest(kept.spec())
        assert kept.lab.guests() == []
        assert path.read_text() == "mine"

    async def test_restarted_daemon_hears_on_and_what_was_said_meanwhile(self, kept: KeptLab) -> None:
        await kept.lab.put_guest(kept.spec())
        await kept.ready()
        send(self.path(kept), serialize_notification(Notification(SOCKET, b"")))
        await wait_until_async(lambda: "guest_console" in kinds(kept), 10, "the event")
        await kept.crash()
        send(self.path(kept), serialize_notification(Notification(PANIC, b"alone")))
        await kept.start()
        send(self.path(kept), serialize_notification(Notification(SOCKET, b"")))
        await wait_until_async(lambda: "guest_rebooted" in kinds(kept), 10, "the events")
        assert kinds(kept) == ["guest_resumed", "guest_panicked", "guest_rebooted"]
        await kept.lab.remove_guest("g")
        assert os.listdir(kept.runtime / "g") == []

    async def test_guest_of_an_earlier_version_goes_on_without(self, kept: KeptLab) -> None:
        def older(meta: dict[str, Any], fds: list[int]) -> list[int]:
            meta["fds"].remove("notify")
            del meta["booted"]
            return fds[:-1]

        await kept.lab.put_guest(kept.spec())
        pid = await kept.ready()
        await kept.alter("guest/g", older)
        await kept.start()
        assert kept.lab.guest("g").pid == pid
        await kept.restart()
        assert kept.lab.guest("g").pid == pid

    async def test_what_is_no_socket_ends_the_guest_and_nothing_else(
        self, kept: KeptLab, caplog: pytest.LogCaptureFixture
    ) -> None:
        def other(meta: dict[str, Any], fds: list[int]) -> list[int]:
            place = meta["fds"].index("notify")
            with open(kept.kernel, "rb") as file:
                os.dup2(file.fileno(), fds[place], inheritable=False)
            return fds

        await kept.lab.put_guest(kept.spec())
        await kept.ready()
        await kept.alter("guest/g", other)
        await kept.start()
        assert "guest g cannot be taken over" in caplog.text
        assert kept.lab.guests() == []


def kinds(kept: KeptLab) -> list[str]:
    return [json.loads(record)["event"] for record in kept.lab.events.since(1).records]
