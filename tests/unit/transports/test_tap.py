"""The tap device without one: a kernel whose answers the test gives."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import pytest

from support.recording_sink import RecordingSink
from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports.contract import KeptSession
from umlab.transports.tap import TapListener, open_tap


class FakeKernel:
    """Stands where ``/dev/net/tun`` is.

    Attributes:
        error: What the device's ioctl answers, 0 for success.
        asked: The interface's name and flags of each ioctl.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.open_error = 0
        self.asked: list[tuple[bytes, int]] = []
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

    def _ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        assert (fd, request, len(argument)) == (self.opened[-1], 0x400454CA, 40)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        name, flags = struct.unpack_from("=16sH", argument)
        self.asked.append((name.rstrip(b"\0"), flags))
        return argument


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


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a b", "a\n", "a:1", "tap%d", ".", ".."])
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
