"""Hooks: what is run, with what, for how long, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until_async
from support.kept_lab import KeptLab
from support.process import is_gone
from support.real_keeper import RealKeeper
from umlab.daemon import hook as module
from umlab.daemon.event_log import EventLog
from umlab.daemon.hook import GUEST_EVENTS, MAX_HOOKS, MAX_RUNNING, MAX_WAITING, Hook, HookSet
from umlab.errors import LabError, LimitReached, NoSuchHook
from umlab.keeper.link import KeeperLink

PANIC: dict[str, Any] = {"event": "guest_panicked", "guest": "left", "message": "a\x1b[2J\nb\0"}
#: Says that it runs, and waits for a line from a pipe beside its log.
WAITS = 'echo $$ >>pids; read -r line <gate; echo "$line"'


class Hooks:
    """The hooks of a lab at a real keeper."""

    def __init__(self, keeper: RealKeeper, directory: Path) -> None:
        self.state = directory
        self.keeper = keeper
        self.link: KeeperLink
        self.events = EventLog()
        self.set: HookSet
        self.begin()

    def begin(self) -> None:
        """Be the first or the next daemon."""
        self.link = self.keeper.connect()
        self.events = EventLog()
        self.set = HookSet("lan", self.state, self.link, self.events)
        self.set.resume()

    async def end(self) -> None:
        await self.set.close()
        self.link.close()

    async def put(self, *words: str, on: tuple[Any, ...] = ("guest_panicked",), **fields: Any) -> None:
        assert await self.set.put(Hook(fields.pop("name", "h"), on, words, **fields))

    async def shell(self, script: str, **fields: Any) -> None:
        await self.put("/bin/sh", "-c", script, **fields)

    async def told(self, count: int = 1) -> list[dict[str, Any]]:
        """Return what was told of hooks so far, which is so much at last."""
        return await wait_until_async(lambda: self._told(count), 20, f"{count} hooks")

    def _told(self, count: int) -> list[dict[str, Any]]:
        found = [json.loads(record) for record in self.events.since(1).records]
        found = [record for record in found if record["event"].startswith("hook_")]
        return found if len(found) >= count else []

    def log(self, name: str = "h") -> str:
        return (self.state / f"hook-{name}.log").read_text()

    async def pids(self, count: int) -> list[int]:
        """Return the shells that run, which are so many at last."""
        path = self.state / "pids"
        await wait_until_async(lambda: path.exists() and path.read_text().count("\n") == count, 20, "shells")
        return [int(line) for line in path.read_text().split()]

    def gate(self) -> None:
        os.mkfifo(self.state / "gate")

    async def open_gate(self) -> None:
        """Let the shells that wait go on."""
        writer = await asyncio.to_thread(os.open, self.state / "gate", os.O_WRONLY | os.O_CLOEXEC)
        os.write(writer, b"go\n")
        os.close(writer)


@pytest.fixture
async def hooks(keeper: RealKeeper, short_dir: Path) -> AsyncIterator[Hooks]:
    state = short_dir / "s"
    state.mkdir()
    made = Hooks(keeper, state)
    yield made
    await made.end()


async def test_command_has_the_facts_and_what_it_prints_is_logged(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    program = (
        "import json, os, sys; facts = {k: v for k, v in os.environ.items() if k.startswith('UMLAB_')}; "
        "fds = [int(fd) for fd in os.listdir('/proc/self/fd')]; "
        "print(json.dumps([facts, 'NOTIFY_SOCKET' in os.environ, json.load(sys.stdin), os.getcwd(), "
        "max(fds), os.getsid(0) == os.getpid(), sys.argv])); sys.exit(3)"
    )
    await hooks.put(sys.executable, "-c", program, "a b", "$HOME")
    hooks.events.publish(PANIC)
    (told,) = await hooks.told()
    assert told.pop("at") > 0
    assert 0 < told.pop("seconds") < 20
    assert told == {"event": "hook_ran", "hook": "h", "guest": "left", "on": "guest_panicked", "status": 3}
    head, line = hooks.log().splitlines()
    assert head.startswith("--- ")
    assert head.endswith(" guest_panicked left")
    facts, notified, record, directory, highest, leads, words = json.loads(line)
    assert facts.pop("UMLAB_AT")
    # What the tests themselves are told.
    facts = {key: value for key, value in facts.items() if os.environ.get(key) != value}
    assert facts == {
        "UMLAB_LAB": "lan",
        "UMLAB_HOOK": "h",
        "UMLAB_EVENT": "guest_panicked",
        "UMLAB_GUEST": "left",
        "UMLAB_MESSAGE": r"a\x1b[2J\nb\x00",
    }
    assert record.pop("at") > 0
    assert record == {"lab": "lan", "hook": "h", **PANIC}
    # The standard ones, and the directory that was listed.
    assert highest == 3
    assert (notified, directory, leads) == (False, str(hooks.state), True)
    assert words == ["-c", "a b", "$HOME"]
    assert stat.S_IMODE((hooks.state / "hook-h.log").stat().st_mode) == 0o600


async def test_only_what_it_waits_for_runs_it(hooks: Hooks) -> None:
    await hooks.shell("echo $UMLAB_EVENT $UMLAB_GUEST", on=("guest_ended", "guest_silent"), guests="web*")
    for event in ("port_attached", "guest_panicked", "guest_ended", "capture_began"):
        for guest in ("left", "web1"):
            hooks.events.publish({"event": event, "guest": guest})
    hooks.events.publish({"event": "switch_started"})
    hooks.events.publish({"event": "guest_silent", "guest": "web2", "seconds": 30.5})
    assert len(await hooks.told(2)) == 2
    lines = [line for line in hooks.log().splitlines() if not line.startswith("---")]
    assert sorted(lines) == ["guest_ended web1", "guest_silent web2"]


@pytest.mark.parametrize("program", ["/no/such/program", "/etc/passwd", "no-such-program"])
async def test_what_cannot_be_started_is_told(hooks: Hooks, program: str) -> None:
    await hooks.put(program)
    hooks.events.publish(PANIC)
    (told,) = await hooks.told()
    assert told["event"] == "hook_failed"
    assert program in told["reason"]


async def test_log_that_cannot_be_written_is_told(hooks: Hooks) -> None:
    (hooks.state / "hook-h.log").symlink_to("/etc/passwd")
    await hooks.shell("echo no")
    hooks.events.publish(PANIC)
    (told,) = await hooks.told()
    assert "hook-h.log" in told["reason"]


async def test_long_log_gives_way(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT", 10)
    await hooks.shell("echo $UMLAB_MESSAGE")
    for count, message in enumerate(("one", "two", "three"), 1):
        hooks.events.publish(PANIC | {"message": message})
        await hooks.told(count)
    assert hooks.log().endswith("three\n")
    assert (hooks.state / "hook-h.log.1").read_text().endswith("two\n")
    assert len(list(hooks.state.iterdir())) == 2


async def test_command_over_its_time_is_killed_with_its_group(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.3)
    await hooks.shell("trap '' TERM; sleep 1000 & echo $! >>pids; echo $$ >>pids; wait; wait")
    hooks.events.publish(PANIC)
    (told,) = await hooks.told()
    assert told["event"] == "hook_failed"
    assert told["reason"] == "it did not end within 0.3 seconds and was killed"
    pids = await hooks.pids(2)
    await wait_until_async(lambda: all(map(is_gone, pids)), 10, "their end")


async def test_what_a_command_leaves_is_killed(hooks: Hooks) -> None:
    await hooks.shell("sleep 1000 & echo $! >>pids")
    hooks.events.publish(PANIC)
    (told,) = await hooks.told()
    assert (told["event"], told["status"]) == ("hook_ran", 0)
    (pid,) = await hooks.pids(1)
    await wait_until_async(lambda: is_gone(pid), 10, "its end")


async def test_so_many_run_and_wait_and_the_rest_is_counted(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TELL_TIME", 0.1)
    hooks.gate()
    await hooks.shell(WAITS)
    await hooks.shell("echo me too", name="other", guests="right")
    for _ in range(MAX_RUNNING + MAX_WAITING + 7):
        hooks.events.publish(PANIC)
    (told,) = await hooks.told()
    assert told.pop("at") > 0
    assert told == {"event": "hook_dropped", "hook": "h", "count": 7}
    pids = await hooks.pids(MAX_RUNNING)
    # Another one does not wait for it.
    hooks.events.publish(PANIC | {"guest": "right"})
    assert (await hooks.told(2))[1]["hook"] == "other"
    # Those that end make way for others that wait.
    await hooks.open_gate()
    await hooks.pids(2 * MAX_RUNNING)
    # Its end is the end of all of them, and of what waits.
    assert await hooks.set.remove("h")
    await wait_until_async(lambda: all(map(is_gone, pids)), 10, "their end")
    assert len(await hooks.pids(2 * MAX_RUNNING)) == 2 * MAX_RUNNING


async def test_hook_is_put_shown_replaced_and_removed(hooks: Hooks) -> None:
    hooks.gate()
    hook = Hook("h", ("guest_panicked",), ("/bin/sh", "-c", WAITS))
    assert await hooks.set.put(hook)
    assert not await hooks.set.put(hook)
    hooks.events.publish(PANIC)
    (pid,) = await hooks.pids(1)
    assert await hooks.set.put(replace(hook, guests="web*"))
    assert is_gone(pid)
    (view,) = hooks.set.views()
    assert (view.name, view.on, view.guests, view.run) == ("h", hook.on, "web*", hook.run)
    assert view.log == str(hooks.state / "hook-h.log")
    assert hooks.set.view("h") == view
    assert await hooks.set.remove("h")
    assert not await hooks.set.remove("h")
    with pytest.raises(NoSuchHook, match="no hook h"):
        hooks.set.view("h")
    assert hooks.set.views() == []


async def test_there_are_not_too_many(hooks: Hooks) -> None:
    for number in range(MAX_HOOKS):
        await hooks.put("/bin/true", name=f"h{number}")
    with pytest.raises(LimitReached, match="32 hooks"):
        await hooks.put("/bin/true")
    assert await hooks.set.put(Hook("h1", ("guest_ended",), ("/bin/true",)))


BAD: dict[str, dict[str, Any]] = {
    "no name": {"name": "../x"},
    "no event": {"on": ()},
    "event of another kind": {"on": ("port_attached",)},
    "event of hooks": {"on": ("hook_ran",)},
    "no command": {"run": ()},
    "empty program": {"run": ("", "x")},
    "NUL": {"run": ("/bin/true", "a\0b")},
    "long": {"run": ("/bin/true", "x" * 16384)},
    "empty pattern": {"guests": ""},
    "long pattern": {"guests": "x" * 65},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_what_cannot_be_a_hook_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(LabError):
        Hook(**{"name": "h", "on": ("guest_ended",), "run": ("/bin/true",)} | fields)


async def test_next_daemon_has_the_hooks_and_ends_what_runs(hooks: Hooks) -> None:
    hooks.gate()
    await hooks.shell(WAITS, guests="l*")
    before = hooks.set.views()
    hooks.events.publish(PANIC)
    (pid,) = await hooks.pids(1)
    # A daemon that is killed says nothing to its children, which go on.
    hooks.link.close()
    hooks.begin()
    assert hooks.set.views() == before
    await wait_until_async(lambda: is_gone(pid), 10, "its end")
    hooks.events.publish(PANIC)
    await hooks.pids(2)
    await hooks.open_gate()
    (told,) = await hooks.told()
    assert told["status"] == 0


async def test_orderly_end_leaves_nothing_running(hooks: Hooks) -> None:
    hooks.gate()
    await hooks.shell(WAITS)
    hooks.events.publish(PANIC)
    (pid,) = await hooks.pids(1)
    await hooks.set.close()
    assert is_gone(pid)
    hooks.events.publish(PANIC)
    assert len(await hooks.pids(1)) == 1


async def test_record_that_is_not_understood_is_given_up(
    kept: KeptLab, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        await kept.lab.hooks.put(Hook(name, ("guest_ended",), ("/bin/true",)))
    await kept.alter("hook/a", lambda meta, _: meta.update(on=["guest_abducted"]))
    await kept.start()
    assert "hook/a cannot be taken over" in caplog.text
    assert [view.name for view in kept.lab.hooks.views()] == ["b"]
    await kept.crash()
    assert kept.kept() == {"hook/b"}


def test_every_kind_is_one_of_a_guest() -> None:
    assert all(kind.startswith("guest_") for kind in GUEST_EVENTS)
