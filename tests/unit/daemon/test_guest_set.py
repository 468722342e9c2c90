"""The guests of a daemon, held by a real keeper, with scripts in the place of kernels."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.kept_lab import KeptLab
from support.real_keeper import start
from umlab.daemon.device_order import DeviceOrder
from umlab.errors import (
    AlreadyExists,
    LabError,
    LimitReached,
    MconsoleError,
    NoSuchConsole,
    NoSuchGuest,
)
from umlab.guest.console import TAIL_SIZE
from umlab.guest.watch import group_members

Change = Callable[[dict[str, Any], list[int]], list[int] | None]


def events(kept: KeptLab) -> list[str]:
    return [record.partition('"event":"')[2].partition('"')[0] for record in kept.lab.events.since(1).records]


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.dup(0) for _ in range(count)]
    end = max(spare) + 1
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (end, hard))
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        for fd in spare:
            os.close(fd)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


class TestLife:
    async def test_guest_is_started_once_seen_and_removed_without_a_trace(self, kept: KeptLab) -> None:
        lab, spec = kept.lab, kept.spec()
        assert await lab.put_guest(spec)
        pid = await kept.ready()
        assert not await lab.put_guest(spec)
        with pytest.raises(AlreadyExists):
            await lab.put_guest(kept.spec(memory=64 << 20))
        view = lab.guest("g")
        assert (view.pid, view.status, view.kernel) == (pid, None, str(kept.kernel))
        assert lab.lab().guests == ("g",)
        assert [view.name for view in lab.guests()] == ["g"]
        assert [console.name for console in lab.consoles.views("g")] == ["con0", "con1"]
        assert lab.switch_set.guest_of(pid) == "g"
        assert lab.switch_set.guest_of(1) is None
        assert await lab.remove_guest("g")
        assert not await lab.remove_guest("g")
        assert group_members(pid) == []
        assert os.listdir(kept.runtime / "g") == []
        assert events(kept) == ["guest_started", "guest_ready", "guest_ended", "guest_removed"]
        await kept.crash()
        assert kept.kept() == set()

    async def test_ended_guest_is_shown_until_it_is_started_anew(self, kept: KeptLab) -> None:
        await kept.lab.put_guest(kept.spec())
        pid = await kept.ready()
        os.killpg(pid, signal.SIGKILL)
        await wait_until_async(lambda: kept.lab.guest("g").state == "ended", 10, "its end")
        assert kept.lab.guest("g").status == -signal.SIGKILL
        await asyncio.wait_for(kept.lab.consoles.wait_log("g", "con0", 1 << 30), scaled(10))
        assert await kept.lab.put_guest(kept.spec(memory=64 << 20))
        assert await kept.ready() != pid
        assert str(pid) not in kept.log()

    async def test_unknown_names_are_errors(self, kept: KeptLab) -> None:
        await kept.lab.put_guest(kept.spec())
        with pytest.raises(NoSuchGuest):
            kept.lab.guest("x")
        with pytest.raises(NoSuchGuest):
            await kept.lab.devices.put("x", "eth0", DeviceOrder("mcast"))
        with pytest.raises(NoSuchGuest):
            await kept.lab.devices.remove("x", "eth0")
        for console in ("con0", "con7", "ssl0", "x"):
            with pytest.raises(NoSuchConsole):
                await kept.lab.consoles.terminal("g", console)
        # This kernel has no management console.
        order = DeviceOrder("mcast")
        for call in (kept.lab.devices.put("g", "eth1", order), kept.lab.devices.remove("g", "eth1")):
            with pytest.raises(MconsoleError):
                await call

    async def test_log_is_read_from_anywhere(self, kept: KeptLab) -> None:
        await kept.lab.put_guest(kept.spec())
        await kept.ready()
        text = b"x" * 1000 + b"\n"
        waiting = asyncio.ensure_future(kept.lab.consoles.wait_log("g", "con0", len(kept.log())))
        for _ in range(100):
            while True:
                try:
                    (await kept.lab.consoles.terminal("g", "con1")).write(text)
                    break
                except LimitReached:
                    await asyncio.sleep(0.01)
        await asyncio.wait_for(waiting, scaled(20))
        await wait_until_async(lambda: kept.log().count("\n") == 101, 30, "all of it")
        whole = kept.log().encode()
        total = len(whole)
        assert total > TAIL_SIZE + 1000
        assert kept.lab.consoles.log("g", "con0", 5, 10) == kept.lab.consoles.log("g", "con0", 5 - total, 10)
        assert kept.lab.consoles.log("g", "con0", 5, 10).data == whole[5:15]
        assert kept.lab.consoles.log("g", "con0", -10, 100).data == whole[-10:]
        assert (
            kept.lab.consoles.log("g", "con0", total + 9, 5).start,
            kept.lab.consoles.log("g", "con0", total, 5).data,
        ) == (total, b"")
        # As on a full disk: the file has ended before, the latest is there.
        os.truncate(kept.state / "g" / "console.log", 100)
        assert kept.lab.consoles.log("g", "con0", 90, 100).data == whole[90:100]
        late = kept.lab.consoles.log("g", "con0", 100, 1 << 20)
        assert (late.start, late.data) == (total - TAIL_SIZE, whole[-TAIL_SIZE:])

    async def test_stop_ends_all_guests_at_the_same_time(self, kept: KeptLab) -> None:
        for name in ("a", "b"):
            await kept.lab.put_guest(kept.spec(name))
        pids = [await kept.ready(name) for name in ("a", "b")]
        await kept.lab.stop()
        assert not any(group_members(pid) for pid in pids)
        assert not kept.keeper.path.exists()


class TestTakenOver:
    async def test_guest_goes_on_as_it_was(self, kept: KeptLab) -> None:
        await kept.lab.put_guest(kept.spec())
        pid = await kept.ready()
        before = kept.lab.guest("g")
        await kept.restart()
        assert kept.lab.guest("g") == before
        assert not await kept.lab.put_guest(kept.spec())
        assert kept.log() == f"console of {pid}\n"
        # Its terminal shows what it showed and goes both ways, and what it prints goes on in the log.
        assert f"terminal of {pid}" in (await kept.lab.consoles.screen("g", "con1")).lines
        terminal = await kept.lab.consoles.terminal("g", "con1")
        viewer = terminal.attach()
        assert await viewer.read() == (24, 80)
        assert f"terminal of {pid}".encode() in await viewer.read()
        terminal.write(b"typed\n")
        await wait_until_async(lambda: kept.log() == f"console of {pid}\ntyped\n", 10, "the echo")
        terminal.detach(viewer)
        # What the terminal printed is in a log of its own, with the times of both daemons.
        await wait_until_async(
            lambda: b"typed" in kept.lab.consoles.log("g", "con1", 0, 999).data, 10, "its log"
        )
        printed = kept.lab.consoles.log("g", "con1", 0, 999).data
        assert printed.startswith(f"terminal of {pid}".encode())
        times = kept.lab.consoles.log_times("g", "con1", 0, None, 99)
        assert times[0].offset == 0
        assert len(times) >= 2
        assert before.started_at - 1 < times[0].at <= times[-1].at
        assert kept.lab.consoles.log_times("g", "con1", 0, times[-1].at, 99) == times[-1:]
        with pytest.raises(NoSuchConsole):
            kept.lab.consoles.log("g", "con4", 0, 9)
        assert events(kept) == ["guest_resumed"]
        # A third one as well, and it can end it.
        await kept.restart()
        assert kept.log() == f"console of {pid}\ntyped\n"
        assert await kept.lab.remove_guest("g")
        assert group_members(pid) == []

    async def test_guest_that_was_booting_becomes_ready(self, kept: KeptLab) -> None:
        gate = kept.runtime / "gate"
        os.mkfifo(gate)
        text = kept.kernel.read_text()
        kept.kernel.write_text(text.replace('echo "umlab-agent', f'read -r x <{gate}\necho "umlab-agent'))
        await kept.lab.put_guest(kept.spec())
        await kept.restart()
        assert kept.lab.guest("g").state == "booting"
        writer = await asyncio.to_thread(os.open, gate, os.O_WRONLY | os.O_CLOEXEC)
        os.write(writer, b"\n")
        os.close(writer)
        await kept.ready()
        await kept.restart()
        assert kept.lab.guest("g").state == "ready"

    async def test_guest_that_ended_meanwhile_has_ended_and_is_started_anew(self, kept: KeptLab) -> None:
        await kept.lab.put_guest(kept.spec())
        pid = await kept.ready()
        await kept.crash()
        os.killpg(pid, signal.SIGKILL)
        await wait_until_async(lambda: not group_members(pid), 10, "its end")
        await kept.start()
        await wait_until_async(lambda: kept.lab.guest("g").state == "ended", 10, "its state")
        assert kept.lab.guest("g").status == -signal.SIGKILL
        assert await kept.lab.put_guest(kept.spec())
        assert await kept.ready() != pid

    async def test_what_is_plugged_is_known_to_the_next_daemon(self, kept: KeptLab) -> None:
        from umlab.guest.cmdline import BessNic

        await kept.lab.put_guest(kept.spec(nics=(BessNic("/x/y"),)))
        await kept.ready()
        before = kept.lab.guest_set.find("g").plugged
        assert before["vec0"] == "transport=bess,dst=/x/y"
        await kept.restart()
        assert kept.lab.guest_set.find("g").plugged == before


def no_key(key: str) -> Change:
    return lambda meta, fds: meta.pop(key) and None


def key(key: str, value: Any) -> Change:
    return lambda meta, fds: meta.update({key: value})


def spec_key(key: str, value: Any) -> Change:
    return lambda meta, fds: meta["spec"].update({key: value})


def file_for(index: int) -> Change:
    """Put a regular file in the place of a descriptor."""

    def change(meta: dict[str, Any], fds: list[int]) -> list[int]:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), fds[index], inheritable=False)
        return fds

    return change


UNUSABLE: dict[str, Change] = {
    "no description": no_key("spec"),
    "no memory": no_key("memory_path"),
    "no state": no_key("ready"),
    "nothing plugged": key("plugged", None),
    "no object": key("spec", 5),
    "little memory": spec_key("memory", 5),
    "another name": spec_key("umid", "../x"),
    "unknown key": spec_key("vcpus", 2),
    "unknown key below": lambda meta, fds: meta["spec"]["root"].update(format="qcow2"),
    "unknown root": spec_key("root", {"image": "/x"}),
    "too few descriptors": lambda meta, fds: fds[:-1],
    "no descriptors": lambda meta, fds: [],
    "too many descriptors": lambda meta, fds: [*fds, fds[0]],
    "console is a file": file_for(1),
    "channel is a file": file_for(2),
    "terminal is a file": file_for(3),
    "scrollback is empty": file_for(4),
}


class TestUnusable:
    @pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE)
    async def test_guest_that_cannot_be_understood_is_ended_and_all_else_goes_on(
        self, kept: KeptLab, change: Change, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in ("g", "other"):
            await kept.lab.put_guest(kept.spec(name))
        pid, other = await kept.ready("g"), await kept.ready("other")
        await kept.alter("guest/g", change)
        await kept.start()
        assert "guest g cannot be taken over" in caplog.text
        assert [guest.name for guest in kept.lab.guests()] == ["other"]
        assert kept.lab.guest("other").pid == other
        # Its name is free at once.
        assert await kept.lab.put_guest(kept.spec())
        assert group_members(pid) == []
        assert await kept.ready() != pid
        await kept.crash()
        assert kept.kept() == {"guest/g", "group/g", "guest/other", "group/other"}

    async def test_processes_without_a_record_are_ended(self, kept: KeptLab) -> None:
        running, ended = await start(kept.link, "running"), await start(kept.link, "ended", "exit 0")
        await ended.gone(10)
        await kept.restart()
        for name in ("running", "ended"):
            assert await kept.lab.put_guest(kept.spec(name))
        assert group_members(running.pid) == []

    async def test_record_without_processes_is_given_up(
        self, kept: KeptLab, caplog: pytest.LogCaptureFixture
    ) -> None:
        await kept.lab.put_guest(kept.spec())
        pid = await kept.ready()
        await kept.crash()
        os.killpg(pid, signal.SIGKILL)
        link = kept.keeper.connect()
        assert await link.groups["g"].gone(10)
        link.groups["g"].forget()
        link.close()
        await kept.start()
        assert kept.lab.guests() == []
        assert await kept.lab.put_guest(kept.spec())


class TestFailures:
    async def test_name_that_is_none_and_kernel_that_is_missing_start_nothing(self, kept: KeptLab) -> None:
        kept.kernel.unlink()
        with pytest.raises(LabError, match="no kernel"):
            await kept.lab.put_guest(kept.spec())
        assert kept.lab.guests() == []
        await kept.crash()
        assert kept.kept() == set()

    async def test_more_than_the_keeper_takes_is_an_error(self, kept: KeptLab) -> None:
        with pytest.raises(LabError, match="bytes and 19 descriptors for the keeper"):
            await kept.lab.put_guest(kept.spec(writable=tuple(f"/{n:0200}" for n in range(1000))))
        assert kept.lab.guests() == []

    async def test_log_that_cannot_be_written_is_an_error(self, kept: KeptLab) -> None:
        (kept.state / "g").write_text("")
        with pytest.raises(LabError, match="no console log in"):
            await kept.lab.put_guest(kept.spec())

    async def test_start_without_descriptors_is_an_error_and_leaves_nothing(self, kept: KeptLab) -> None:
        seen = set()
        for left in range(1, 90):
            with descriptors_left(left):
                try:
                    await kept.lab.put_guest(kept.spec())
                except LabError as error:
                    seen.add(str(error))
                    assert kept.lab.guests() == []
                else:
                    break
        assert left > 5
        assert all("Too many open files" in error for error in seen), seen
        await kept.ready()
        assert len(kept.link.groups) == 1

    async def test_stopped_keeper_does_not_hold_up_the_end(
        self, kept: KeptLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from umlab.keeper import link as link_module

        monkeypatch.setattr(link_module, "_END_TIMEOUT", 0.2)
        kept.keeper.signal(signal.SIGSTOP)
        with pytest.raises(LabError, match="does not end"):
            await kept.lab.stop()
