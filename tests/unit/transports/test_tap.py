"""The tap device without one: a kernel whose answers the test gives."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import Any

import pytest

from support.recording_sink import RecordingSink
from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports._bpf import Instruction, attach_filter
from umlab.transports.contract import KeptSession
from umlab.transports.tap import TapListener, open_tap

#: On a machine of 64 bits: struct sock_fprog has 16 bytes there.
TUNATTACHFILTER = 0x401054D5


class FakeKernel:
    """Stands where ``/dev/net/tun`` is.

    Attributes:
        error: What the device's ioctl answers, 0 for success.
        filter_error: What it answers to a filter.
        asked: The interface's name and flags of each ioctl.
        offloads: What the device in use was told to leave to its reader.
        filters: Each filter's instructions.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.filter_error = 0
        self.open_error = 0
        self.asked: list[tuple[bytes, int]] = []
        self.offloads: list[int] = []
        self.filters: list[bytes] = []
        self.opened: list[int] = []
        self._open = os.open
        monkeypatch.setattr(os, "open", self._open_device)
        monkeypatch.setattr(fcntl, "ioctl", self._ioctl)

    def _open_device(self, path: str, flags: int) -> int:
        assert path == "/dev/net/tun"
        assert flags & os.O_NONBLOCK
        assert flags & os.O_CLOEXEC
        if self.open_error:
            raise OSError(self.open_error, os.strerror(self.open_error))
        self.opened.append(self._open("/dev/null", flags))
        return self.opened[-1]

    def _ioctl(self, fd: int, request: int, argument: Any) -> Any:
        assert fd == self.opened[-1]
        if request == 0x400454D0:
            assert self.asked, "the device is known"
            self.offloads.append(argument)
            return argument
        if request == TUNATTACHFILTER:
            self._answer(self.filter_error)
            count, address = struct.unpack("@HP", argument)
            self.filters.append(ctypes.string_at(address, count * 8))
            return argument
        assert (request, len(argument)) == (0x400454CA, 40)
        self._answer(self.error)
        name, flags = struct.unpack_from("=16sH", argument)
        self.asked.append((name.rstrip(b"\0"), flags))
        return argument

    def _answer(self, error: int) -> None:
        if error:
            raise OSError(error, os.strerror(error))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    return FakeKernel(monkeypatch)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_device_becomes_one_session_at_once(kernel: FakeKernel, sink: RecordingSink) -> None:
    listener = TapListener("tap0")
    await listener.start(sink)
    (session,) = sink.opened
    assert (session.kind, session.detail, session.peer) == ("tap", "tap0", None)
    assert (session.link.fd, session.link.framing) == (kernel.opened[0], Framing.DEVICE)
    assert kernel.asked == [(b"tap0", 0x1002)], "IFF_TAP and IFF_NO_PI"
    assert kernel.offloads == [0], "none of an earlier program"
    session.close()
    await listener.close()
    assert is_open(session.link.fd), "the engine owns it"


@pytest.mark.parametrize(
    ("error", "help_text"),
    [
        (errno.EPERM, "not permitted; let root make it for you: ip tuntap add dev tap0 mode tap user"),
        (errno.EBUSY, "another program has it open"),
        (errno.EINVAL, "no tap device"),
        (errno.EIO, "tap device tap0: Input/output error"),
    ],
)
def test_device_that_cannot_be_had_says_what_helps(kernel: FakeKernel, error: int, help_text: str) -> None:
    kernel.error = error
    with pytest.raises(TransportError, match=help_text):
        open_tap("tap0")
    assert not is_open(kernel.opened[0])


@pytest.mark.parametrize(
    ("error", "help_text"),
    [
        (errno.ENOENT, "/dev/net/tun is missing; load the kernel module tun"),
        (errno.ENODEV, "has no driver"),
        (errno.EACCES, "may not be opened; let root run: chmod 666 /dev/net/tun"),
    ],
)
def test_missing_driver_says_what_helps(kernel: FakeKernel, error: int, help_text: str) -> None:
    kernel.open_error = error
    with pytest.raises(TransportError, match=help_text):
        open_tap("tap0")


