"""A peer of each of QEMU's transports on one switch, on both engines: they are one broadcast domain."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac
from umlab._clock import MonotonicClock
from umlab.daemon.switch import SwitchService
from umlab.switch.model import SwitchConfig
from umlab.transports.registry import parse_listen

GROUP = "239.192.168.9"
Address = str | tuple[str, int]


class Peer:
    """A socket that is closed with a test, and how frames lie in it.

    Args:
        stack: Closes it.
        kind: What kind it is.
        bind: Where it is bound.
        to: Where it sends to; a stream is connected there.
    """

    def __init__(self, stack: ExitStack, kind: int, bind: Address | None, to: Address) -> None:
        family = socket.AF_UNIX if isinstance(to, str) else socket.AF_INET
        self.sock = stack.enter_context(socket.socket(family, kind))
        self.sock.settimeout(scaled(10))
        self._to = to
        self._is_stream = kind == socket.SOCK_STREAM
        if bind is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.bind(bind)
        if self._is_stream:
            self.sock.connect(to)

    def send(self, data: bytes) -> None:
        """Send a frame."""
        if self._is_stream:
            self.sock.sendall(struct.pack("!I", len(data)) + data)
        else:
            self.sock.sendto(data, self._to)

    def receive(self) -> bytes:
        """Return the next frame."""
        if not self._is_stream:
            return self.sock.recv(10_000)
        (length,) = struct.unpack("!I", self.sock.recv(4, socket.MSG_WAITALL))
        return self.sock.recv(length, socket.MSG_WAITALL)


def free_address(kind: int) -> tuple[str, int]:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(sock.getsockname()[1])


def join(peer: Peer) -> None:
    """Let a peer be in the group, on the loopback device."""
    lo = socket.inet_aton("127.0.0.1")
    peer.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + lo)
    peer.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, lo)


@pytest.mark.parametrize("engine", ENGINES)
async def test_whatever_one_sends_all_others_get(engine: str, short_dir: Path) -> None:
    tcp = free_address(socket.SOCK_STREAM)
    ours, theirs, (_, port) = (free_address(socket.SOCK_DGRAM) for _ in range(3))
    places = [
        f"qemu:{short_dir}/q",
        f"qemu:{tcp[0]}:{tcp[1]}",
        f"dgram:{short_dir}/ours,{short_dir}/theirs",
        f"dgram:{ours[0]}:{ours[1]},{theirs[0]}:{theirs[1]}",
        f"mcast:{GROUP}:{port},127.0.0.1",
    ]
    clock = MonotonicClock()
    service = SwitchService(
        "lan",
        SwitchConfig(),
        map(parse_listen, places),
        engine=ENGINES[engine](SwitchConfig(), clock),
        clock=clock,
    )
    with ExitStack() as stack:
        datagrams = Peer(stack, socket.SOCK_DGRAM, f"{short_dir}/theirs", f"{short_dir}/ours")
        await service.start()
        try:
            member = Peer(stack, socket.SOCK_DGRAM, (GROUP, port), (GROUP, port))
            join(member)
            peers = [
                Peer(stack, socket.SOCK_STREAM, None, f"{short_dir}/q"),
                Peer(stack, socket.SOCK_STREAM, None, tcp),
                datagrams,
                Peer(stack, socket.SOCK_DGRAM, theirs, ours),
                member,
            ]
            await wait_until_async(lambda: len(service.ports()) == len(peers), 10, "all ports")
            for number, sender in enumerate(peers):
                for size in (60, 1514, 9018):
                    sent = frame(BROADCAST, mac(number), size)
                    sender.send(sent)
                    if sender is member:
                        assert member.receive() == sent, "as any member hears itself"
                    for peer in peers:
                        assert peer is sender or peer.receive() == sent
            assert len(service.fdb()) == len(peers)
            # Each has an address by now.
            for number, receiver in enumerate(peers):
                for other in range(len(peers)):
                    if other != number:
                        sent = frame(mac(number), mac(other), 1514)
                        peers[other].send(sent)
                        if peers[other] is member:
                            assert member.receive() == sent
                        assert receiver.receive() == sent
            assert not any(any(each.drops.values()) for each in service.snapshot().ports.values())
        finally:
            await service.stop()
    assert [path.name for path in short_dir.iterdir()] == ["theirs"]
