"""A guest whose main process dies alone: nothing of it may go on as a process of the host.

Each test lets a guest program do in a loop what would be seen on the host if it ran there, then kills
only the main process.  The loop is harmless as a host process: it makes one file in the test's directory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from integration.peers.uml_kernel import debian_kernel, running_guest
from support.deadline import scaled, wait_until, wait_until_async
from support.leaks import TAG_VARIABLE
from umlab.daemon.guest import GuestService
from umlab.guest import landlock
from umlab.guest.watch import group_members

pytestmark = pytest.mark.integration

#: A loop of the guest's shell itself, so that no program has to be started while it runs on the host.
PLAIN = "while :; do : >{marker}; done"
#: One that tries to leave the process group, which is how the killing could be survived.
FLEEING = "while :; do setsid sh -c ': >{marker}'; done"


@pytest.fixture
def marker(short_dir: Path) -> Path:
    """A path in a directory of the host that everybody may write to; the guest has the same path."""
    directory = short_dir / "host"
    directory.mkdir()
    directory.chmod(0o777)
    return directory / "marker"


async def start_loop(guest: GuestService, loop: str, marker: Path) -> None:
    """Start the loop in the guest and wait until it has made the guest's own file."""
    script = f"mkdir -p {marker.parent}; ({loop.format(marker=marker)}) >/dev/null 2>&1 & true"
    assert (await guest.run(script, scaled(20))).status == 0
    seen = f"rm -f {marker}; until [ -e {marker} ]; do sleep 0.1; done"
    assert (await guest.run(seen, scaled(20))).status == 0
    assert not exists(marker), "the guest wrote to the host while its kernel lived"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
@pytest.mark.parametrize("loop", [PLAIN, FLEEING], ids=["plain", "fleeing"])
async def test_main_process_dies_nothing_of_the_guest_lives_or_writes(
    short_dir: Path, marker: Path, number: signal.Signals, loop: str
) -> None:
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    async with running_guest(short_dir) as guest:
        await start_loop(guest, loop, marker)
        members = group_members(guest.guest.pid)
        assert len(members) > 2, "the guest's programs are host processes of its group"
        os.kill(guest.guest.pid, number)
        await guest.guest.wait()
        assert group_members(guest.guest.pid) == []
        assert [pid for pid in members if is_alive(pid)] == []
        assert runaways() == []
        assert not exists(marker), "a guest instruction wrote to the host"
    assert not exists(marker)


@pytest.mark.parametrize("loop", [PLAIN, FLEEING], ids=["plain", "fleeing"])
async def test_without_landlock_nothing_runs_on_after_the_end(
    short_dir: Path, marker: Path, loop: str
) -> None:
    async with running_guest(short_dir, landlock=False) as guest:
        await start_loop(guest, loop, marker)
        os.kill(guest.guest.pid, signal.SIGKILL)
        await guest.guest.wait()
        assert group_members(guest.guest.pid) == []
        assert runaways() == []
        # What the loop did before it was killed is gone; anything that still ran would make it again.
        remove(marker)
        with pytest.raises(TimeoutError):
            await wait_until_async(lambda: exists(marker), 0.5, "the marker is made again")


async def test_busy_event_loop_does_not_delay_the_killing(short_dir: Path, marker: Path) -> None:
    async with running_guest(short_dir) as guest:
        await start_loop(guest, PLAIN, marker)
        members = group_members(guest.guest.pid)
        os.kill(guest.guest.pid, signal.SIGKILL)
        # Blocks the event loop's thread, as a busy callback does.
        wait_until(lambda: not any(map(is_alive, members)), 10, "the group is gone")
    assert not exists(marker)


def test_owner_is_killed_the_guest_ends_with_it(short_dir: Path) -> None:
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


def runaways() -> list[int]:
    """Return the processes, in whatever group, that have a guest's environment, ours left out.

    The launcher hands this run's tag on to the kernel, and so to every process made of it.
    """
    tag = f"{TAG_VARIABLE}={os.environ[TAG_VARIABLE]}".encode()
    found = []
    for entry in os.listdir("/proc"):
        try:
            variables = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue
        if tag in variables and any(text.startswith(b"TMPDIR=") and b"umlab-" in text for text in variables):
            found.append(int(entry))
    return found
