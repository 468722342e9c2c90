"""Netkit's ``uml_dump``, which Debian does not have: run as a program, it speaks as that one does.

``uml_dump.py CONTROL`` writes a pcap file to standard output.  The bytes are the original's: a data socket
with an abstract name of all 108 bytes (NUL, three of padding, pid, microseconds, then what the stack held),
a request of 124 bytes of version 3 and type 1 whose last two are no field, one read for the reply, at most
1514 bytes of a frame.  Any word on the control connection is an error, its end is the end.

Written from the protocol's facts and not with umlab's codecs: a mistake there must not hide itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support.deadline import scaled, wait_until

#: Bytes of a frame that it has room for.
SNAP = 1514
_FILE_HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP, 1)
_RECORD = struct.Struct("=IIII")


def main(control: str) -> int:
    """Dump until the switch ends the connection."""
    now = time.time_ns() // 1000
    stack = bytes(range(1, 97))
    name = b"\0\x7f\x7f\x7f" + struct.pack("=ii", os.getpid(), now % 1_000_000) + stack
    data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    data.setblocking(False)
    data.bind(name)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(control)
    stream.send(
        struct.pack("=III", 0xFEEDFACE, 3, 1) + struct.pack("=H108s", socket.AF_UNIX, name) + b"\xaa\xbb"
    )
    reply = stream.recv(110)
    if len(reply) < 110:
        print(f"not enough bytes received: {len(reply)}", file=sys.stderr)
        return 1
    out = sys.stdout.buffer
    out.write(_FILE_HEADER)
    out.flush()
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    poller.register(data, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if (events := ready.get(stream.fileno())) is not None:
            print("disconnected" if events & select.POLLHUP else "a word in excess", file=sys.stderr)
            return 0 if events & select.POLLHUP else 1
        frame = data.recv(SNAP)
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        out.write(_RECORD.pack(seconds, nanoseconds // 1000, len(frame), len(frame)) + frame)
        out.flush()


class UmlDump:
    """A running dump.

    Attributes:
        process: The process.
        file: What it writes, a pcap file.
    """

    def __init__(self, control: Path, file: Path) -> None:
        self.file = file
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        with file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(control)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                env=environment,
            )

    def wait_attached(self) -> None:
        """Wait until it has its reply; frames are in its file from then on."""
        wait_until(lambda: self.file.stat().st_size > 0 or self.process.poll() is not None, 10, "the reply")
        assert self.process.poll() is None

    def frames(self) -> list[bytes]:
        """Return the frames so far."""
        data = self.file.read_bytes()
        assert data.startswith(_FILE_HEADER)
        frames, start = [], len(_FILE_HEADER)
        while start + _RECORD.size <= len(data):
            *_, length = _RECORD.unpack_from(data, start)
            start += _RECORD.size + length
            if start <= len(data):
                frames.append(data[start - length : start])
        return frames

    def wait_frames(self, count: int) -> list[bytes]:
        """Wait until there are so many frames, and return them."""
        wait_until(lambda: len(self.frames()) >= count, 20, f"{count} frames")
        return self.frames()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and wait until a stop has come about."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def wait(self) -> tuple[int, str]:
        """Wait for its end and return its status and what it said."""
        _, said = self.process.communicate(timeout=scaled(10))
        return self.process.returncode, said.decode()


@contextlib.contextmanager
def uml_dump(control: Path, file: Path) -> Iterator[UmlDump]:
    """Run a dump for the length of a block."""
    dump = UmlDump(control, file)
    try:
        dump.wait_attached()
        yield dump
    finally:
        for number in (signal.SIGCONT, signal.SIGINT):
            dump.process.send_signal(number)
        dump.process.communicate(timeout=scaled(10))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1]))
