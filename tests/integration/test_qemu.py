"""A booted guest of QEMU on each of its network backends, all on one switch; and what goes wrong there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, frame, mac
from integration.peers.lan import bring_up, ping
from integration.peers.switch_thread import BessGuest, SwitchThread, switch_with_conversation
from integration.peers.uml_kernel import running_guest
from support.deadline import scaled, wait_until
from support.qemu_guest import QemuGuest, nic_mac
from support.qemu_guest import running_guest as running_qemu_guest
from support.qemu_peer import QemuPeer, free_address
from support.require import require_program, unavailable
from umlab.daemon.switch import PortInfo, SessionClosed
from umlab.guest.cmdline import DaemonNic
from umlab.switch.counters import DropReason
from umlab.switch.events import LinkClosed
from umlab.switch.model import SwitchConfig
from umlab.transports import qemu
from umlab.transports.registry import parse_listen
from umlab.wire.ethernet import format_mac

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: NICs by what carries them, in their order, with the kind of their ports.
NICS = ("unix stream", "TCP stream", "old TCP stream", "QEMU listens", "unix datagrams", "UDP", "multicast")
TESTER = mac(0xAA)


class Lan:
    """A switch with a listener for each NIC, and the guest that has them all.

    Attributes:
        switch: The switch.
        guest: The guest.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        tcp = free_address(socket.SOCK_STREAM)[1]
        udp = [free_address(socket.SOCK_DGRAM)[1] for _ in range(3)]
        places = (
            f"qemu:{folder}/stream",
            f"qemu:127.0.0.1:{tcp}",
            f"qemu:connect={folder}/server",
            f"dgram:{folder}/ours,{folder}/theirs",
            f"dgram:127.0.0.1:{udp[0]},127.0.0.1:{udp[1]}",
            f"mcast:239.192.168.7:{udp[2]},127.0.0.1",
        )
        listeners = [parse_listen(place) for place in places]
        told = [listener.arguments[-1].text for listener in listeners]
        told.insert(2, f"-netdev socket,id=n0,connect=127.0.0.1:{tcp} -device virtio-net-pci,netdev=n0")
        self._nics = told
        self.switch = SwitchThread(folder, SwitchConfig(), listeners)
        self.guest: QemuGuest

    @contextlib.contextmanager
    def booted(self) -> Iterator[QemuGuest]:
        """Run the guest for a block: each NIC is up and knows the tester."""
        with running_qemu_guest(self._folder, self._nics) as self.guest:
            self.guest.run(" && ".join(self._commands()))
            yield self.guest

    def _commands(self) -> list[str]:
        # An address is answered for by the NIC that has it.
        commands = ["echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore"]
        for number in range(len(NICS)):
            commands += [
                f"grep -q {nic_mac(number)} /sys/class/net/eth{number}/address",
                f"ip addr add 10.0.{number}.2/24 dev eth{number}",
                f"ip link set eth{number} up",
                f"arp -i eth{number} -s 10.0.{number}.1 {TESTER.hex(':')}",
            ]
        return commands

    def ports(self) -> list[PortInfo]:
        """Return the ports of the guest's NICs."""
        return [port for port in self.switch.ports() if port.kind not in ("bess", "daemon")]

    def port_of(self, number: int) -> int:
        """Return the port that a NIC's address was learnt on."""
        entries = self.switch.call(self.switch.service.fdb)
        (port_no,) = [entry.port_no for entry in entries if format_mac(entry.mac) == nic_mac(number)]
        return port_no


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    folder = Path(tempfile.mkdtemp(prefix="uml"))
    made = Lan(folder)
    try:
        made.switch.start()
        try:
            with made.booted():
                yield made
        finally:
            made.switch.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def tester(lan: Lan) -> Iterator[BessGuest]:
    with BessGuest(lan.switch.bess) as guest:
        wait_until(lambda: any(port.kind == "bess" for port in lan.switch.ports()), 10, "the tester's port")
        yield guest
    wait_until(lambda: not any(port.kind == "bess" for port in lan.switch.ports()), 10, "it is gone")


