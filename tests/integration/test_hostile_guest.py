"""A guest whose main process dies alone: nothing of it may go on as a process of the host.

Each test lets a guest program do in a loop what would be seen on the host if it ran there, then kills
only the main process.  The loops are harmless as host processes: they make one file in the test's
directory.
"""

from __future__ import annotations

import base64
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.peers.uml_kernel import debian_kernel, running_guest
from support.deadline import POLL_INTERVAL, deadline, scaled, wait_until, wait_until_async
from umlab.daemon.guest import GuestService
from umlab.guest import landlock
from umlab.guest.watch import group_members

pytestmark = pytest.mark.integration


def looping_program(path: str, *, flee: bool) -> bytes:
    """Return a program of one page that makes a file again and again.

    Nothing has to be paged in once it runs, so it goes on at once when its kernel is gone.

    Args:
        path: The file.
        flee: Leave the process group in each turn, as a program would that wants to outlive its group.
    """
    base, start = 0x400000, 120
    code = b"\xb8\x70\0\0\0\x0f\x05" if flee else b""  # eax = setsid; syscall
    name = base + start + len(code) + 17 + 9 + 2
    code += b"\xb8\x55\0\0\0\xbf" + struct.pack("<I", name)  # eax = creat; edi = name
    code += b"\xbe\xa4\x01\0\0\x0f\x05"  # esi = 0644; syscall
    code += b"\x89\xc7\xb8\x03\0\0\0\x0f\x05"  # edi = eax; eax = close; syscall
    code += b"\xeb" + struct.pack("b", -len(code) - 2)  # jump to the beginning
    assert base + start + len(code) == name
    body = code + path.encode() + b"\0"
    size = start + len(body)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    return header + body


@pytest.fixture
def marker(short_dir: Path) -> Path:
    """A path in a directory of the host that everybody may write to; the guest has the same path."""
    directory = short_dir / "host"
    directory.mkdir()
    directory.chmod(0o777)
    return directory / "marker"


@pytest.fixture
def runaways(short_dir: Path) -> Iterator[Callable[[], list[int]]]:
    """Return the processes, in whatever group, that were made of this test's guest; end them at last."""

    def find() -> list[int]:
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and is_of(entry, short_dir)]

    yield find
    for pid in find():
        os.kill(pid, signal.SIGKILL)


async def start_loop(guest: GuestService, marker: Path, *, flee: bool = False) -> None:
    """Start the loop in the guest and wait until it has made the guest's own file."""
    program = base64.b64encode(looping_program(str(marker), flee=flee)).decode()
    script = (
        f"mkdir -p {marker.parent}; echo {program} | base64 -d >/tmp/loop; chmod +x /tmp/loop\n"
        f"/tmp/loop & /tmp/loop & /tmp/loop & until [ -e {marker} ]; do sleep 0.1; done"
    )
    assert (await guest.run(script, scaled(20))).status == 0
    assert not exists(marker), "the guest wrote to the host while its kernel lived"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
@pytest.mark.parametrize("flee", [False, True], ids=["plain", "fleeing"])
async def test_main_process_dies_nothing_of_the_guest_lives_or_writes(
    short_dir: Path, marker: Path, runaways: Callable[[], list[int]], number: signal.Signals, flee: bool
) -> None:
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    async with running_guest(short_dir) as guest:
        await start_loop(guest, marker, flee=flee)
        members = group_members(guest.guest.pid)
        assert len(members) > 2, "the guest's programs are host processes of its group"
        os.kill(guest.guest.pid, number)
        await guest.guest.wait()
        assert group_members(guest.guest.pid) == []
        assert [pid for pid in members if is_alive(pid)] == []
        assert runaways() == []
        assert not exists(marker), "a guest instruction wrote to the host"
    assert not exists(marker)


