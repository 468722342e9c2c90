"""Images and what becomes of them: a guest that runs on one, and a system that is really built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until
from support.require import require_program, unavailable
from umlab.client import Client

pytestmark = pytest.mark.integration

UMLAB = Path(sys.executable).with_name("umlab")
#: What an image's own init does here: it writes something down, says that it has, and takes ctrl-alt-del.
INIT = """#!/bin/busybox sh
echo 0 >/proc/sys/kernel/ctrl-alt-del
trap 'echo umlab: guest is down' INT
/bin/busybox hostname >>/boots
/bin/busybox sync
echo INIT-OF-THE-IMAGE
while :; do /bin/busybox sleep 1000 & wait $!; done
"""


class Terminal:
    """Runs commands with a data, a state and a runtime directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        variables = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME")
        self.places = dict(
            zip(variables, map(str, (directory, directory / "s", directory / "d")), strict=True)
        )

    def run(self, *words: str, status: int | None = 0, timeout: float = 60) -> str:
        """Run umlab and return what it prints; ``None`` takes any status."""
        done = subprocess.run(
            [UMLAB, *words],
            cwd=self.directory,
            env=os.environ | self.places,
            capture_output=True,
            text=True,
            timeout=scaled(timeout),
            check=False,
        )
        assert status in (None, done.returncode), (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def records(self, *words: str) -> list[dict[str, Any]]:
        """Run umlab and return its lines of JSON."""
        return [json.loads(line) for line in self.run(*words, "--json").splitlines()]


@pytest.fixture
def terminal(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal(short_dir)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    yield terminal
    # 3: it has ended already, as it should.
    subprocess.run(
        [UMLAB, "switch", "stop", "office"],
        env=os.environ | terminal.places,
        capture_output=True,
        check=False,
    )


def write_archive(path: Path) -> None:
    """Write a root file system of busybox alone, without most of what a guest needs to boot."""
    script = path.with_name("init")
    script.write_text(INIT)
    script.chmod(0o755)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(require_program("busybox"), "bin/busybox")
        archive.add(script, "sbin/init")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)


def start(terminal: Terminal, image: str, memory: str) -> Client:
    """Start a lab with one guest on an image, and return its client when that is ready."""
    (terminal.directory / "lab.yaml").write_text(
        f"guests: {{left: {{root: {{image: {image}}}, memory: {memory}}}}}\n"
    )
    terminal.run("switch", "run", "office", "--file", "lab.yaml", "--background")
    client = Client("office")
    wait_until(lambda: client.guest("left").state == "ready", 60, "the guest is ready")
    return client


@pytest.mark.any_user
def test_guest_keeps_what_it_writes_and_the_image_stays(terminal: Terminal, short_dir: Path) -> None:
    require_program("fakeroot")
    write_archive(short_dir / "root.tar.gz")
    terminal.run("image", "import", "root.tar.gz", "mini", "--size", "16M")
    image = short_dir / "d/umlab/images/mini.img"
    before = (image.stat().st_mtime_ns, image.read_bytes())
    with start(terminal, "mini", "64M"):
        log = short_dir / "s/umlab/office/left/console.log"
        wait_until(lambda: b"INIT-OF-THE-IMAGE" in log.read_bytes(), 30, "the image's init runs")
        # What is in use is neither copied nor removed.
        assert "is in use by guest left, process" in terminal.run("snapshot", "save", "left", "one", status=1)
        refused = terminal.run("image", "rm", "mini", status=1)
        assert "image mini is needed by office/left, whose disks are lost" in refused
    terminal.run("switch", "stop", "office")
    assert before == (image.stat().st_mtime_ns, image.read_bytes())
    terminal.run("snapshot", "save", "left", "one")
    (snapshot,) = terminal.records("snapshot", "ls")
    assert (snapshot["guest"], snapshot["name"], snapshot["problem"]) == ("left", "one", None)
    assert snapshot["disk_size"] < 4 << 20
    terminal.run("cow", "merge", str(short_dir / "s/umlab/office/snapshots/one/left.cow"), "merged.img")
    look = [require_program("debugfs"), "-R", "cat /boots", short_dir / "merged.img"]
    assert subprocess.run(look, capture_output=True, check=True).stdout == b"left\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_system_that_is_built_boots_and_its_terminal_is_the_users(
    terminal: Terminal, short_dir: Path
) -> None:
    for program in ("mmdebstrap", "fakechroot", "fakeroot"):
        require_program(program)
    done = terminal.run("image", "build", "debian", status=None, timeout=600)
    if "Failed to fetch" in done:
        unavailable("there is no mirror of Debian to be reached from here")
    assert "image debian: ext4, 2.0 GiB" in done
    image = short_dir / "d/umlab/images/debian.img"
    debugfs = str(require_program("debugfs"))

    def look(request: str) -> str:
        command = [debugfs, "-R", request, str(image)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "root:*:" in look("cat /etc/shadow")
    assert "User:     0   Group:    42" in look("stat /etc/shadow")
    assert "Mode:  04755" in look("stat /bin/su")
    assert ".deb" not in look("ls -p /var/cache/apt/archives")
    assert "_Packages" not in look("ls -p /var/lib/apt/lists")
    with start(terminal, "debian", "256M"):
        log = short_dir / "s/umlab/office/left/con1.log"
        wait_until(lambda: b"root@left:~#" in log.read_bytes(), 90, "there is a shell at the terminal")