def raw_mac(number: int) -> bytes:
    """Return the address of a NIC."""
    return bytes.fromhex(nic_mac(number).replace(":", ""))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(number: int, sequence: int, size: int) -> bytes:
    """Return a ping of a NIC's address in a frame of a size."""
    payload = bytes((sequence + i) & 0xFF for i in range(size - 42 & ~1))
    icmp = struct.pack("!BBHHH", 8, 0, 0, number, sequence) + payload
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    addresses = bytes((10, 0, number, 1, 10, 0, number, 2))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), sequence, 0, 64, 1, 0) + addresses
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return raw_mac(number) + TESTER + b"\x08\0" + ip + icmp


def ping_flood(tester: BessGuest, number: int, count: int, in_flight: int = 16) -> None:
    """Ping a NIC so many times with frames of all sizes, some at a time; every answer must come, and once."""
    waiting: dict[int, bytes] = {}
    sent = answered = 0
    while answered < count:
        while sent < count and len(waiting) < in_flight:
            request = echo_request(number, sent, 60 + sent * 97 % 1455)
            waiting[sent] = request
            tester.send(request)
            sent += 1
        reply = tester.receive()
        if reply[:6] != TESTER or reply[12:14] != b"\x08\0" or reply[34] != 0:
            continue
        sequence = int.from_bytes(reply[40:42], "big")
        assert reply[42:] == waiting.pop(sequence)[42:]
        answered += 1


@pytest.mark.parametrize("number", range(len(NICS)), ids=NICS)
def test_frames_go_both_ways_and_under_load(lan: Lan, tester: BessGuest, number: int) -> None:
    ping_flood(tester, number, 1)
    port_no = lan.port_of(number)
    before = lan.switch.snapshot().ports[port_no]
    ping_flood(tester, number, 2000)
    after = lan.switch.snapshot().ports[port_no]
    assert after.rx_frames - before.rx_frames >= 2000
    assert after.tx_frames - before.tx_frames >= 2000
    assert after.drops == before.drops


@pytest.mark.parametrize("number", range(5), ids=NICS[:5])
def test_burst_waits_until_the_guest_takes_it(lan: Lan, tester: BessGuest, number: int) -> None:
    ping_flood(tester, number, 1)
    statistics = f"cat /sys/class/net/eth{number}/statistics/rx_packets"
    before = int(lan.guest.run(statistics))
    for _ in range(100):
        tester.send(frame(raw_mac(number), TESTER, b"burst", 1514))
    wait_until(lambda: int(lan.guest.run(statistics)) >= before + 100, 10, "all have come")


async def test_uml_guest_and_qemu_guest_ping_each_other(lan: Lan, short_dir: Path) -> None:
    nic = DaemonNic(str(lan.switch.control))
    async with running_guest(short_dir, nics=(nic,)) as guest:
        await bring_up(guest, "eth0", "10.0.0.7")
        await ping(guest, "10.0.0.2")
        assert "3 packets received" in lan.guest.run("ping -A -c 3 -W 10 10.0.0.7")
    wait_until(lambda: all(port.kind != "daemon" for port in lan.switch.ports()), 10, "it is gone")


def test_ports_say_who_is_there(lan: Lan) -> None:
    pid = lan.guest.process.pid
    shown = [(port.kind, port.peer and (port.peer.pid, port.peer.uid)) for port in lan.ports()]
    assert sorted(shown, key=str) == sorted(
        [
            ("qemu", (pid, os.getuid())),  # it has connected
            ("qemu", (pid, os.getuid())),  # it listens
            ("qemu", None),
            ("qemu", None),
            ("dgram", (0, os.getuid())),
            ("dgram", None),
            ("mcast", None),
        ],
        key=str,
    )


def test_qemu_that_is_killed_in_a_burst_is_served_again(lan: Lan, tester: BessGuest) -> None:
    endless = [port for port in lan.ports() if port.kind in ("dgram", "mcast") and port.peer is None]
    assert len(endless) == 2
    for sent in range(500):
        tester.send(frame(BROADCAST, TESTER, b"burst", 1514))
        if sent == 250:
            os.killpg(lan.guest.process.pid, signal.SIGKILL)
    wait_until(lambda: lan.ports() == endless, 20, "only ports that know no end are left")
    # This is the last test of the guest that all have shared.
    with lan.booted():
        wait_until(lambda: len(lan.ports()) == len(NICS), 20, "all are back")
        for number in range(len(NICS)):
            ping_flood(tester, number, 20)


