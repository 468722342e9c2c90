"""Labs on machines that are sick: no place, no room, no descriptors, odd names, a stopped keeper."""

from __future__ import annotations

import ast
import json
import os
import pwd
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until
from support.process import is_gone
from support.require import ROOT, unavailable
from umlab.daemon.place import state_directory
from umlab.errors import LabError
from umlab.guest.cmdline import AGENT_FD, TERMINAL_FD
from umlab.guest.watch import group_members

pytestmark = pytest.mark.integration

UMLAB = str(Path(sys.executable).with_name("umlab"))
#: A guest in the place of a kernel: prints more than the disk of the test has, then lives on.
TALKER = f"""#!/bin/bash
i=0
while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done
echo "the end"
echo "umlab-agent 2 line 0 1" >&{AGENT_FD}
while read -r line <&{TERMINAL_FD}; do echo "heard $line"; done
"""


class User:
    """Somebody who types commands, in surroundings of his own.

    Attributes:
        environment: Of the commands.
        runtime: Where labs are.
    """

    def __init__(self, directory: Path) -> None:
        self.runtime = directory / "r"
        for path in (self.runtime, directory / "s"):
            path.mkdir(mode=0o700)
        self.environment: dict[str, str] = os.environ | {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(directory / "s"),
            "TMPDIR": str(directory),
        }

    def run(self, *words: str, status: int = 0, before: tuple[str, ...] = ()) -> str:
        """Run umlab, perhaps by way of another program, and return what it says."""
        done = subprocess.run(
            [*before, UMLAB, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def refused(self, *words: str, before: tuple[str, ...] = ()) -> str:
        """Run a command that must fail in one line of plain text, and return that."""
        text = self.run(*words, status=1, before=before)
        assert text.startswith("umlab: ")
        assert text.endswith("\n")
        assert text[:-1].isprintable(), text
        return text


@pytest.fixture
def user(short_dir: Path) -> Iterator[User]:
    """Yield a user; his lab is ended whatever the test does."""
    user = User(short_dir)
    yield user
    for name in ("lan", "ring"):
        if (user.runtime / "umlab" / name / "api.sock").exists():
            user.run("switch", "stop", name)


def lab_file(directory: Path, script: str, guests: int = 1) -> str:
    """Write a lab file of guests whose kernel is a script, and return its path."""
    kernel = directory / "linux"
    kernel.write_text(script)
    kernel.chmod(0o755)
    (directory / "disk").write_text("")
    names = "".join(
        f"  g{number}: {{kernel: {kernel}, root: {{disk: {directory}/disk}}, nics: []}}\n"
        for number in range(guests)
    )
    file = directory / "ring.yaml"
    file.write_text(f"segments:\n  core: {{}}\nguests:\n{names}")
    return str(file)


class TestPlaces:
    def test_without_a_runtime_directory_it_is_among_the_temporary_files(
        self, user: User, short_dir: Path
    ) -> None:
        del user.environment["XDG_RUNTIME_DIR"]
        user.run("switch", "run", "lan", "--background")
        place = short_dir / f"umlab-{os.getuid()}"
        assert (place / "lan" / "lan.ctl").is_socket()
        assert place.stat().st_mode & 0o077 == 0
        user.run("switch", "stop", "lan")

    def test_runtime_directory_that_is_a_link(self, user: User, short_dir: Path) -> None:
        (short_dir / "elsewhere").mkdir(mode=0o700)
        (user.runtime / "umlab").symlink_to(short_dir / "elsewhere")
        assert "is not a directory of its own; remove it" in user.refused("switch", "run", "lan")
        assert os.listdir(short_dir / "elsewhere") == []

    @pytest.mark.parametrize("which", ["umlab", "umlab/lan"])
    def test_runtime_directory_that_is_open_to_others(self, user: User, which: str) -> None:
        (user.runtime / "umlab" / "lan").mkdir(parents=True, mode=0o700)
        (user.runtime / "umlab").chmod(0o700)
        (user.runtime / which).chmod(0o750)
        said = user.refused("switch", "run", "lan")
        assert f"{user.runtime / which} is open to other users; run: chmod 700 " in said

    @pytest.mark.needs_root
    def test_runtime_directory_of_somebody_else(self, user: User) -> None:
        (user.runtime / "umlab").mkdir(mode=0o700)
        os.chown(user.runtime / "umlab", 65534, 65534)
        assert "belongs to user 65534" in user.refused("switch", "run", "lan")

    def test_runtime_directory_whose_path_is_too_long(self, user: User) -> None:
        place = user.runtime / ("d" * 90)
        place.mkdir()
        user.environment["XDG_RUNTIME_DIR"] = str(place)
        said = user.refused("switch", "run", "lan")
        assert str(place / "umlab/lan/lan.ctl") in said
        assert "at most 107 fit" in said

    def test_state_directory_that_cannot_be_made(self, user: User, short_dir: Path) -> None:
        (short_dir / "file").write_text("")
        user.environment["XDG_STATE_HOME"] = str(short_dir / "file")
        for options in ((), ("--background",)):
            said = user.refused("switch", "run", "lan", *options)
            assert f"cannot make the directory {short_dir}/file/umlab for logs" in said
            assert "set XDG_STATE_HOME" in said
        assert not list(user.runtime.rglob("*.sock"))

    def test_user_without_a_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A number that no account has, as in containers."""

        def unknown(uid: int) -> object:
            raise KeyError(uid)

        for variable in ("HOME", "XDG_STATE_HOME"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        with pytest.raises(LabError, match="no home directory for logs; set XDG_STATE_HOME"):
            state_directory("lan")


@pytest.mark.parametrize(
    "name", ["a/b", "..", "", "a\nb", "x" * 200, "a b", "a\x1b[2J", "-x"], ids=lambda name: repr(name)[:20]
)
def test_name_that_is_none_is_refused_in_one_line_and_makes_nothing(
    user: User, short_dir: Path, name: str
) -> None:
    said = user.refused("switch", "run", "--background", "--", name)
    assert "is not usable: take at most 24 letters" in said
    assert {path.name for path in short_dir.rglob("*")} == {"r", "s"}


class TestResources:
    def test_full_disk_ends_the_log_and_not_the_guest(self, user: User, short_dir: Path) -> None:
        command = ("unshare", "--user", "--map-root-user", "--mount")
        if subprocess.run([*command, "true"], check=False).returncode != 0:
            unavailable("user namespaces are off: sysctl -w user.max_user_namespaces=1000")
        mount = 'mount -t tmpfs -o size=64k,mode=700 none "$XDG_STATE_HOME" && exec "$@"'
        file = lab_file(short_dir, TALKER)
        user.run(
            *("switch", "run", "ring", "--file", file, "--background"),
            before=(*command, "sh", "-c", mount, "sh"),
        )

        def logs() -> str:
            return user.run("guest", "logs", "g0")

        wait_until(lambda: "the end" in logs(), 20, "the guest's last line")
        text = logs()
        assert text.endswith("line 19999\nthe end\n")
        # The tail that is kept anyway: 64 KiB.
        assert 60_000 < len(text) < 70_000 or text.startswith("line 0\n")
        (guest,) = _guests(user)
        assert guest["state"] in ("booting", "ready")
        user.run("guest", "attach", "g0", before=("sh", "-c", 'echo still here | exec "$@"', "sh"))
        wait_until(lambda: "heard still here" in logs(), 20, "an answer")

    def test_lack_of_descriptors_is_named(self, user: User, short_dir: Path) -> None:
        file = lab_file(short_dir, TALKER, guests=12)
        few = ("sh", "-c", 'ulimit -n 128; exec "$@"', "sh")
        said = user.refused("switch", "run", "ring", "--file", file, "--background", before=few)
        assert "cannot be started" in said or "cannot make" in said
        assert "Too many open files" in said
        # What was started before has been ended again, and what could not even be removed goes by gc.
        user.run("gc")
        assert list((user.runtime / "umlab").iterdir()) == []
        # With half as many guests there is enough for each.
        file = lab_file(short_dir, TALKER, guests=2)
        user.run("switch", "run", "ring", "--file", file, "--background", before=few)
        wait_until(lambda: "the end" in user.run("guest", "logs", "g1"), 20, "a guest's last line")

    def test_daemon_can_go_while_the_keeper_is_stopped(self, user: User, short_dir: Path) -> None:
        file = lab_file(short_dir, TALKER)
        user.run("switch", "run", "ring", "--file", file, "--background")
        (guest,) = _guests(user)
        keeper = _keeper_of(guest["pid"])
        os.kill(keeper, signal.SIGSTOP)
        try:
            assert "wait" in user.run("switch", "stop", "ring", "--daemon-only")
            assert group_members(guest["pid"])
        finally:
            os.kill(keeper, signal.SIGCONT)
        user.run("switch", "run", "ring", "--background")
        (again,) = _guests(user)
        assert again["pid"] == guest["pid"]
        user.run("switch", "stop", "ring")
        wait_until(lambda: is_gone(keeper), 10, "the end of the keeper")


def _guests(user: User) -> list[dict[str, Any]]:
    """Return the guests of all labs; those outside may be another test's."""
    records = map(json.loads, user.run("guest", "ls", "--json").splitlines())
    return [record for record in records if record["lab"] is not None]


def _keeper_of(guest: int) -> int:
    return int(Path(f"/proc/{guest}/stat").read_text().rpartition(")")[2].split()[1])


#: Where the time of day is looked at, and only to be shown: when something happened, began or came.  What
#: tells one daemon's events from another's has to differ, no more.
_SHOWN = {
    "capture/recorder.py": 1,
    "cli/logs.py": 1,
    "cli/page.py": 1,
    "cli/top_page.py": 1,
    "daemon/capture.py": 1,
    "daemon/event_log.py": 2,
    "daemon/hook.py": 1,
    "daemon/lab.py": 1,
    "guest/log_times.py": 1,
    "guest/process.py": 1,
}
_WALL_CLOCK = {"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today"}


def test_clock_that_jumps_cannot_matter() -> None:
    """Nothing but what is shown goes by the time of day; all else by the monotonic clock."""
    found: dict[str, int] = {}
    source = ROOT / "src" / "umlab"
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="time" | "datetime" | "date"), attr=name):
                    if name in _WALL_CLOCK:
                        name = str(path.relative_to(source))
                        found[name] = found.get(name, 0) + 1
                case ast.ImportFrom(module="time", names=names):
                    assert not _WALL_CLOCK & {each.name for each in names}, path
                case ast.Attribute(attr="CLOCK_REALTIME"):
                    raise AssertionError(textwrap.dedent(f"{path} goes by the time of day"))
    assert found == _SHOWN
