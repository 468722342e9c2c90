"""A switch with an interface of the host, and a neighbour without a kernel on its other side."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from integration.peers.fake_guest import BROADCAST, mac
from integration.peers.namespace import NetworkNamespace
from support.deadline import scaled, wait_until
from support.engines import ENGINES
from support.require import require_program, unavailable
from umlab._clock import MonotonicClock
from umlab.daemon.switch import ServiceEvent, SessionClosed, SwitchService
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Listener, SessionSink

#: Two addresses in one /24.
HOST, GUEST = "10.77.0.1", "10.77.0.2"


class OpenedIn:
    """A listener that opens its interface in a namespace; the switch itself stays where it is."""

    def __init__(self, namespace: NetworkNamespace, listener: Listener) -> None:
        self._namespace = namespace
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open it there; see :class:`umlab.transports.contract.Listener`."""
        with self._namespace.entered():
            await self._listener.start(sink, kept)


@contextlib.asynccontextmanager
async def switch_with(
    *listeners: Any, max_frame: int = 9018, engine: str = ""
) -> AsyncIterator[tuple[SwitchService, list[SessionClosed]]]:
    """Run a switch, on an engine by its name or on the best one; yield it and the ends of its sessions."""
    config, clock = SwitchConfig(max_frame=max_frame), MonotonicClock()
    made = ENGINES[engine](config, clock) if engine else None
    switch = SwitchService("lan", config, listeners, engine=made, clock=clock)
    closed: list[SessionClosed] = []

    def keep(event: ServiceEvent) -> None:
        if isinstance(event, SessionClosed):
            closed.append(event)

    switch.subscribe(keep)
    await switch.start()
    try:
        yield switch, closed
    finally:
        await switch.stop()


class Plugged:
    """A guest without a kernel, on a bess socket; only its own frames and those of our tests count."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(scaled(10))
        self.sock.connect(str(path))

    def __enter__(self) -> Plugged:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def receive(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Return the next frame that is wanted."""
        while True:
            data = self.sock.recv(70_000)
            if wanted(data):
                return data

    def ping_host(self) -> None:
        """Find the host by ARP, and have it answer a thousand pings, ten at a time."""
        me, sender, target = mac(1), socket.inet_aton(GUEST), socket.inet_aton(HOST)
        question = struct.pack("!HHBBH6s4s6x4s", 1, 0x0800, 6, 4, 1, me, sender, target)
        self.sock.send((BROADCAST + me + b"\x08\x06" + question).ljust(60, b"\0"))
        host = self.receive(lambda data: data[:6] == me and data[12:14] == b"\x08\x06")[6:12]
        for begin in range(0, 1000, 10):
            for number in range(begin, begin + 10):
                self.sock.send(host + me + b"\x08\x00" + echo(8, number, sender, target))
            for number in range(begin, begin + 10):
                answer = self.receive(lambda data: data[:6] == me and data[12:14] == b"\x08\x00")
                # The IP header has fields that are the host's to choose.
                assert answer[34:] == echo(0, number, sender, target)[20:]


def ours(data: bytes) -> bool:
    """Tell our tests' frames from what kernels say by themselves."""
    return data[6:11] == mac(0)[:5]


def waiting(fd: int) -> list[bytes]:
    """Return the frames that are there already, as far as to the first error."""
    frames = []
    with contextlib.suppress(OSError):
        while True:
            frames.append(os.read(fd, 2000))
    return frames


def pass_frame(sender: socket.socket, fd: int, data: bytes) -> None:
    """Send a frame until it comes out: what an interface is told before it is really up is dropped."""

    def passes() -> bool:
        with contextlib.suppress(OSError):
            sender.send(data)
        return data in waiting(fd)

    wait_until(passes, 10, "a frame")


def echo(kind: int, number: int, source: bytes, destination: bytes) -> bytes:
    """Return an IPv4 packet with an ICMP echo request (8) or its answer (0)."""
    message = struct.pack("!BBHHH", kind, 0, 0, 7, number) + bytes(1000)
    message = message[:2] + _checksum(message) + message[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0) + source + destination
    return head[:10] + _checksum(head) + head[12:] + message


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def solicitation(source: bytes) -> bytes:
    """Return an IPv6 router solicitation."""
    head = b"\x33\x33\0\0\0\2" + source + struct.pack("!HIHBB", 0x86DD, 6 << 28, 8, 58, 255)
    return head + bytes(15) + b"\1" + b"\xff\2" + bytes(13) + b"\2" + struct.pack("!BBHI", 133, 0, 0, 0)


def is_solicitation(data: bytes) -> bool:
    return data[12:14] == b"\x86\xdd" and data[20:21] == b"\x3a" and data[54:55] == b"\x85"


def cable(namespace: NetworkNamespace) -> None:
    """Lay a cable from ``near``, an interface for a switch, to ``far``, its neighbour's."""
    namespace.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
    for name in ("near", "far"):
        namespace.run("ip", "link", "set", name, "up")


def bridge(namespace: NetworkNamespace, *names: str) -> None:
    """Connect interfaces by a bridge of the host's."""
    namespace.run("ip", "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
    for name in names:
        namespace.run("ip", "link", "set", name, "master", "bridge")
        namespace.run("ip", "link", "set", name, "up")
    namespace.run("ip", "link", "set", "bridge", "up")


class Cabled:
    """``umlab switch run`` in a user and a network namespace of its own, where it may do what root may.

    There is a cable in it whose other end, ``far``, has an address.
    """

    def __init__(self, path: Path) -> None:
        script = (
            "ip link add near type veth peer name far && ip addr add 10.77.0.1/24 dev far && "
            'ip link set far up && ip link set near up && exec "$0" "$@"'
        )
        umlab = Path(sys.executable).with_name("umlab")
        run = (
            str(umlab),
            "switch",
            "run",
            "lan",
            "--listen",
            f"bess:{path}",
            "--listen",
            "raw:near",
            "--json",
        )
        search = os.pathsep.join((os.environ.get("PATH", os.defpath), str(require_program("ip").parent)))
        self.process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, *run],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PATH": search, "XDG_RUNTIME_DIR": str(path.parent)},
        )

    def wait_for(self, *events: str) -> None:
        """Read records until each event has come."""
        assert self.process.stdout is not None
        left = list(events)
        for line in self.process.stdout:
            event = json.loads(line)["event"]
            if event in left:
                left.remove(event)
            if not left:
                return
        assert self.process.stderr is not None
        reason = self.process.stderr.read()
        if "unshare" in reason:
            unavailable(f"no user namespace can be had: {reason.strip()}")
        raise AssertionError(f"no {left}: {reason}")
