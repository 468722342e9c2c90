"""An existing interface of the host as a port, by a packet socket.

The socket takes what comes in at the interface and nothing that the host sends there.  That the interface
is down is no end; that it is gone is one, of which the socket itself says nothing: every change of an
interface is told on a netlink socket.

Source: packet(7), netlink(7), rtnetlink(7), Linux include/uapi/linux/if_packet.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping

from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing, Link
from umlab.transports.contract import Argument, KeptSession, Session, SessionSink, Transport
from umlab.transports.interface import interface_name

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 1, 8, 23
#: struct packet_mreq: the interface's index, PACKET_MR_PROMISC, no address.
_PROMISCUOUS = struct.Struct("=iHH8x")
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 3
_ARPHRD_ETHER = 1
_RTMGRP_LINK = 1
#: Bytes of frames that wait to be read; without CAP_NET_ADMIN the kernel gives less.
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
#: Bytes of a message about an interface that are read; nobody looks at them.
_NEWS_SIZE = 64
_FIXES = {
    errno.ENODEV: "there is no such interface",
    errno.EPERM: "not permitted; run the switch as root, or let root run: setcap cap_net_raw+ep {python}",
}


class RawListener:
    """One interface, which becomes one port at once.

    Args:
        interface: Its name.
    """

    kind = "raw"
    arguments: tuple[Argument, ...] = ()

    def __init__(self, interface: str) -> None:
        self.where = interface
        self._watch: _Watch | None = None
        self._sink: SessionSink

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open the interface and give it a port; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        if kept is not None:
            # Its port is resumed, or somebody had taken it away.
            return
        with contextlib.ExitStack() as opened:
            # The news first, so that no end is missed.
            try:
                news = opened.enter_context(_open_news())
                sock = opened.enter_context(open_raw(self.where))
                session = self._session(sock, news)
            except OSError as error:
                raise TransportError(f"interface {self.where}: {error.strerror}") from None
            try:
                sink.session_opened(session)
            except (SwitchError, StateError) as error:
                session.close()
                raise TransportError(f"interface {self.where}: {error}") from None
            opened.pop_all()
        sock.detach()

    async def close(self) -> None:
        """End the session without a report; the engine closes the interface."""
        if self._watch is not None:
            self._watch.close()

    def descriptors(self) -> dict[str, int]:
        """Return nothing: the port is all there is."""
        return {}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the interface."""
        fd, news_fd = kept.fds
        with contextlib.ExitStack() as borrowed:
            sock = socket.socket(fileno=fd)
            borrowed.callback(sock.detach)
            news = socket.socket(fileno=news_fd)
            borrowed.callback(news.detach)
            session = self._session(sock, news)
            borrowed.pop_all()
        sock.detach()
        return session

    def _session(self, sock: socket.socket, news: socket.socket) -> Session:
        self._watch = watch = _Watch(sock, news, lambda: self._sink.session_closed(session))
        link = Link(sock.fileno(), Framing.PACKET)
        session = Session(self.kind, link, None, self.where, watch.close, (news.fileno(),))
        return session


class _Watch:
    """Looks after each change of any interface whether ours is still there.

    Args:
        sock: The packet socket; a duplicate is looked at.
        news: Where changes are told; belongs to the watch.
        gone: Called once when it is not there any more.
    """

    def __init__(self, sock: socket.socket, news: socket.socket, gone: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock.dup()
        self._news = news
        self._gone = gone
        self._loop.add_reader(news, self._look)

    def close(self) -> None:
        """Look no more.  Idempotent."""
        if self._news.fileno() >= 0:
            self._loop.remove_reader(self._news)
            self._news.close()
            self._socket.close()

    def _look(self) -> None:
        # More news than the socket holds is an error, and news as well.
        with contextlib.suppress(OSError):
            self._news.recv(_NEWS_SIZE)
        # The kernel has taken a socket off an interface that goes before it tells of its end.
        if not self._socket.getsockname()[0]:
            self.close()
            self._gone()


def open_raw(interface: str) -> socket.socket:
    """Open a packet socket that receives every frame that comes in at an Ethernet interface.

    Raises:
        TransportError: The name is not usable or the interface cannot be had; says what helps.
    """
    interface_name(interface)
    with contextlib.ExitStack() as opened:
        try:
            sock = opened.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            )
            # For no protocol yet: nothing is received.
            sock.bind((interface, 0))
            if sock.getsockname()[3] != _ARPHRD_ETHER:
                raise TransportError(f"interface {interface} is no Ethernet interface")
            everything = _PROMISCUOUS.pack(socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0)
            sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, everything)
            sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            sock.bind((interface, _ETH_P_ALL))
        except OSError as error:
            reason = _FIXES.get(error.errno or errno.ENODEV, error.strerror or "")
            python = os.path.realpath(sys.executable)
            raise TransportError(f"interface {interface}: {reason.format(python=python)}") from None
        opened.pop_all()
    return sock


def _open_news() -> socket.socket:
    """Return a socket that hears of every change of an interface."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, _RTMGRP_LINK))
    except BaseException:
        sock.close()
        raise
    return sock


TRANSPORT = Transport("raw", "raw:INTERFACE", lambda place, access: RawListener(place))
