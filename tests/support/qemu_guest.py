"""A guest of QEMU without KVM: Debian's kernel for clouds, a root of busybox, a shell on its serial line.

It boots in some seconds.  Its shell takes commands one at a time; what one prints comes back with its status.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.deadline import deadline, scaled
from support.require import ROOT, require_program, unavailable
from umlab.guest.inside import cpio

#: Seconds in which a guest has booted.
BOOT_TIME = 60
#: In the order in which they need each other.
_MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net"),
)
_INIT = """#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
for module in %s; do insmod /$module.ko; done
stty -echo -onlcr
echo umlab-guest-is-ready
while :; do sh /dev/console; done
"""


def kernel() -> Path:
    """Return the directory of the kernel and its modules; fetches it the first time."""
    place = ROOT / "build/qemu-kernel"
    done = subprocess.run([ROOT / "tools/qemu-kernel"], capture_output=True, text=True, timeout=scaled(110))
    if done.returncode != 0:
        unavailable(f"no kernel for QEMU: tools/qemu-kernel: {done.stderr.strip()[-300:]}")
    return place


def initramfs(folder: Path) -> bytes:
    """Return the guest's root, with the modules of a directory."""
    return cpio.serialize_archive(
        [
            *(cpio.directory(name) for name in ("bin", "dev")),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("bin/busybox", require_program("busybox").read_bytes(), 0o755),
            cpio.file("init", (_INIT % " ".join(_MODULES)).encode(), 0o755),
            *(cpio.file(f"{name}.ko", (folder / f"{name}.ko").read_bytes()) for name in _MODULES),
        ]
    )


@contextlib.contextmanager
def running_qemu(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a bare QEMU whose serial line is its standard input and output, and end it after the block."""
    process = subprocess.Popen(
        [
            require_program("qemu-system-x86_64"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-machine", "q35", "-accel", "tcg", "-m", "128"),
            *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class QemuGuest:
    """A booted guest.

    Args:
        process: QEMU, whose standard input and output are the guest's serial line.

    Attributes:
        process: The same.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._to, self._from = process.stdin, process.stdout
        self._received = b""
        self._commands = 0

    def run(self, command: str, seconds: float = 30) -> str:
        """Return what a shell command prints, which must succeed."""
        status, output = self.try_to_run(command, seconds)
        assert status == 0, f"{command}: status {status}: {output}"
        return output

    def try_to_run(self, command: str, seconds: float = 30) -> tuple[int, str]:
        """Return the status of a shell command, and what it prints."""
        self.begin(command)
        return self.end(seconds)

    def begin(self, command: str) -> None:
        """Let a command begin; the next call must be `end`."""
        self._commands += 1
        self._to.write(f"{{ {command}\n}} </dev/null 2>&1; echo @{self._commands}@$?@\n".encode())
        self._to.flush()

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Wait for the end of the command that was begun."""
        output, status = self.read_until(rf"@{self._commands}@(\d+)@\n", seconds)
        return int(status), output

    def read_until(self, pattern: str, seconds: float) -> tuple[str, str]:
        """Return what comes before a pattern, and its group."""
        end = deadline(seconds)
        while not (found := re.search(pattern.encode(), self._received)):
            left = end - time.monotonic()
            shown = self._received[-2000:].decode(errors="replace")
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                raise TimeoutError(f"no {pattern!r} within {scaled(seconds):g} s, only: {shown}")
            data = os.read(self._from.fileno(), 65_536)
            if not data:
                raise EOFError(f"QEMU ended before {pattern!r}: {shown}")
            self._received += data.replace(b"\r", b"")
        output = self._received[: found.start()].decode(errors="replace")
        self._received = self._received[found.end() :]
        return output, found[1].decode()


@contextlib.contextmanager
def running_guest(folder: Path, nics: Sequence[str]) -> Iterator[QemuGuest]:
    """Boot a guest, and end it after the block.

    Args:
        folder: Where its root is written to.
        nics: Its NICs, ``eth0`` first: QEMU's arguments, as a switch tells them.
    """
    files = kernel()
    root = folder / "initramfs"
    root.write_bytes(initramfs(files))
    with running_qemu(
        *("-kernel", str(files / "vmlinuz"), "-initrd", str(root)),
        *("-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off"),
        *(word for number, nic in enumerate(nics) for word in nic_arguments(nic, number)),
    ) as process:
        guest = QemuGuest(process)
        guest.read_until("(umlab-guest-is-ready)\n", BOOT_TIME)
        yield guest


def nic_arguments(told: str, number: int) -> list[str]:
    """Return what a switch tells QEMU as a NIC of a number, with an address that says so."""
    words = told.replace("n0", f"n{number}").split()
    words[-1] += f",romfile=,mac={nic_mac(number)}"
    return words


def nic_mac(number: int) -> str:
    """Return the address of a NIC."""
    return f"52:54:00:00:00:{number:02x}"