@pytest.mark.parametrize("flee", [False, True], ids=["plain", "fleeing"])
@pytest.mark.parametrize("contained", [True, False], ids=["landlock", "no-landlock"])
async def test_late_killing_ends_everything_and_landlock_holds_meanwhile(
    short_dir: Path,
    marker: Path,
    runaways: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    contained: bool,
    flee: bool,
) -> None:
    """The killing waits here until a program of the guest has really run on the host for a while.

    Which of them do depends on where the kernel held them; none in some boots, so there are several.
    """
    killpg, ran = os.killpg, False
    for _ in range(10):
        async with running_guest(short_dir, landlock=contained) as guest:
            await start_loop(guest, marker, flee=flee)
            programs = [pid for pid in group_members(guest.guest.pid) if is_traced(pid)]
            window = Window(programs, killpg)
            monkeypatch.setattr(os, "killpg", window.killpg)
            os.kill(guest.guest.pid, signal.SIGKILL)
            await guest.guest.wait()
            monkeypatch.setattr(os, "killpg", killpg)
            assert group_members(guest.guest.pid) == []
            assert runaways() == []
            assert not (contained and exists(marker)), "a guest instruction wrote to the host"
            ran = window.ran and exists(marker) is not contained
            # Whatever still ran would make it again.
            remove(marker)
            with pytest.raises(TimeoutError):
                await wait_until_async(lambda: exists(marker), 0.2, "the marker is made again")
        if ran:
            return
    pytest.fail("no program of any guest ran on the host, so nothing was tested")


async def test_busy_event_loop_does_not_delay_the_killing(short_dir: Path, marker: Path) -> None:
    async with running_guest(short_dir) as guest:
        await start_loop(guest, marker)
        members = group_members(guest.guest.pid)
        os.kill(guest.guest.pid, signal.SIGKILL)
        # Blocks the event loop's thread, as a busy callback does.
        wait_until(lambda: not any(map(is_alive, members)), 10, "the group is gone")
    assert not exists(marker)


def test_owner_is_killed_the_guest_ends_with_it(short_dir: Path, runaways: Callable[[], list[int]]) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        from umlab.daemon.guest import GuestService
        from umlab.guest.cmdline import GuestSpec

        async def main():
            guest = await GuestService.start(GuestSpec("guest", {debian_kernel()!r}), {str(short_dir)!r})
            await guest.ready({scaled(60)})
            await guest.run("(while :; do :; done) >/dev/null 2>&1 & true", {scaled(20)})
            print(guest.guest.pid, guest.guest.run.memory_path, flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        pid, memory = owner.stdout.readline().split()
        assert len(group_members(int(pid))) > 2
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    wait_until(lambda: not group_members(int(pid)), 20, "the guest has ended with its owner")
    assert runaways() == []
    os.rmdir(memory)


def exists(path: Path) -> bool:
    return path.exists()


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Window:
    """Stands in for ``os.killpg`` and waits until a program has used 50 ms, or has died."""

    def __init__(self, programs: list[int], killpg: Callable[[int, int], None]) -> None:
        self.programs = programs
        self.before = {pid: ticks(pid) for pid in programs}
        self.real = killpg
        self.ran = False

    def killpg(self, group: int, number: int) -> None:
        end = deadline(2)
        while time.monotonic() < end and not self.ran and any(map(is_alive, self.programs)):
            self.ran = any(ticks(pid) > self.before[pid] + 5 for pid in self.programs)
            time.sleep(POLL_INTERVAL)
        self.real(group, number)


def is_traced(pid: int) -> bool:
    """Say whether a process is held by a tracer, as the programs of a living guest are."""
    try:
        return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def ticks(pid: int) -> int:
    """Return the processor time that a process has used in its own code and in the kernel."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) + int(fields[12])


def is_of(pid: str, run: Path) -> bool:
    """Say whether a process has the command line of a kernel with that run directory."""
    try:
        return f"uml_dir={run}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and is_alive(int(pid))
    except OSError:
        return False
