"""A real guest says what happens to it: its messages, its silence, its panic; and hooks are run for that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled, wait_until_async
from support.real_keeper import RealKeeper
from umlab.daemon.hook import Hook
from umlab.daemon.lab import LabService
from umlab.errors import GuestFailed
from umlab.guest import landlock
from umlab.guest.cmdline import GuestSpec
from umlab.mconsole.command import Command

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: More messages than there is room for in the socket and in the allowance.
FLOOD = "i=0; while [ $i -lt 400 ]; do echo m$i; i=$((i+1)); done >/proc/mconsole"


class Watched:
    """A lab in this process, and what has happened in it."""

    def __init__(self, keeper: RealKeeper, directory: Path) -> None:
        self.path = directory
        for name in ("r", "s"):
            (directory / name).mkdir(mode=0o700)
        self.lab = LabService("lan", directory / "r", directory / "s", keeper.connect())
        self.records: list[dict[str, Any]] = []
        self.lab.events.subscribers.append(self.records.append)

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for so many events of a kind, and return the last one."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.records if each["event"] == kind]

        await wait_until_async(lambda: len(found()) >= count, 60, f"{count} {kind}")
        return found()[-1]

    def told(self) -> int:
        """Return how many messages have become events."""
        return self.kinds().count("guest_message")

    def dropped(self) -> int:
        """Return how many messages have not."""
        records = [each for each in self.records if each["event"] == "guest_notify_dropped"]
        assert not any(each["malformed"] for each in records)
        return sum(each["over_limit"] for each in records)

    def kinds(self, *but: str) -> list[str]:
        return [each["event"] for each in self.records if each["event"] not in but]


@pytest.fixture
async def watched(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setenv("TMPDIR", str(short_dir))
    keeper = RealKeeper(short_dir)
    made = Watched(keeper, short_dir)
    await made.lab.resume()
    yield made
    await made.lab.stop()
    await keeper.end()


async def test_life_of_a_guest_is_told_and_its_panic_has_a_hook_run(watched: Watched) -> None:
    lab = watched.lab
    script = 'cat; echo "$UMLAB_GUEST: $UMLAB_MESSAGE"'
    await lab.hooks.put(Hook("h", ("guest_panicked", "guest_silent"), ("/bin/sh", "-c", script), "l*"))
    await lab.put_guest(GuestSpec("left", debian_kernel()))
    assert landlock.abi() > 0
    member = lab.guest_set.find("left")
    await watched.until("guest_ready")
    assert watched.kinds() == ["guest_started", "guest_console", "guest_ready"]

    run = member.service.run
    assert (await run(r"printf 'hello\033[2J\n' >/proc/mconsole", 20)).status == 0
    assert (await watched.until("guest_message"))["message"] == "hello\x1b[2J"
    assert (await run(FLOOD, 20)).status == 0
    # The first message is none of these.
    await wait_until_async(lambda: watched.told() + watched.dropped() == 401, 20, "all to be accounted for")
    assert watched.dropped() > 100

    # A guest that umlab has stopped is none that is silent: its console answers.
    assert await member.service.mconsole.stop() == "stopped"
    assert (await member.kernel.run(Command("version"))).startswith("Linux")
    await member.service.mconsole.go()
    await wait_until_async(lambda: lab.guest("left").answers is True, 20, "an answer")

    # Watched anew, with less patience.
    watchdog = lab.guest_set.watchdog
    watchdog.interval, watchdog.limit = 0.2, scaled(2.0)
    watchdog.forget("left")
    watchdog.watch(member)
    await wait_until_async(lambda: lab.guest("left").answers is True, 20, "another answer")
    os.kill(member.guest.pid, signal.SIGSTOP)
    silent = await watched.until("guest_silent")
    os.kill(member.guest.pid, signal.SIGCONT)
    assert silent["seconds"] >= 2.0
    assert lab.guest("left").answers is False
    await watched.until("guest_answers")
    await watched.until("hook_ran")
    await asyncio.gather(member.service.reboot(60), watched.until("guest_rebooted"))

    with pytest.raises(GuestFailed):
        await run("echo c >/proc/sysrq-trigger", 20)
    await watched.until("guest_ended")
    ran = await watched.until("hook_ran", 2)
    assert watched.kinds("hook_ran")[-2:] == ["guest_panicked", "guest_ended"]
    assert ran["on"] == "guest_panicked"
    assert ran["status"] == 0
    record, line = (watched.path / "s/hook-h.log").read_text().splitlines()[-2:]
    assert json.loads(record)["message"] == "sysrq triggered crash"
    assert line == "left: sysrq triggered crash"
    assert lab.guest("left").answers is None

    await lab.remove_guest("left")
    assert os.listdir(watched.path / "r/g") == []
