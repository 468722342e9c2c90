"""A guest's life with a shell script in the place of its kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from umlab.errors import GuestFailed, LabError
from umlab.guest import landlock, mounts
from umlab.guest.cmdline import GuestSpec, HostRoot
from umlab.guest.console import Console
from umlab.guest.containment import check_containment, is_contained, restrictions
from umlab.guest.group import LocalGroup
from umlab.guest.inside.agent_line import SESSIONS
from umlab.guest.process import Guest, GuestHandle, Rung
from umlab.guest.rundir import RunDirectory
from umlab.guest.watch import WatchedGroup

LONG = scaled(20)
#: Says hello on the console, greets on the serial line as an agent does, and ends on SIGTERM.
KERNEL = """#!{python} -IS
import os, signal, sys, time
def on(number, status=None, text=""):
    def handle(*_):
        print(text, end="", flush=True)
        if status is not None:
            os._exit(status)
    signal.signal(number, handle)
on(signal.SIGTERM, 1)
print("console", os.getcwd(), flush=True)
line = next(int(word[8:]) for word in sys.argv if word.startswith("ssl0=fd:"))
{script}
os.write(line, b"umlab-agent 2 line 0 1\\n")
while True:
    time.sleep(1)
"""
IGNORE_TERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
Start = Callable[..., Awaitable[Guest]]


@pytest.fixture
async def start(tmp_path: Path, short_dir: Path) -> AsyncIterator[Start]:
    guests: list[Guest] = []

    async def start(script: str = "", **fields: object) -> Guest:
        kernel = tmp_path / "linux"
        kernel.write_text(KERNEL.format(python=sys.executable, script=script))
        kernel.chmod(0o755)
        spec = GuestSpec("g", str(kernel), **fields)  # type: ignore[arg-type]
        guest = await Guest.start(spec, str(short_dir))
        guests.append(guest)
        return guest

    yield start
    for guest in guests:
        await guest.stop(term_timeout=0)


async def nothing() -> None:
    pass


async def test_ready_console_and_term(start: Start, short_dir: Path) -> None:
    guest = await start()
    await guest.ready(LONG)
    assert guest.status is None
    report = await guest.stop(term_timeout=LONG)
    assert (report.rung, report.status) == ("term", 1)
    assert guest.console.text == f"console {short_dir}/g\n"
    assert os.listdir(short_dir) == []
    assert (await guest.stop()).rung == "ended"


async def test_rungs_are_taken_in_turn_until_one_holds(start: Start) -> None:
    guest = await start(IGNORE_TERM + "; on(signal.SIGUSR1, 5)")
    await guest.ready(LONG)
    taken: list[str] = []

    def rung(name: str, number: signal.Signals | None) -> Rung:
        async def action() -> None:
            taken.append(name)
            if number is None:
                raise LabError("does not hold")
            os.kill(guest.pid, number)

        return Rung(name, action, LONG if name != "short" else 0.1)

    ladder = [rung("broken", None), rung("short", signal.SIGTERM), rung("holds", signal.SIGUSR1)]
    report = await guest.stop([*ladder, rung("never", None)])
    assert taken == ["broken", "short", "holds"]
    assert (report.rung, report.status) == ("holds", 5)


async def test_sign_ends_the_waiting_of_a_rung(start: Start) -> None:
    guest = await start("on(signal.SIGUSR1, text='all is down')")
    await guest.ready(LONG)

    async def ask() -> None:
        os.kill(guest.pid, signal.SIGUSR1)

    rung = Rung("ask", ask, scaled(1000), until=lambda: guest.console.wait_for(b"all is down"))
    assert (await guest.stop([rung], term_timeout=LONG)).rung == "term"


async def test_deaf_guest_is_killed_with_its_group(start: Start) -> None:
    guest = await start(IGNORE_TERM + "; os.fork()")
    await guest.ready(LONG)
    report = await guest.stop(term_timeout=0.1)
    assert (report.rung, report.status) == ("kill", -signal.SIGKILL)


async def test_death_before_ready_is_reported_with_the_console(start: Start) -> None:
    guest = await start("print('last words', flush=True); os._exit(9)")
    with pytest.raises(GuestFailed) as caught:
        await guest.ready(LONG)
    assert caught.value.status == 9
    assert "last words" in caught.value.console_tail


async def test_error_inside_the_block_ends_the_guest(start: Start) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await start() as guest:
            raise ZeroDivisionError
    assert guest.status is not None


async def test_root_without_landlock_is_refused_unless_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(mounts, "is_possible", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LabError, match="Landlock"):
        await start()
    monkeypatch.undo()
    await start(landlock=False)
    assert "without Landlock" in caplog.text


def test_user_without_landlock_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not is_contained(GuestSpec("g"))
    check_containment(GuestSpec("g"))
    assert "this kernel has no Landlock" in caplog.text


def test_root_without_landlock_has_mounts_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(mounts, "is_possible", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_containment(GuestSpec("g"))
    assert is_contained(GuestSpec("g"))
    assert not is_contained(GuestSpec("g", landlock=False))
    assert caplog.text == ""


def test_attributes_of_files_are_for_guests_that_have_a_folder(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 7)
    monkeypatch.setattr(mounts, "is_possible", lambda: True)
    run = RunDirectory(str(short_dir), "g")
    (short_dir / "disk").touch()
    for uid, spec, expected in (
        (0, GuestSpec("g", writable=(f"{short_dir}/disk",)), "landlock,attributes"),
        (0, GuestSpec("g", writable=(str(short_dir),)), "landlock,mounts"),
        (0, GuestSpec("g", root=HostRoot(shared=(str(short_dir),))), "landlock,mounts"),
        (1000, GuestSpec("g", writable=(str(short_dir),)), "landlock"),
        (1000, GuestSpec("g"), "landlock,attributes"),
        (1000, GuestSpec("g", landlock=False), "none"),
    ):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert restrictions(spec, run)[0] == expected
    monkeypatch.undo()
    run.remove()


async def test_missing_writable_place_is_told_on_the_console(start: Start) -> None:
    guest = await start(writable=("/no/such/place",))
    assert await guest.wait() == 125
    assert "/no/such/place" in guest.console.text


@pytest.mark.parametrize("terminal", [False, True])
async def test_guest_is_handed_on_and_goes_on(tmp_path: Path, short_dir: Path, terminal: bool) -> None:
    kernel = tmp_path / "linux"
    kernel.write_text(
        KERNEL.format(
            python=sys.executable,
            script="sys.stdout.flush(); on(signal.SIGUSR1, text='later '); on(signal.SIGTERM, 1, 'end')",
        )
    )
    kernel.chmod(0o755)
    spec = GuestSpec("g", str(kernel))
    first = await Guest.start(spec, str(short_dir), terminal=terminal)
    await first.ready(LONG)
    assert (first.terminal >= 0) is terminal
    handle = first.handle()
    assert len(handle.fds) == 3 + 2 * SESSIONS + terminal
    kept = GuestHandle(
        handle.memory_path, handle.started_at, {name: os.dup(fd) for name, fd in handle.fds.items()}
    )
    await first.let_go()
    await first.let_go()
    os.kill(first.pid, signal.SIGUSR1)

    second = Guest.adopt(spec, str(short_dir), kept, Console(), first._group, ready=True)
    loop = asyncio.get_running_loop()
    watch: WatchedGroup = first._group._watch  # type: ignore[attr-defined]

    def ended(status: int) -> None:
        loop.call_soon_threadsafe(second.ended, status)

    watch._on_end = ended
    assert (second.pid, second.started_at, second.status) == (first.pid, first.started_at, None)
    assert (second.terminal >= 0) is terminal
    await second.ready(LONG)
    await wait_until_async(lambda: "later" in second.console.text, 10, "what it printed meanwhile")
    report = await second.stop(term_timeout=LONG)
    assert (report.rung, report.status) == ("term", 1)
    assert second.console.text.endswith("end")
    assert os.listdir(short_dir) == []
    assert not os.path.exists(handle.memory_path)


async def test_handle_that_is_none_stays_the_callers(short_dir: Path) -> None:
    (short_dir / "g").mkdir()
    spec = GuestSpec("g", "/bin/true")
    group = LocalGroup(WatchedGroup([], cwd="/", env={}, output=1, on_end=lambda _: None), 1)

    def adopt(lock: int, output: int, line: int) -> None:
        lines = {"channel": line, **{f"line{number}": line for number in range(1, 1 + 2 * SESSIONS)}}
        handle = GuestHandle("/x", 0.0, {"lock": lock, "output": output, **lines})
        Guest.adopt(spec, str(short_dir), handle, Console(), group, ready=False)

    for names in ((), ("lock", "output", "channel"), ("output", "line1")):
        handle = GuestHandle("/x", 0.0, dict.fromkeys(names, 0))
        with pytest.raises(LookupError):
            Guest.adopt(spec, str(short_dir), handle, Console(), group, ready=False)
    file = os.open(short_dir / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # No socket; then a console that cannot be watched.
        for fds in ((file, file, file), (file, file, ours.fileno())):
            with pytest.raises(OSError, match=r"non-socket|not permitted"):
                adopt(*fds)
        ours.send(b"still open")
        assert theirs.recv(20) == b"still open"
    os.close(file)
