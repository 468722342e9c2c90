"""The ``l2tpv3`` transport of UML's vector drivers and of QEMU: one session of a static tunnel is one port.

A place is written with the UML kernel's own names, as the switch's end has them.  Over UDP, its peer may
be left out: the first datagram with the right session and cookie names it.

Source: Linux arch/um/drivers/vector_transports.c and vector_user.c; QEMU net/l2tpv3.c; RFC 3931.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from umlab.errors import StateError, SwitchError, TransportError, UmlabError
from umlab.switch.model import Encapsulation, Framing, Link
from umlab.transports.contract import Access, Argument, KeptSession, Listener, Session, SessionSink, Transport
from umlab.transports.option_list import OptionList
from umlab.transports.tunnel import Address, Socket, TunnelListener, cannot_open, printable
from umlab.wire import l2tpv3 as wire

KIND = "l2tpv3"
#: Datagrams that are looked at before the peer is known, and the pause in seconds after those that wait, or
#: after so many: at most 640 in a second, so that a flood of them costs little.
_BURST = 32
_PAUSE = 0.05
#: Seconds between two reports of refused datagrams.
REPORT_INTERVAL = 60.0
#: Where a guest is told to bind whose address nobody knows, by family.
_ANYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_OPTIONS = (
    *("src", "srcport", "dst", "dstport", "rx_session", "tx_session", "rx_cookie", "tx_cookie"),
    *("cookie64", "counter", "pin_counter", "v6", "udp"),
)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What both ends of a session have agreed on.

    Attributes:
        sessions: What comes in, what goes out.
        cookies: The same; both empty where there are none.
        counter: Whether there is one.
        pinned: Whether ours stands still.
        udp: Whether messages go over UDP.
    """

    sessions: tuple[int, int]
    cookies: tuple[bytes, bytes]
    counter: bool
    pinned: bool
    udp: bool

    def encapsulation(self, *, ip_header: bool) -> Encapsulation:
        """Return the headers of the messages that come in and go out."""
        rx, tx = (
            wire.serialize_header(session, cookie, udp=self.udp)
            for session, cookie in zip(self.sessions, self.cookies, strict=True)
        )
        if self.counter and self.pinned:
            tx += bytes(wire.COUNTER_SIZE)
        return Encapsulation(
            rx,
            tx,
            rx_skip=wire.COUNTER_SIZE if self.counter else 0,
            tx_counter=1 if self.counter and not self.pinned else None,
            ip_header=ip_header,
        )


class AwaitingListener:
    """A UDP port where a peer is awaited whose address nobody knows; one port of the switch at a time.

    The peer's datagrams then come to a socket of its own, connected to it.  What others send still comes
    here and is refused, unless it shows the cookie: then the peer has another address by now.  Without
    cookies the peer stays who came first.

    Args:
        where: The place, for people.
        sort: What kind of socket carries it.
        address: Where it is bound.
        numbers: What must come.
        arguments: How a peer is told to attach.
    """

    kind = KIND

    def __init__(
        self, where: str, sort: Socket, address: Address, numbers: _Numbers, arguments: tuple[Argument, ...]
    ) -> None:
        self.where = where
        self.arguments = arguments
        self._sort = sort
        self._address = address
        self._numbers = numbers
        self._socket: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._session: Session | None = None
        self._refused = 0
        self._report_at = 0.0
        self._sink: SessionSink
        self._loop: asyncio.AbstractEventLoop

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Bind and begin to wait; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        if kept is not None:
            self._socket = socket.socket(fileno=kept["listener"])
            self._socket.setblocking(False)
        else:
            try:
                # The kernel shares an address of ours with whoever of this user shares it as well.
                self._sort.open(self._address, None).close()
                self._socket = self._sort.open(self._address, None, shared=True)
            except OSError as error:
                raise cannot_open(self.kind, self._address, error) from None
        self._watch()

    async def close(self) -> None:
        """Wait no more; the peer's own socket belongs to the engine."""
        if self._socket is not None:
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def descriptors(self) -> dict[str, int]:
        """Return the socket where strangers' datagrams come."""
        return {} if self._socket is None else {"listener": self._socket.fileno()}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the peer's socket; a counter begins anew, which no peer looks at."""
        (fd,) = kept.fds
        self._session = self._make_session(fd, kept.detail)
        return self._session

    def _make_session(self, fd: int, peer: str) -> Session:
        link = Link(fd, Framing.DATAGRAM, encapsulation=self._numbers.encapsulation(ip_header=False))
        return Session(self.kind, link, None, peer, self._forget)

    def _forget(self) -> None:
        self._session = None

    def _watch(self) -> None:
        self._pause = None
        assert self._socket is not None
        self._loop.add_reader(self._socket, self._receive, self._socket)

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                data, address = sock.recvfrom(wire.MAX_UDP_HEADER)
            except OSError:
                break
            try:
                self._take(data, address)
            except UmlabError as error:
                self._refuse(address, error)
        self._loop.remove_reader(sock)
        self._pause = self._loop.call_later(_PAUSE, self._watch)

    def _take(self, data: bytes, address: Address) -> None:
        """Give the sender of a datagram the port.

        Raises:
            UmlabError: It is not the one; says why.
        """
        session, cookie = wire.parse_udp_header(data, len(self._numbers.cookies[0]))
        if session != self._numbers.sessions[0]:
            raise TransportError(f"session {session}")
        if cookie != self._numbers.cookies[0]:
            raise TransportError("another cookie")
        if self._session is not None:
            if self._session.detail == printable(address):
                # It was on its way when the peer's own socket was made.
                return
            if not cookie:
                raise TransportError(f"the peer is {self._session.detail}")
            old, self._session = self._session, None
            self._sink.session_closed(old)
        self._open(address)

    def _open(self, peer: Address) -> None:
        try:
            fd = self._sort.open(self._address, peer, shared=True).detach()
        except OSError as error:
            raise cannot_open(self.kind, self._address, error) from None
        session = self._make_session(fd, printable(peer))
        try:
            self._sink.session_opened(session)
        except (SwitchError, StateError):
            os.close(fd)
            raise
        self._session = session

    def _refuse(self, address: Address, reason: UmlabError) -> None:
        """Count a datagram, and report it unless another one was just reported."""
        self._refused += 1
        now = self._loop.time()
        if now < self._report_at:
            return
        others = f", and {self._refused - 1} before it" if self._refused > 1 else ""
        self._report_at, self._refused = now + REPORT_INTERVAL, 0
        text = f"datagram from {printable(address)} refused: {reason}{others}"
        self._sink.session_refused(self.kind, TransportError(text), None)


