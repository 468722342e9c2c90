"""Guests with real kernels: boot, command channel, every rung of the stop ladder, and every bad start."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.peers.uml_kernel import KERNELS, debian_kernel, running_guest
from support.deadline import scaled, wait_until_async
from support.require import require_program
from umlab.daemon import guest as daemon_guest
from umlab.daemon.guest import GuestService
from umlab.errors import CommandTimeout, GuestFailed, LabError
from umlab.guest.cmdline import DiskRoot, GuestSpec, TinyRoot
from umlab.guest.console import Console
from umlab.guest.process import HALT_STATUSES, Guest, Rung
from umlab.guest.watch import group_members
from umlab.mconsole.aio import AsyncMconsole

pytestmark = pytest.mark.integration
LONG = scaled(30)
KernelChoice = Callable[[], str]


def memory_directories() -> set[str]:
    """Return the directories for memory files that exist now, of any guest that may be running."""
    return {entry for entry in os.listdir(os.environ.get("TMPDIR", "/dev/shm")) if entry.startswith("umlab-")}


def assert_gone(guest: Guest, base: Path) -> None:
    assert group_members(guest.pid) == []
    assert os.listdir(base) == []
    assert not os.path.exists(guest.run.memory_path)
    assert "umlab-guest-watch" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("choice", KERNELS)
async def test_guest_boots_runs_commands_and_halts(short_dir: Path, choice: KernelChoice) -> None:
    async with running_guest(short_dir, "left", kernel=choice()) as guest:
        result = await guest.run("hostname; cat /proc/1/comm; ip -o link show up | cut -d: -f2; exit 3", LONG)
        assert (result.status, result.stdout.split()) == (3, [b"left", b"init", b"lo"])
        binary = await guest.run("head -c 300000 /dev/urandom >/tmp/x; cat /tmp/x; md5sum </tmp/x", LONG)
        assert len(binary.stdout) == 300_000 + 36
        assert (await guest.run("echo " + "x" * 20_000 + " | wc -c", LONG)).stdout == b"20001\n"
        # Kernel 6.12 panics of a program that is killed in the middle of a fork.
        for _ in range(4):
            with pytest.raises(CommandTimeout):
                await guest.run("while :; do /bin/busybox true & /bin/busybox true; done", 0.3)
        report = await guest.stop()
    assert report.rung == "halt"
    assert report.status in HALT_STATUSES
    assert "umlab: guest is down" in guest.guest.console.text
    assert_gone(guest.guest, short_dir)


async def test_asked_modules_are_loaded_with_what_they_need(short_dir: Path) -> None:
    async with running_guest(short_dir, root=TinyRoot(("8021q", "virtio-net"))) as guest:
        loaded = (await guest.run("cut -d' ' -f1 /proc/modules", LONG)).stdout.decode().split()
    assert {"8021q", "garp", "mrp", "stp", "llc", "virtio_net", "net_failover", "failover"} <= set(loaded)


async def test_command_that_hangs_is_given_up_and_the_next_one_runs(short_dir: Path) -> None:
    async with running_guest(short_dir) as guest:
        with pytest.raises(CommandTimeout):
            await guest.run("while :; do :; done", 0.2)
        assert (await guest.run("echo next", LONG)).stdout == b"next\n"


async def test_reboot_keeps_the_process_and_changes_the_boot(short_dir: Path) -> None:
    async with running_guest(short_dir) as guest:
        pid, before = guest.guest.pid, guest.guest.boot
        await guest.run("touch /tmp/old", LONG)
        await guest.reboot(LONG)
        after = guest.guest.boot
        assert before is not None
        assert after is not None
        assert after != before
        assert guest.guest.pid == pid
        assert (await guest.run("ls /tmp/old", LONG)).status == 1
    assert guest.guest.boot is None


async def test_panic_is_reported_with_the_console(short_dir: Path) -> None:
    async with running_guest(short_dir) as guest:
        with pytest.raises(GuestFailed) as caught:
            await guest.run("echo c >/proc/sysrq-trigger", LONG)
        assert caught.value.status == -signal.SIGABRT
        assert "Kernel panic - not syncing: sysrq triggered crash" in caught.value.console_tail
        assert (await guest.stop()).rung == "ended"
    assert_gone(guest.guest, short_dir)


async def test_guest_that_ignores_cad_is_halted(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_guest, "CAD_TIMEOUT", 1.0)
    async with running_guest(short_dir) as guest:
        deaf = "(trap '' INT; while :; do sleep 1; done) >/dev/null 2>&1 & echo $! >/proc/sys/kernel/cad_pid"
        assert (await guest.run(deaf, LONG)).status == 0
        report = await guest.stop()
    assert report.rung == "halt"
    assert report.status in HALT_STATUSES
    assert "guest is down" not in guest.guest.console.text
    assert_gone(guest.guest, short_dir)


async def test_without_softer_rungs_it_is_terminated(short_dir: Path) -> None:
    async with running_guest(short_dir) as guest:
        report = await guest.guest.stop()
    assert (report.rung, report.status) == ("term", 1)
    assert_gone(guest.guest, short_dir)


async def test_stopped_main_process_is_killed(short_dir: Path) -> None:
    async with running_guest(short_dir) as guest:
        os.kill(guest.guest.pid, signal.SIGSTOP)
        report = await guest.guest.stop((Rung("cad", guest.mconsole.cad, 0.2),), term_timeout=0.2)
    assert (report.rung, report.status) == ("kill", -signal.SIGKILL)
    assert_gone(guest.guest, short_dir)


async def test_name_that_is_in_use_is_told_from_the_boot(short_dir: Path) -> None:
    guest = await Guest.start(GuestSpec("left", debian_kernel()), str(short_dir))
    try:
        # Before the kernel gets there, its place is taken by a process that lives: this one.
        place = os.path.join(guest.run.path, "left")
        os.mkdir(place)
        Path(place, "pid").write_text(f"{os.getpid()}\n")
        with pytest.raises(LabError, match="its name was in use, the kernel booted as"):
            await guest.ready(LONG)
        assert "already in use" in guest.console.text
    finally:
        await guest.stop()
    assert_gone(guest, short_dir)


async def test_second_guest_of_a_name_is_refused_and_the_first_goes_on(short_dir: Path) -> None:
    async with running_guest(short_dir, "left") as guest:
        with pytest.raises(LabError, match="left runs already"):
            await Guest.start(GuestSpec("left", debian_kernel()), str(short_dir))
        assert (await guest.run("echo here", LONG)).stdout == b"here\n"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kernel": "/no/such/linux"}, "/no/such/linux.*user-mode-linux"),
        ({"kernel": "/etc"}, "/etc"),
        ({"kernel": "/bin/true", "root": TinyRoot(("8021q",))}, "not a User Mode Linux kernel"),
        ({"root": TinyRoot(("no_such_module",))}, "no_such_module"),
    ],
)
async def test_what_is_missing_is_named_and_nothing_stays(
    short_dir: Path, fields: dict[str, object], named: str
) -> None:
    before = memory_directories()
    fields = {"kernel": debian_kernel(), **fields}
    with pytest.raises(LabError, match=named):
        await Guest.start(GuestSpec("left", **fields), str(short_dir))  # type: ignore[arg-type]
    assert os.listdir(short_dir) == []
    assert not [name for name in memory_directories() - before if "umlab-left-" in name]


async def test_kernel_that_ends_at_once_is_reported(short_dir: Path) -> None:
    async with await Guest.start(
        GuestSpec("left", debian_kernel(), extra=("--help",)), str(short_dir)
    ) as guest:
        with pytest.raises(GuestFailed) as caught:
            await guest.ready(LONG)
    assert caught.value.status is not None


async def test_disk_root_on_cow_leaves_the_backing_image(short_dir: Path) -> None:
    image, cow = make_disk(short_dir / "disk"), short_dir / "disk/cow"
    before = digest(image)
    spec = GuestSpec(
        "left", debian_kernel(), root=DiskRoot(str(cow), str(image)), writable=(str(short_dir / "disk"),)
    )
    async with await GuestService.start(spec, str(short_dir)) as guest:
        await printed(guest.guest, b"disk init runs")
        await wait_until_async(lambda: written(cow), 20, "the COW file has the guest's writes")
    assert digest(image) == before


def make_disk(folder: Path) -> Path:
    """Make an ext4 image with busybox and an init that writes a file."""
    tree = folder / "tree"
    for name in ("bin", "dev", "proc", "sbin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(require_program("busybox"), tree / "bin/busybox")
    init = tree / "sbin/init"
    init.write_text(
        "#!/bin/busybox sh\n"
        "echo MARK-OF-THE-GUEST >/written\n"
        "/bin/busybox sync\n"
        "while :; do echo disk init runs; /bin/busybox sleep 0.2; done\n"
    )
    init.chmod(0o755)
    image = folder / "base"
    subprocess.run(
        [require_program("mke2fs"), "-q", "-t", "ext4", "-d", tree, image, "16M"],
        check=True,
        capture_output=True,
    )
    return image


def digest(path: Path) -> tuple[int, bytes]:
    return path.stat().st_mtime_ns, path.read_bytes()


def written(cow: Path) -> bool:
    return b"MARK-OF-THE-GUEST" in cow.read_bytes()


async def printed(guest: Guest, marker: bytes) -> None:
    async with asyncio.timeout(LONG):
        await guest.console.wait_for(marker)


async def test_console_socket_is_where_the_console_client_looks(short_dir: Path) -> None:
    async with running_guest(short_dir, "left") as guest:
        version = await AsyncMconsole(f"{short_dir}/left/left/mconsole").version()
        assert version.startswith("Linux left ")
        assert guest.guest.run.umid_of(guest.guest.pid) == "left"


async def test_log_file_has_the_console(short_dir: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        console = Console(log)
        async with await Guest.start(
            GuestSpec("left", debian_kernel()), str(short_dir), console=console
        ) as guest:
            await guest.ready(LONG)
            await guest.agent.run("echo on the console >/dev/console", LONG)
            await guest.stop()
    assert b"on the console" in (tmp_path / "log").read_bytes()


async def test_cancelled_stop_kills_at_once(short_dir: Path) -> None:
    async with running_guest(short_dir) as guest:
        os.kill(guest.guest.pid, signal.SIGSTOP)
        stopping = asyncio.create_task(guest.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        assert stopping.cancelled()
        assert_gone(guest.guest, short_dir)
        assert await guest.guest.wait() == -signal.SIGKILL
