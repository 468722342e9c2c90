"""The smallest real guest: a kernel, an initramfs of busybox and one shell script as init.

The tests of the management console need a kernel that answers, not a machine: no modules, no disk,
no network.  The guest is ended by killing its process group, because the programs of a guest whose
main process alone is killed run on as processes of the host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.deadline import scaled, wait_until
from support.leaks import TAG_VARIABLE
from support.require import require_program

READY = b"minimal-guest-ready"
APPLETS = ("sh", "mount", "sleep", "echo", "cat")

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
%(extra)s
echo %(ready)s
while :; do sleep 1000 & wait $!; done
"""


def _member(name: str, mode: int, body: bytes, inode: int) -> bytes:
    """Return one member of a newc archive: 110 bytes of header, the name, the body, both padded to 4."""
    fields = (inode, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + body + b"\0" * (-len(body) % 4)


def write_initramfs(path: Path, extra: str = "") -> None:
    """Write an initramfs whose init mounts the kernel's file systems, says ``READY`` and waits.

    Args:
        path: The archive to write (cpio newc, not compressed).
        extra: Shell lines that run before the guest says that it is ready.
    """
    init = INIT % {"extra": extra, "ready": READY.decode()}
    directory, regular, link = 0o040755, 0o100755, 0o120777
    members: list[tuple[str, int, bytes]] = [
        *((name, directory, b"") for name in ("bin", "dev", "proc", "sys", "tmp")),
        ("bin/busybox", regular, require_program("busybox").read_bytes()),
        *((f"bin/{applet}", link, b"busybox") for applet in APPLETS),
        ("init", regular, init.encode()),
        ("TRAILER!!!", 0, b""),
    ]
    path.write_bytes(b"".join(_member(*member, inode) for inode, member in enumerate(members, 1)))


class MinimalGuest:
    """A running guest.

    Attributes:
        umid: Its name.
        uml_dir: The directory that holds its run directory.
        process: The main process; leads its own session and group.
        log: The file that its console and the kernel's messages go to.
    """

    def __init__(self, umid: str, work: Path, *parameters: str, extra: str = "") -> None:
        self.umid = umid
        self.uml_dir = work
        self.log = work / f"{umid}.log"
        initramfs = work / f"{umid}.cpio"
        write_initramfs(initramfs, extra)
        command = [
            str(require_program("linux.uml")),
            "mem=128M",
            f"initrd={initramfs}",
            "con=null",
            "con0=null,fd:1",
            f"umid={umid}",
        ]
        command += [f"uml_dir={work}/", *parameters]
        # The memory file of a guest goes to /dev/shm when TMPDIR is not set.  A guest that several tests
        # share starts processes while one of them runs: without the tag they are no leak of that test.
        unwanted = ("TMPDIR", TAG_VARIABLE)
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=work,
                env=environment,
                start_new_session=True,
            )

    @property
    def run_directory(self) -> Path:
        """The directory of the guest's ``mconsole`` socket and ``pid`` file."""
        return self.uml_dir / self.umid

    @property
    def socket(self) -> Path:
        """The management console's socket."""
        return self.run_directory / "mconsole"

    def wait_ready(self) -> None:
        """Wait until init runs; raises `TimeoutError` or `AssertionError` with the log's tail."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_bytes()[-2000:]
            return READY in self.log.read_bytes()

        wait_until(ready, 40, f"guest {self.umid} is ready")

    def pause(self) -> None:
        """Stop the main process: the guest's kernel answers nothing until `resume`."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let the main process go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def wait_gone(self) -> int:
        """Wait for the guest to end by itself and return its exit status."""
        return self.process.wait(timeout=scaled(20))

    def kill(self) -> None:
        """End the guest, its helpers and its programs; harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def minimal_guest(umid: str, *parameters: str, extra: str = "") -> Iterator[MinimalGuest]:
    """Run a guest in a short temporary directory and end it, with everything it made, on the way out.

    Args:
        umid: Its name.
        parameters: More words for the kernel's command line.
        extra: Shell lines for its init.

    Yields:
        The guest, ready.
    """
    work = Path(tempfile.mkdtemp(prefix="uml"))
    try:
        guest = MinimalGuest(umid, work, *parameters, extra=extra)
        try:
            guest.wait_ready()
            yield guest
        finally:
            guest.kill()
    finally:
        shutil.rmtree(work, ignore_errors=True)