# The way out.


@contextlib.contextmanager
def running_passt(path: Path) -> Iterator[None]:
    """Run passt on a socket; as root it becomes the user nobody."""
    path.parent.chmod(0o777)
    network = ("--ipv4-only", "--address", "10.9.9.2", "--netmask", "24", "--gateway", "10.9.9.1")
    process = subprocess.Popen(
        [require_program("passt"), "--foreground", "--socket", str(path), *network],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: process.poll() is not None or path.exists(), 10, "passt listens")
        if process.returncode is not None:
            unavailable(f"passt does not run here: {process.communicate()[0].decode()[-300:]}")
        yield
    finally:
        process.kill()
        process.communicate()


def test_passt_is_a_way_out_again_and_again(short_dir: Path) -> None:
    path = short_dir / "passt"
    sender, receiver = mac(9) + bytes((10, 9, 9, 2)), bytes(6) + bytes((10, 9, 9, 1))
    question = BROADCAST + mac(9) + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 1) + sender + receiver
    switch = SwitchThread(short_dir, SwitchConfig(), [parse_listen(f"qemu:connect={path}")])
    switch.start()
    try:
        with BessGuest(switch.bess) as guest:
            switch.wait_ports(1)
            for _ in range(2):
                with running_passt(path):
                    (_, port) = switch.wait_ports(2)
                    assert port.kind == "qemu"
                    guest.send(question)
                    answer = guest.receive()
                    assert answer[:6] == mac(9)
                    assert answer[28:32] == bytes((10, 9, 9, 1)), "it is the gateway"
                switch.wait_ports(1)
                path.unlink(missing_ok=True)
    finally:
        switch.stop()


# A daemon that dies, and peers that notice nothing.


def test_every_port_outlives_a_killed_daemon(short_dir: Path) -> None:
    tcp = free_address(socket.SOCK_STREAM)
    ours, theirs, (_, group_port) = (free_address(socket.SOCK_DGRAM) for _ in range(3))
    group = "239.192.168.8"
    places = (
        "qemu",
        f"qemu:{tcp[0]}:{tcp[1]}",
        f"qemu:connect={short_dir}/server",
        f"dgram:{short_dir}/ours,{short_dir}/theirs",
        f"dgram:{ours[0]}:{ours[1]},{theirs[0]}:{theirs[1]}",
        f"mcast:{group}:{group_port},127.0.0.1",
    )
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(f"{short_dir}/server")
        server.listen()
        server.settimeout(scaled(10))
        datagrams = QemuPeer(stack, socket.SOCK_DGRAM, f"{short_dir}/theirs", f"{short_dir}/ours")
        lab = stack.enter_context(BackgroundLab("qemu", places))
        stack.enter_context(server.accept()[0])
        member = QemuPeer(stack, socket.SOCK_DGRAM, (group, group_port), (group, group_port))
        member.join(group)
        peers = [
            QemuPeer(stack, socket.SOCK_STREAM, None, f"{lab.runtime}/qemu.qemu"),
            QemuPeer(stack, socket.SOCK_STREAM, None, tcp),
            datagrams,
            QemuPeer(stack, socket.SOCK_DGRAM, theirs, ours),
        ]
        wait_until(lambda: len(lab.client.ports("qemu")) == len(places), 10, "all ports")
        before = [(port.port_no, port.kind, port.uid) for port in lab.client.ports("qemu")]
        lab.kill_daemon()
        lab.start()
        assert [(port.port_no, port.kind, port.uid) for port in lab.client.ports("qemu")] == before
        for number, sender in enumerate(peers):
            sent = frame(BROADCAST, mac(number), b"after the crash")
            sender.send(sent)
            for peer in (*peers, member):
                assert peer is sender or peer.receive() == sent
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# Faults, by peers that are none.


@pytest.fixture
def place(short_dir: Path) -> Path:
    folder = short_dir / "switch"
    folder.mkdir()
    return folder


def stream(switch: SwitchThread, path: Path) -> socket.socket:
    """Return a connection to a switch that has its port."""
    count = len(switch.ports())
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.fspath(path))
    sock.settimeout(scaled(10))
    switch.wait_ports(count + 1)
    return sock


