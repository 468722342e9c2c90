"""The packet socket without a privilege: a kernel whose answers the test gives."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.deadline import wait_until_async
from support.recording_sink import RecordingSink
from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports.contract import KeptSession
from umlab.transports.raw import RawListener, open_raw

INDEX, ETHERNET, LOOPBACK = 7, 1, 772
OPENED = [
    ("bind", "eth7", 0),
    # Promiscuous on our interface; PACKET_AUXDATA; PACKET_IGNORE_OUTGOING.
    ("set", 263, 1, struct.pack("=iHH8x", INDEX, 1, 0)),
    ("set", 263, 8, 1),
    ("set", 263, 23, 1),
    ("bind", "eth7", 3),
]


class FakeKernel:
    """What stands behind every :class:`FakeSocket`.

    Attributes:
        errors: The error of a call by its name.
        hardware_type: The interface's.
        present: Whether the interface is still there.
        looks: How often that was asked.
        asked: What packet sockets were told, in order.
        made: The sockets that were made.
        news: The other end of the netlink socket.
    """

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.hardware_type = ETHERNET
        self.present = True
        self.looks = 0
        self.asked: list[tuple[Any, ...]] = []
        self.made: list[socket.socket] = []
        self.news: list[socket.socket] = []

    def answer(self, call: str) -> None:
        """Let a call fail that is to."""
        if call in self.errors:
            raise OSError(self.errors[call], os.strerror(self.errors[call]))


class FakeSocket(socket.socket):
    """A unix socket that answers as a packet or a netlink socket does."""

    kernel: FakeKernel

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        self.is_packet = family == socket.AF_PACKET
        if fileno is None:
            assert self.is_packet or (family, proto) == (socket.AF_NETLINK, socket.NETLINK_ROUTE)
            assert type == socket.SOCK_RAW | socket.SOCK_NONBLOCK
            self.kernel.answer("packet" if self.is_packet else "netlink")
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            super().__init__(fileno=ours.detach())
            self.setblocking(False)
            self.kernel.made.append(self)
            self.kernel.news.append(theirs)
        else:
            super().__init__(family, type, proto, fileno)

    def bind(self, address: Any) -> None:
        """Take note."""
        if self.is_packet:
            self.kernel.answer("bind")
            self.kernel.asked.append(("bind", *address))
        else:
            self.kernel.answer("listen")
            assert address == (0, 1), "RTMGRP_LINK"

    def getsockname(self) -> Any:
        """Return what a packet socket does: a name as long as the interface is there."""
        self.kernel.looks += 1
        return ("eth7" if self.kernel.present else "", 3, 0, self.kernel.hardware_type, b"")

    def setsockopt(self, level: int, option: int, value: Any) -> None:  # type: ignore[override]
        """Take note."""
        if level == socket.SOL_SOCKET:
            assert value >= 1 << 20
            self.kernel.answer({socket.SO_RCVBUF: "buffer", 33: "force"}[option])
        else:
            self.kernel.asked.append(("set", level, option, value))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    FakeSocket.kernel = kernel = FakeKernel()
    monkeypatch.setattr(socket, "socket", FakeSocket)
    monkeypatch.setattr(socket, "if_nametoindex", {"eth7": INDEX}.__getitem__)
    yield kernel
    for sock in kernel.news:
        sock.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_interface_becomes_one_session_at_once(kernel: FakeKernel, sink: RecordingSink) -> None:
    listener = RawListener("eth7")
    await listener.start(sink)
    (session,) = sink.opened
    assert (session.kind, session.detail, session.peer) == ("raw", "eth7", None)
    assert session.link.framing is Framing.PACKET
    assert not os.get_blocking(session.link.fd)
    assert kernel.asked == OPENED
    await listener.close()
    await listener.close()
    session.close()
    assert is_open(session.link.fd), "the engine owns it"
    assert not is_open(session.fds[0])


async def test_end_of_the_interface_is_the_end_of_the_session(
    kernel: FakeKernel, sink: RecordingSink
) -> None:
    listener = RawListener("eth7")
    await listener.start(sink)
    (session,) = sink.opened
    news = kernel.news[0]

    kernel.looks = 0
    for message in (bytes(2000), b"another interface"):
        news.send(message)
    await wait_until_async(lambda: kernel.looks == 2, 10, "a look after each change")
    assert sink.closed == []

    kernel.present = False
    news.send(b"ours")
    await wait_until_async(lambda: sink.closed, 10, "the end of the session")
    assert not is_open(session.fds[0])
    session.close()
    await listener.close()
    assert sink.closed == [session]


@pytest.mark.parametrize(
    ("call", "error", "help_text"),
    [
        ("packet", errno.EPERM, rf"let root run: setcap cap_net_raw\+ep {os.path.realpath(sys.executable)}"),
        ("bind", errno.ENODEV, "there is no such interface"),
        ("bind", errno.EIO, "Input/output error"),
        ("buffer", errno.EINVAL, "Invalid argument"),
        ("netlink", errno.EMFILE, "Too many open files"),
        ("listen", errno.EPERM, "Operation not permitted"),
    ],
)
async def test_interface_that_cannot_be_had_says_what_helps(
    kernel: FakeKernel, sink: RecordingSink, call: str, error: int, help_text: str
) -> None:
    kernel.errors[call] = error
    with pytest.raises(TransportError, match=f"^interface eth7: .*{help_text}"):
        await RawListener("eth7").start(sink)
    assert [sock.fileno() for sock in kernel.made] == [-1] * len(kernel.made), "nothing stays open"


async def test_interface_that_is_no_ethernet_is_refused(kernel: FakeKernel, sink: RecordingSink) -> None:
    kernel.hardware_type = LOOPBACK
    with pytest.raises(TransportError, match="interface eth7 is no Ethernet interface"):
        await RawListener("eth7").start(sink)
    assert [sock.fileno() for sock in kernel.made] == [-1, -1]


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "eth0:1", "eth%d", "\udcff"])
def test_text_that_names_no_interface_is_refused_before_the_kernel_sees_it(
    kernel: FakeKernel, name: str
) -> None:
    with pytest.raises(TransportError, match="is not the name of an interface"):
        open_raw(name)
    assert kernel.made == []


def test_buffer_is_as_large_as_a_plain_user_may_have(kernel: FakeKernel) -> None:
    kernel.errors["force"] = errno.EPERM
    open_raw("eth7").close()
    assert kernel.asked == OPENED


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
async def test_refused_session_closes_the_interface(
    kernel: FakeKernel, sink: RecordingSink, error: Exception
) -> None:
    sink.refusal = error
    with pytest.raises(TransportError, match=f"interface eth7: {error}"):
        await RawListener("eth7").start(sink)
    assert [sock.fileno() for sock in kernel.made] == [-1, -1]


async def test_another_process_goes_on_with_the_interface(kernel: FakeKernel, sink: RecordingSink) -> None:
    first = RawListener("eth7")
    assert first.descriptors() == {}
    await first.start(sink)
    (session,) = sink.opened
    kept = tuple(map(os.dup, (session.link.fd, *session.fds)))
    await first.close()

    listener = RawListener("eth7")
    await listener.start(sink, {})
    assert (len(sink.opened), len(kernel.made)) == (1, 2), "nothing is opened anew"
    resumed = listener.resume(KeptSession(None, "eth7", {}, kept))
    assert (resumed.kind, resumed.detail, resumed.peer) == ("raw", "eth7", None)
    assert (resumed.link.fd, resumed.link.framing, resumed.fds) == (kept[0], Framing.PACKET, kept[1:])

    kernel.present = False
    kernel.news[0].send(b"ours")
    await wait_until_async(lambda: sink.closed, 10, "the end of the session")
    assert sink.closed == [resumed]
    os.close(kept[0])


@pytest.mark.usefixtures("kernel")
async def test_descriptors_that_are_none_of_an_interface_stay_whose_they_are(sink: RecordingSink) -> None:
    listener = RawListener("eth7")
    await listener.start(sink, {})
    sock, other = socket.socketpair()
    with open("/dev/null") as file, sock, other:
        for fds in ((sock.fileno(),), (sock.fileno(), file.fileno()), (file.fileno(), sock.fileno())):
            with pytest.raises((ValueError, OSError)):
                listener.resume(KeptSession(None, "eth7", {}, fds))
            assert all(map(is_open, fds))