@pytest.mark.parametrize("solicitations", [False, True])
async def test_hosts_own_router_solicitations_stay_out_unless_they_are_wanted(
    kernel: FakeKernel, sink: RecordingSink, solicitations: bool
) -> None:
    await TapListener("tap0", solicitations=solicitations).start(sink)
    assert len(kernel.filters) == (not solicitations)


def frame(ether_type: int = 0x86DD, next_header: int = 58, message: int = 133, size: int = 70) -> bytes:
    """Return the start of what an IPv6 host sends to all routers."""
    head = b"\x33\x33\0\0\0\2" + b"\2" * 6 + struct.pack("!HIHBB", ether_type, 6 << 28, 16, next_header, 255)
    return (head + bytes(32) + bytes([message])).ljust(size, b"\0")[:size]


def test_nothing_but_router_solicitations_stays_out(kernel: FakeKernel) -> None:
    """The kernel runs the program; to it, what one unix socket sends another is a host's own frame."""
    os.close(open_tap("tap0"))
    program = [
        Instruction(code, k, yes, no) for code, yes, no, k in struct.iter_unpack("=HBBI", kernel.filters[0])
    ]
    others = [
        *(frame(message=message) for message in (128, 132, 134, 135)),
        frame(next_header=17),
        frame(next_header=0),
        frame(ether_type=0x0800),
        frame(ether_type=0x0806, size=42),
        bytes(14),
    ]
    ours, hosts = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, hosts:
        attach_filter(ours, program)
        for each in [frame(), *others, frame()]:
            hosts.send(each)
        hosts.send(b"")
        assert [ours.recv(2000) for _ in others] == others
        # Behind all of them, and too short to be looked at.
        with pytest.raises(BlockingIOError):
            ours.recv(2000, socket.MSG_DONTWAIT)


def test_device_that_takes_no_filter_is_closed(kernel: FakeKernel) -> None:
    kernel.filter_error = errno.ENOMEM
    with pytest.raises(TransportError, match="tap device tap0: Cannot allocate memory"):
        open_tap("tap0")
    assert not is_open(kernel.opened[0])


@pytest.mark.parametrize(
    "name", ["", "x" * 16, "a/b", "a b", "a\n", "a:1", "tap%d", ".", "..", "\udcff", chr(0xD800)]
)
def test_text_that_names_no_interface_is_refused_before_the_kernel_sees_it(
    kernel: FakeKernel, name: str
) -> None:
    with pytest.raises(TransportError, match="is not the name of an interface"):
        open_tap(name)
    assert kernel.opened == []


@pytest.mark.parametrize("name", ["x" * 15, "tap-0.1", "ä"])
def test_unusual_names_are_taken(kernel: FakeKernel, name: str) -> None:
    os.close(open_tap(name))
    assert kernel.asked == [(name.encode(), 0x1002)]


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
async def test_refused_session_closes_the_device(
    kernel: FakeKernel, sink: RecordingSink, error: Exception
) -> None:
    sink.refusal = error
    with pytest.raises(TransportError, match=f"tap device tap0: {error}"):
        await TapListener("tap0").start(sink)
    assert not is_open(kernel.opened[0])


async def test_another_process_goes_on_with_the_device(kernel: FakeKernel, sink: RecordingSink) -> None:
    listener = TapListener("tap0")
    assert listener.descriptors() == {}
    await listener.start(sink, {})
    assert (sink.opened, kernel.opened) == ([], [])
    fd = os.dup(0)
    session = listener.resume(KeptSession(None, "tap0", {}, (fd,)))
    assert (session.kind, session.detail, session.peer) == ("tap", "tap0", None)
    assert (session.link.fd, session.link.framing) == (fd, Framing.DEVICE)
    for fds in ((), (fd, fd)):
        with pytest.raises(ValueError, match="unpack"):
            listener.resume(KeptSession(None, "tap0", {}, fds))
    os.close(fd)