def link_errors(switch: SwitchThread) -> list[int]:
    return [event.errno for event in switch.events if isinstance(event, LinkClosed)]


def on_the_wire(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def test_broken_streams_end_alone(place: Path) -> None:
    path = place / "q"
    with switch_with_conversation(place, SwitchConfig(), [parse_listen(f"qemu:{path}")]) as (switch, talk):
        for hostile, number in (
            (b"\xff\xff\xff\xff", errno.EMSGSIZE),
            (struct.pack("!I", 69_633), errno.EMSGSIZE),
            (on_the_wire(frame(BROADCAST, mac(9))) + b"GET / HTTP/1.1\r\n\r\n", errno.EMSGSIZE),
            (on_the_wire(frame(BROADCAST, mac(9)))[:40], errno.EPROTO),
            (b"\0\0", errno.EPROTO),
            (b"", 0),
        ):
            switch.events.clear()
            with stream(switch, path) as sock:
                sock.sendall(hostile)
                if number == errno.EMSGSIZE:
                    while sock.recv(65_536):
                        pass
                talk.goes_on()
            switch.wait_ports(2)
            assert link_errors(switch) == [number]
            (closed,) = [event for event in switch.events if isinstance(event, SessionClosed)]
            assert (closed.kind, closed.cause) == ("qemu", "link")


def test_stream_that_stops_within_a_frame_holds_up_nobody_and_goes_on_where_it_was(place: Path) -> None:
    path = place / "q"
    sent = frame(mac(0x77), mac(9), b"in two halves", 1000)
    with switch_with_conversation(place, SwitchConfig(), [parse_listen(f"qemu:{path}")]) as (switch, talk):
        with stream(switch, path) as half, stream(switch, path) as whole, BessGuest(switch.bess) as hearer:
            switch.wait_ports(5)
            hearer.send(frame(mac(9), mac(0x77)))
            half.sendall(on_the_wire(sent)[:500])
            for _ in range(3):
                talk.goes_on()
            whole.sendall(on_the_wire(frame(mac(0x77), mac(8), b"others are served")))
            assert hearer.receive()[14:].startswith(b"others are served")
            half.sendall(on_the_wire(sent)[500:])
            assert hearer.receive() == sent
        switch.wait_ports(2)


def test_lengths_that_no_frame_has_are_skipped_or_counted(place: Path) -> None:
    path = place / "q"
    with switch_with_conversation(place, SwitchConfig(), [parse_listen(f"qemu:{path}")]) as (switch, _):
        with stream(switch, path) as sock, BessGuest(switch.bess) as hearer:
            (port_no,) = [port.port_no for port in switch.wait_ports(4) if port.kind == "qemu"]
            runts = b"".join(on_the_wire(bytes(size)) for size in range(14))
            good = frame(BROADCAST, mac(9), b"after all that")
            sock.sendall(bytes(4000) + runts + on_the_wire(bytes(9019)) + on_the_wire(good))
            assert wait_for(hearer, b"after all that") == good
            counters = switch.snapshot().ports[port_no]
            assert counters.drops[DropReason.RUNT] == 13
            assert counters.drops[DropReason.OVERSIZE] == 1
            assert counters.rx_frames == 1
        switch.wait_ports(2)


def wait_for(guest: BessGuest, payload: bytes) -> bytes:
    """Return the next frame with a payload."""
    while not (received := guest.receive())[14:].startswith(payload):
        pass
    return received


def test_silent_connections_are_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "MAX_CONNECTIONS", 8)
    path = place / "q"
    with (
        switch_with_conversation(place, SwitchConfig(), [parse_listen(f"qemu:{path}")]) as (switch, talk),
        ExitStack() as held,
    ):
        for _ in range(8):
            held.enter_context(stream(switch, path))
        with socket.socket(socket.AF_UNIX) as ninth:
            ninth.settimeout(scaled(10))
            ninth.connect(os.fspath(path))
            assert ninth.recv(100) == b""
        assert switch.wait_refusals(1) == [f"{path}: more than 8 connections"]
        talk.goes_on()
        held.close()
        switch.wait_ports(2)
        with stream(switch, path):
            pass
        switch.wait_ports(2)
