"""Images and what becomes of them: a guest that runs on one, and a system that is really built."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from support.require import require_program, unavailable
from umlab.client import Client
from umlab.daemon.disk import disk_path, disks_on
from umlab.errors import LabError
from umlab.guest.disk.cow_merge import merge_cow
from umlab.guest.disk.image import image_path, remove_image
from umlab.guest.disk.image_import import import_image
from umlab.lab import snapshot
from umlab.lab.snapshot import Target

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


def umlab(*words: str, timeout: float = 60) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(
        [UMLAB, *words], capture_output=True, text=True, timeout=scaled(timeout), check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def place(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where everything of a test is; a lab that it leaves behind is ended."""
    for variable, name in (("XDG_RUNTIME_DIR", "r"), ("XDG_STATE_HOME", "s"), ("XDG_DATA_HOME", "d")):
        (short_dir / name).mkdir()
        monkeypatch.setenv(variable, str(short_dir / name))
    monkeypatch.chdir(short_dir)
    yield short_dir
    umlab("switch", "stop", "office")


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


def start(image: str, memory: str) -> None:
    """Start a lab with one guest on an image, and wait until that is ready."""
    Path("lab.yaml").write_text(f"guests: {{left: {{root: {{image: {image}}}, memory: {memory}}}}}\n")
    umlab("switch", "run", "office", "--file", "lab.yaml", "--background")
    with Client("office") as client:
        wait_until(lambda: client.guest("left").state == "ready", 60, "the guest is ready")


@pytest.mark.any_user
def test_guest_keeps_what_it_writes_and_the_image_stays(place: Path) -> None:
    require_program("fakeroot")
    write_archive(place / "root.tar.gz")
    import_image("root.tar.gz", "mini", lambda _done, _total: None, size=16 << 20)
    image = image_path("mini")
    before = (image.stat().st_mtime_ns, image.read_bytes())
    target, disk = Target("office", "left"), disk_path(place / "s/umlab/office", "left")

    start("mini", "64M")
    log = place / "s/umlab/office/left/console.log"
    wait_until(lambda: b"INIT-OF-THE-IMAGE" in log.read_bytes(), 30, "the image's init runs")
    # What is in use is neither copied nor removed.
    with pytest.raises(LabError, match="is in use by guest left, process"):
        snapshot.save(target, "one", lambda _: None)
    with pytest.raises(LabError, match="image mini is in use by guest left, process"):
        remove_image("mini", [])

    assert umlab("switch", "stop", "office") == "office: stopped\n"
    assert before == (image.stat().st_mtime_ns, image.read_bytes())
    (kept,) = snapshot.save(target, "one", lambda _: None)
    assert kept.path.stat().st_blocks * 512 < 4 << 20
    assert [str(each) for each in disks_on(image)] == ["office/left", "office/left@one"]
    disk.unlink()
    assert snapshot.restore(target, "one", lambda _: None)[0].path == disk
    merge_cow(str(disk), "merged.img")
    assert look(Path("merged.img"), "cat /boots") == "left\n"


def look(image: Path, request: str) -> str:
    """Return what debugfs says of an image."""
    command = [str(require_program("debugfs")), "-R", request, str(image)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_system_that_is_built_boots_and_ends_when_it_is_told_to(place: Path) -> None:
    for program in ("mmdebstrap", "fakechroot", "fakeroot"):
        require_program(program)
    done = umlab("image", "build", "debian", timeout=600)
    if "Failed to fetch" in done:
        unavailable("there is no mirror of Debian to be reached from here")
    assert "image debian: ext4, 2.0 GiB" in done
    image = image_path("debian")
    assert "root:*:" in look(image, "cat /etc/shadow")
    assert "User:     0   Group:    42" in look(image, "stat /etc/shadow")
    assert "Mode:  04755" in look(image, "stat /bin/su")
    assert ".deb" not in look(image, "ls -p /var/cache/apt/archives")
    assert "_Packages" not in look(image, "ls -p /var/lib/apt/lists")

    start("debian", "256M")
    log = place / "s/umlab/office/left/con1.log"
    wait_until(lambda: b"root@left:~#" in log.read_bytes(), 90, "there is a shell at the terminal")
    assert umlab("switch", "stop", "office") == "office: stopped\n"
    assert b"reboot: System halted" in (place / "s/umlab/office/left/console.log").read_bytes()