def _make(place: str, access: Access) -> Listener:
    """Make the listener of a place; who was named needs no leave, and others show session and cookie."""
    options = OptionList(KIND, place, _OPTIONS)
    udp = options.flag("udp", default=True)
    sort = Socket(
        socket.AF_INET6 if options.flag("v6") else socket.AF_INET,
        socket.SOCK_DGRAM if udp else socket.SOCK_RAW,
        0 if udp else wire.IP_PROTOCOL,
    )
    if not udp and (options.has("srcport") or options.has("dstport")):
        raise options.error("there are no ports with udp=0")
    numbers = _numbers(options, udp=udp)
    address = sort.address(options, "src", "srcport")
    peer = None
    if not udp or options.has("dst") or options.has("dstport"):
        peer = sort.address(options, "dst", "dstport")
    arguments = _arguments(options, sort, numbers, address, peer)
    if peer is None:
        # The peer's socket, once connected, has the one address that the kernel chose, and whatever comes to
        # another is heard by nobody.
        if ipaddress.ip_address(address[0]).is_unspecified:
            raise options.error("src must be one address of this host")
        return AwaitingListener(place, sort, address, numbers, arguments)
    encapsulation = numbers.encapsulation(ip_header=sort.ip_header)
    return TunnelListener(KIND, place, sort, address, peer, encapsulation, arguments)


def _numbers(options: OptionList, *, udp: bool) -> _Numbers:
    sessions = options.number("rx_session", 32), options.number("tx_session", 32)
    size = 8 if options.flag("cookie64") else 4
    given = options.pair("rx_cookie", "tx_cookie", size * 8)
    if given is None and options.has("cookie64"):
        raise options.error("cookie64 needs rx_cookie and tx_cookie")
    rx_cookie, tx_cookie = (each.to_bytes(size, "big") for each in given) if given else (b"", b"")
    counter, pinned = options.flag("counter"), options.flag("pin_counter")
    if pinned and not counter:
        raise options.error("pin_counter needs counter=1")
    return _Numbers(sessions, (rx_cookie, tx_cookie), counter, pinned, udp)


def _arguments(
    options: OptionList, sort: Socket, numbers: _Numbers, address: Address, peer: Address | None
) -> tuple[Argument, ...]:
    """Return what the other end is told, in the words of UML and of QEMU."""
    theirs: Address = (_ANYWHERE[sort.family], 0) if peer is None else peer
    rx, tx = numbers.sessions
    # The UML kernel reads a session as a signed number of 32 bits, and refuses one that is larger.
    signed = [session - (session >> 31 << 32) for session in (tx, rx)]
    uml = ["transport=l2tpv3", f"src={theirs[0]}", f"dst={address[0]}"]
    qemu = ["l2tpv3", "id=n0", f"src={theirs[0]}", f"dst={address[0]}"]
    if numbers.udp:
        ports = [f"srcport={theirs[1]}", f"dstport={address[1]}"]
        uml += ["udp=1", *ports]
        qemu += ["udp=on", *ports]
    if sort.family == socket.AF_INET6:
        uml.append("v6=1")
        qemu.append("ipv6=on")
    uml += [f"rx_session={signed[0]}", f"tx_session={signed[1]}"]
    qemu += [f"rxsession={tx}", f"txsession={rx}"]
    if options.has("rx_cookie"):
        rx_cookie, tx_cookie = (f"0x{cookie.hex()}" for cookie in numbers.cookies)
        uml += [f"rx_cookie={tx_cookie}", f"tx_cookie={rx_cookie}"]
        qemu += [f"rxcookie={tx_cookie}", f"txcookie={rx_cookie}"]
    for is_so, uml_word, qemu_word in (
        (len(numbers.cookies[0]) == 8, "cookie64=1", "cookie64=on"),
        (numbers.counter, "counter=1", "counter=on"),
        (numbers.pinned, "pin_counter=1", "pincounter=on"),
    ):
        if is_so:
            uml.append(uml_word)
            qemu.append(qemu_word)
    return (
        Argument("uml", f"vec0:{','.join(uml)}", KIND),
        Argument("qemu", f"-netdev {','.join(qemu)} -device virtio-net-pci,netdev=n0"),
    )


TRANSPORT = Transport(
    KIND,
    "l2tpv3:src=IP,srcport=PORT,rx_session=N,tx_session=N[,dst=IP,dstport=PORT][,OPTION=N,...]",
    _make,
)
