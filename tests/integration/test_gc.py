"""``umlab gc`` after real deaths: of a lab, of its guests, and of an owner whose guest lives on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled, wait_until
from umlab.guest.watch import group_members

pytestmark = pytest.mark.integration

GC = [sys.executable, "-c", "import typer; from umlab.cli.gc import gc; typer.run(gc)"]
#: What every lab process does: takes a lab's locks and holds them until it dies.
_OWNER = """
import asyncio, fcntl, os, sys
from umlab.daemon.guest import GuestService
from umlab.daemon.place import runtime_directory
from umlab.guest.cmdline import GuestSpec

lab = runtime_directory(sys.argv[1])
locks = [open(lab / name, "w") for name in ("keeper.lock", "daemon.lock")]
for lock in locks:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
(lab / "g").mkdir(mode=0o700)
"""
_WITH_GUEST = """
async def main():
    guest = await GuestService.start(GuestSpec("orphan", {kernel!r}), str(lab / "g"))
    await guest.ready({timeout})
    print(guest.guest.pid, guest.guest.run.memory_path, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
_WITHOUT_GUEST = "print(flush=True); sys.stdin.read()"


@pytest.fixture
def environment(short_dir: Path) -> dict[str, str]:
    """Every directory that gc looks into is the test's own."""
    for name in ("run", "memory"):
        (short_dir / name).mkdir(mode=0o700)
    return os.environ | {"XDG_RUNTIME_DIR": str(short_dir / "run"), "TMPDIR": str(short_dir / "memory")}


@contextmanager
def owner(lab: str, script: str, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a lab's only process; yields it with its first line, and kills it at last."""
    command = [sys.executable, "-c", _OWNER + textwrap.dedent(script), lab]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def collect(environment: dict[str, str], *options: str) -> str:
    done = subprocess.run(
        [*GC, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=scaled(30),
    )
    return done.stdout


def guards_of(pid: int) -> list[int]:
    """Return the children of a process that wait for its death to kill its guests."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
                command = Path(f"/proc/{name}/cmdline").read_text()
            except OSError:
                continue
            if int(parent) == pid and "read -r group" in command:
                found.append(int(name))
    return found


def test_guest_without_owner_is_ended_and_all_of_its_lab_removed(
    short_dir: Path, environment: dict[str, str]
) -> None:
    script = _WITH_GUEST.format(kernel=debian_kernel(), timeout=scaled(60))
    with owner("lan", script, environment) as (process, line):
        pid, memory = int(line.split()[0]), line.split()[1]
        try:
            before = sorted(short_dir.rglob("*"))
            assert collect(environment) == "nothing to do\n"
            assert sorted(short_dir.rglob("*")) == before
            for guard in guards_of(process.pid):
                os.kill(guard, signal.SIGKILL)
            process.kill()
            process.wait()
            assert len(group_members(pid)) > 1, "the guest lives on without an owner"

            run = f"{short_dir}/run/umlab/lan"
            expected = [
                {"kind": "guest", "name": "orphan", "where": f"{run}/g/orphan", "group": pid},
                {"kind": "lab", "name": "lan", "where": run, "group": None},
                {"kind": "memory", "name": "orphan", "where": memory, "group": None},
            ]
            planned = json.loads(collect(environment, "--dry-run", "--json"))
            assert planned == {"dry_run": True, "removed": expected}
            assert len(group_members(pid)) > 1
            assert json.loads(collect(environment, "--json")) == {"dry_run": False, "removed": expected}
            assert group_members(pid) == []
        finally:
            if group_members(pid):
                os.killpg(pid, signal.SIGKILL)
    assert list((short_dir / "run/umlab").iterdir()) == []
    assert list((short_dir / "memory").iterdir()) == []
    assert collect(environment) == "nothing to do\n"


def test_guest_that_its_guard_has_ended_leaves_files_that_are_removed(
    short_dir: Path, environment: dict[str, str]
) -> None:
    script = _WITH_GUEST.format(kernel=debian_kernel(), timeout=scaled(60))
    with owner("lan", script, environment) as (process, line):
        pid, memory = line.split()
        process.kill()
        wait_until(lambda: not group_members(int(pid)), 20, "the guard has ended the guest")
    assert collect(environment) == (
        f"removed lab lan: {short_dir}/run/umlab/lan\nremoved memory orphan: {memory}\n"
    )
    assert list((short_dir / "run/umlab").iterdir()) == []
    assert list((short_dir / "memory").iterdir()) == []


def test_dead_lab_goes_and_the_living_one_beside_it_stays(
    short_dir: Path, environment: dict[str, str]
) -> None:
    labs = short_dir / "run/umlab"
    with owner("alive", _WITHOUT_GUEST, environment):
        with owner("dead", _WITHOUT_GUEST, environment):
            assert collect(environment) == "nothing to do\n"
        before = sorted((labs / "alive").rglob("*"))
        assert collect(environment, "--dry-run") == f"would remove lab dead: {labs}/dead\n"
        assert collect(environment) == f"removed lab dead: {labs}/dead\n"
        assert sorted(labs.iterdir()) == [labs / "alive"]
        assert sorted((labs / "alive").rglob("*")) == before


@pytest.mark.needs_plain_user
def test_directory_that_resists_is_named_and_taken_the_next_time(
    short_dir: Path, environment: dict[str, str]
) -> None:
    with owner("lan", _WITHOUT_GUEST, environment):
        locked = short_dir / "run/umlab/lan/g/orphan/locked"
        (locked / "inner").mkdir(parents=True)
        locked.chmod(0o500)
    done = subprocess.run(GC, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "nothing to do\n"
    assert "cannot remove" in done.stderr
    locked.chmod(0o700)
    assert collect(environment) == f"removed lab lan: {short_dir}/run/umlab/lan\n"


def test_process_that_only_names_a_guests_directory_is_left_alone(
    short_dir: Path, environment: dict[str, str]
) -> None:
    """It leads no group of its own, or works elsewhere: it is no guest."""
    run = short_dir / "run/umlab/lan/g/orphan"
    with owner("lan", _WITHOUT_GUEST, environment):
        run.mkdir()
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", f"uml_dir={run}/"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, cwd=run) as in_our_group,
        subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True) as elsewhere,
    ):
        assert json.loads(collect(environment, "--json"))["removed"] == [
            {"kind": "lab", "name": "lan", "where": f"{short_dir}/run/umlab/lan", "group": None}
        ]
        assert in_our_group.poll() is None
        assert elsewhere.poll() is None
