"""``umlab run`` with real kernels: what passes through, how it ends, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.peers.lan import running_switch
from support.deadline import scaled, wait_until
from support.require import require_program
from support.terminal_session import TerminalSession
from umlab.guest import landlock

pytestmark = pytest.mark.integration

UMLAB = str(Path(sys.executable).with_name("umlab"))
LONG = scaled(40)
Environment = dict[str, str]


@pytest.fixture
def place(short_dir: Path) -> Path:
    """A folder of the test's, with the runtime directory ``r`` and the memory directory ``m``."""
    for name in ("r", "m"):
        (short_dir / name).mkdir()
    return short_dir


@pytest.fixture
def environment(place: Path) -> Environment:
    return os.environ | {
        "XDG_RUNTIME_DIR": str(place / "r"),
        "TMPDIR": str(place / "m"),
        "TERM": "xterm",
        "SHELL": "/bin/sh",
        "LC_ALL": "C.UTF-8",
    }


def left(place: Path) -> list[str]:
    """Return what runs have left in their directories."""
    return sorted(
        str(path.relative_to(place)) for path in [*place.glob("r/umlab/.run/*"), *place.glob("m/*")]
    )


@contextmanager
def started(
    environment: Environment, *words: str, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run with pipes; killed at the block's end, if it has not ended."""
    with subprocess.Popen(
        [UMLAB, "run", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def kernels(place: Path) -> list[int]:
    """Return the pids of all processes of kernels whose run directories are in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"uml_dir={place}/".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_everything_passes_and_nothing_of_the_host_changes(place: Path, environment: Environment) -> None:
    data = random.Random(8).randbytes(1_000_000)
    here, shared = place / "here", place / "shared"
    here.mkdir()
    shared.mkdir()
    marker = place / "marker"
    script = f"""
        tee /dev/stderr
        cp /proc/self/environ {shared}/environ
        {{ pwd; id -u; cat file; uname -r; }} >{shared}/facts
        echo lost >/etc/umlab-run-test
        mkdir -p /mnt/other /mnt/root
        mount -t hostfs -o {place} none /mnt/other && echo a >/mnt/other/marker
        mount -t hostfs -o / none /mnt/root -o rw && echo b >/mnt/root{marker}
        exec 2>/dev/null
        mount -o remount,rw /host; echo c >/host{marker}
        exit 3
    """
    (here / "file").write_text("of the host\n")
    words = ["--rw", "../shared", "--log", "kernel.log", "-e", "GIVEN=1 2", "-e", "CI", "-e", "ABSENT"]
    with started(environment | {"CI": "yes", "SECRET": "no"}, *words, "sh", "-c", script, cwd=here) as run:
        output, errors = run.communicate(data, timeout=LONG)

    assert run.returncode == 3
    assert output == data
    assert errors.startswith(data)
    facts = (shared / "facts").read_text().splitlines()
    release = subprocess.run(
        ["linux.uml", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert facts == [str(here), "0", "of the host", release]
    variables = dict(each.split("=", 1) for each in (shared / "environ").read_text().split("\0") if each)
    wanted = {"GIVEN": "1 2", "CI": "yes", "TERM": "xterm", "LC_ALL": "C.UTF-8", "PATH": environment["PATH"]}
    assert wanted.items() <= variables.items()
    assert {"SECRET", "ABSENT", "mem"}.isdisjoint(variables)
    assert "Run /init as init process" in (here / "kernel.log").read_text()
    assert not Path("/etc/umlab-run-test").exists()
    assert marker.exists() is (landlock.abi() < 1)
    assert left(place) == []


@pytest.mark.any_user
def test_terminal_is_the_commands(place: Path, environment: Environment) -> None:
    with TerminalSession([UMLAB, "run", "--shell"], environment | {"PS1": "$ "}, (30, 100)) as terminal:
        before = terminal.modes()
        terminal.type("stty size\n")
        terminal.wait_for("30 100")
        terminal.resize(41, 99)
        terminal.type("while ! stty size | grep '41 9[9]'; do sleep 0.1; done\n")
        terminal.wait_for("41 99")
        terminal.type("sleep 1000 &\n")
        # The shell has given it the terminal by the time that it says something.
        terminal.type("sh -c 'echo st''arted; exec sleep 1001'\n")
        terminal.wait_for("started")
        terminal.type("\x03")
        terminal.wait_for("^C")
        terminal.type("echo status $?; jobs\n")
        terminal.wait_for("status 130")
        terminal.wait_for("sleep 1000")
        terminal.type("printf '\\033]0;title\\007%s\\n' sh''own; tty; kill %1; exit 7\n")
        terminal.wait_for("/dev/ttyS")
        assert terminal.wait() == 7
        assert terminal.modes() == before
    assert b"shown" in terminal.shown
    assert b"\x1b]0" not in terminal.shown.replace(b"\\033]0", b"")
    assert left(place) == []


@pytest.mark.any_user
def test_panic_is_told_with_the_last_words(place: Path, environment: Environment) -> None:
    command = "echo out; echo to-stderr >&2; read -r go; echo c >/proc/sysrq-trigger"
    with started(environment, "--json", "--root", "tiny", "--mem", "96M", "--", "sh", "-c", command) as run:
        assert run.stderr is not None
        # A panic waits for nothing that is on its way.
        assert {run.stderr.readline(), run.stderr.readline()} == {b"out\n", b"to-stderr\n"}
        output, errors = run.communicate(b"go\n", timeout=LONG)

    record = json.loads(output)
    assert (run.returncode, record["status"]) == (125, 125)
    assert record["error"] == "the command failed: Kernel panic - not syncing: sysrq triggered crash"
    assert "Call Trace" in record["console"]
    assert (
        0
        < record["boot_seconds"]
        < record["boot_seconds"] + record["command_seconds"]
        < record["total_seconds"]
    )
    assert (record["root"], record["command"]) == ("tiny", ["sh", "-c", command])
    assert b"Kernel panic - not syncing: sysrq triggered crash" in errors
    assert left(place) == []


@pytest.mark.any_user
def test_killed_run_leaves_no_process_and_the_next_one_clears_up(
    place: Path, environment: Environment
) -> None:
    with started(environment, "--", "true") as run:
        wait_until(lambda: kernels(place), 20, "the kernel runs")
        run.kill()
    wait_until(lambda: kernels(place) == [], 10, "the kernel is gone")
    assert len(left(place)) == 2

    with started(environment, "--", "true") as run:
        wait_until(lambda: kernels(place), 20, "the kernel runs")
        run.send_signal(signal.SIGINT)
        output, errors = run.communicate(timeout=LONG)
    assert (run.returncode, output, errors) == (130, b"", b"umlab: ended by SIGINT\n")
    assert kernels(place) == []
    assert left(place) == []


@pytest.mark.any_user
def test_several_at_once_without_overlay_without_time_with_signals(
    place: Path, environment: Environment
) -> None:
    kernel = place / "linux"
    kernel.write_text('#!/bin/sh\n[ "$1" != --version ] || exec echo 6.1.0-none\nexec linux.uml "$@"\n')
    kernel.chmod(0o755)
    here = f"cat linux >/dev/null && echo found; touch /tmp/x && echo written; touch {place}/x"
    before = kernel.stat()
    changing = (
        f"mkdir /m; mount -t hostfs -o {place} none /m; chmod 4711 /m/linux; touch -d 2001-01-01 /m/linux"
    )
    waiting = "trap 'echo got; kept=1' TERM; echo ready; until [ $kept ]; do sleep 0.1; done; exit 5"
    with (
        started(environment, "--kernel", str(kernel), "sh", "-c", here, cwd=place) as plain,
        started(
            environment, "--root", "tiny", "--no-stdin", "--", "sh", "-c", f"{changing}; {waiting}"
        ) as other,
        started(environment, "--root", "tiny", "--timeout", "0.2", "--", "true") as hasty,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        other.send_signal(signal.SIGTERM)
        output, errors = other.communicate(timeout=LONG)
        assert (other.returncode, output) == (5, b"got\n")
        assert b"chmod: /m/linux: Operation not permitted" in errors
        output, errors = plain.communicate(timeout=LONG)
        assert (plain.returncode, output) == (1, b"found\nwritten\n")
        assert errors.startswith(b"umlab: this kernel has no overlay: only /tmp,")
        output, errors = hasty.communicate(timeout=LONG)
        assert (hasty.returncode, errors) == (124, b"umlab: the boot did not end within 0.2 seconds\n")
    assert not (place / "x").exists()
    after = kernel.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert kernels(place) == []
    assert left(place) == []


@pytest.fixture
def image(place: Path) -> Path:
    """A root file system with busybox and little else."""
    tree = place / "tree"
    for name in ("bin", "etc"):
        (tree / name).mkdir(parents=True)
    shutil.copy(require_program("busybox"), tree / "bin/busybox")
    for name in ("sh", "cat", "dd", "mount", "umount", "touch", "sleep", "ip"):
        (tree / "bin" / name).symlink_to("busybox")
    path = place / "root.img"
    subprocess.run([require_program("mke2fs"), "-q", "-t", "ext4", "-d", tree, path, "16M"], check=True)
    return path


@pytest.mark.any_user
async def test_image_disks_and_network(place: Path, environment: Environment, image: Path) -> None:
    kept, spared = place / "kept.img", place / "spared.img"
    for disk in (kept, spared):
        disk.write_bytes(bytes(1 << 20))
    before = image.read_bytes()
    script = """
        echo kept >/dev/ubdb; echo spared >/dev/ubdc; dd if=/dev/ubdc bs=7 count=1 2>/dev/null; touch /etc/new
        cat /sys/class/net/eth0/flags
    """
    words = [
        "--root",
        str(image),
        "--disk",
        str(kept),
        "--disk",
        f"{spared}:cow",
        "--net",
        str(place / "lan.ctl"),
    ]
    async with running_switch(place):
        run = await asyncio.create_subprocess_exec(
            *(UMLAB, "run", *words, "--", "sh", "-c", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        output, errors = await run.communicate()

    assert (run.returncode, output) == (0, b"spared\n0x1003\n"), errors
    assert kept.read_bytes()[:5] == b"kept\n"
    assert spared.read_bytes() == bytes(1 << 20)
    assert image.read_bytes() == before
    assert left(place) == []
