"""Netkit's ``uml_dump`` on our switches: it sees every frame, and nobody notices it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, FakeGuest, attach_request, frame, mac
from integration.peers.switch_thread import SwitchThread, switch_with_conversation
from integration.peers.uml_dump import SNAP, uml_dump
from integration.peers.uml_switch import uml_switch
from support.deadline import wait_until
from support.require import require_program
from umlab.switch.counters import DropReason
from umlab.switch.model import SwitchConfig

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

LEFT, RIGHT = mac(1), mac(2)
VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture
def switch(short_dir: Path) -> Iterator[SwitchThread]:
    """Yield a switch in a thread of its own."""
    (short_dir / "s").mkdir()
    running = SwitchThread(short_dir / "s", SwitchConfig())
    running.start()
    yield running
    running.stop()


@contextlib.contextmanager
def pair(switch: SwitchThread) -> Iterator[tuple[FakeGuest, FakeGuest]]:
    """Attach two guests as ports 1 and 2 that know each other."""
    with FakeGuest(switch.control) as left, FakeGuest(switch.control) as right:
        left.attach()
        right.attach()
        left.send(frame(BROADCAST, LEFT))
        right.receive()
        right.send(frame(LEFT, RIGHT))
        left.receive()
        yield left, right


def test_what_it_writes_is_every_frame_for_another_program(switch: SwitchThread, short_dir: Path) -> None:
    tcpdump = str(require_program("tcpdump"))
    arp = (VECTORS / "ethernet_arp.bin").read_bytes()
    tagged = (VECTORS / "ethernet_vlan.bin").read_bytes()
    with pair(switch) as (left, right), uml_dump(switch.control, short_dir / "pcap") as dump:
        # A flood, and frames between two others that a port would not see.
        sent = [arp, tagged, frame(RIGHT, LEFT, b"question", SNAP), frame(LEFT, RIGHT, b"answer")]
        for each, sender, receiver in zip(
            sent, (left, left, left, right), (right, right, right, left), strict=True
        ):
            sender.send(each)
            assert receiver.receive() == each
        assert dump.wait_frames(4) == sent
        (port,) = [port for port in switch.ports() if port.detail == "dump"]
        assert (port.port_no, port.kind) == (3, "daemon")
        assert port.peer is not None
        assert (port.peer.pid, port.peer.uid) == (dump.process.pid, os.getuid())
    wait_until(lambda: all(port.detail != "dump" for port in switch.ports()), 10, "the end of its port")
    command = [tcpdump, "-nn", "-e", "-r", str(short_dir / "pcap")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The bytes of what it does not know are in lines of their own.
    lines = [line for line in text.splitlines() if not line.startswith("\t")]
    assert len(lines) == 4
    assert "ethertype ARP" in lines[0]
    assert "who-has" in lines[0]
    assert "802.1Q" in lines[1]
    assert f"02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype Unknown (0x88b5), length {SNAP}" in lines[2]
    assert "02:00:00:00:00:02 > 02:00:00:00:00:01" in lines[3]


def test_it_is_no_port_for_anybody_and_what_it_sends_stays_unread(switch: SwitchThread) -> None:
    with pair(switch) as (left, right), FakeGuest(switch.control) as dump:
        dump.stream.sendall(attach_request(3, dump.name, 1))
        dump.switch_name = dump.read_reply()[2:]
        dump.send(frame(BROADCAST, mac(9)))
        dump.send(frame(LEFT, RIGHT))
        left.send(frame(RIGHT, LEFT, b"x"))
        assert right.receive() == dump.receive() == frame(RIGHT, LEFT, b"x")
        left.send(frame(mac(9), LEFT, b"y"))
        assert right.receive() == dump.receive() == frame(mac(9), LEFT, b"y")
        assert left.receive_waiting() == right.receive_waiting() == []
        assert {entry.mac: entry.port_no for entry in switch.call(switch.service.fdb)} == {LEFT: 1, RIGHT: 2}
        counters = switch.snapshot().ports[3]
        assert (counters.rx_frames, counters.tx_frames) == (0, 2)


def test_slow_reader_harms_nobody_and_loses_exactly_what_is_counted(
    switch: SwitchThread, short_dir: Path
) -> None:
    """Received and dropped are all that was forwarded, and the guests receive each one of their frames."""
    bursts, size = 600, 8
    with pair(switch) as (left, right), uml_dump(switch.control, short_dir / "pcap") as dump:
        before = switch.snapshot().ports
        dump.signal(signal.SIGSTOP)
        for number in range(bursts):
            for part in range(size):
                left.send(frame(RIGHT, LEFT, b"%d" % (number * size + part)))
            for part in range(size):
                assert right.receive()[14:].startswith(b"%d" % (number * size + part))
        total = bursts * size
        stopped = switch.snapshot().ports[3]
        assert stopped.drops[DropReason.TAIL] > 0
        dump.signal(signal.SIGCONT)
        wait_until(lambda: switch.snapshot().queued[3] == 0, 10, "an empty queue")
        left.send(frame(RIGHT, LEFT, b"last"))
        right.receive()
        wait_until(lambda: dump.frames()[-1:] == [frame(RIGHT, LEFT, b"last")], 10, "the last frame")
        after = switch.snapshot().ports
        received = dump.frames()
        assert len(received) == after[3].tx_frames
        assert len(received) + after[3].drops[DropReason.TAIL] == total + 1
        assert after[2].tx_frames - before[2].tx_frames == total + 1
        assert after[2].drops == before[2].drops
        numbers = [int(each[14:].rstrip(b"\0")) for each in received[:-1]]
        assert numbers == sorted(set(numbers)), "each once, and in order"


def test_conversation_goes_on_while_dumps_come_stand_still_and_die(short_dir: Path) -> None:
    folder = short_dir / "s"
    folder.mkdir()
    with switch_with_conversation(folder, SwitchConfig()) as (switch, conversation):
        for number in range(3):
            with uml_dump(switch.control, short_dir / f"{number}.pcap") as dump:
                dump.wait_frames(20)
                dump.signal(signal.SIGSTOP)
                conversation.goes_on()
        wait_until(lambda: len(switch.ports()) == 2, 10, "the ends of the dumps")
        assert conversation.lost == 0


def test_dump_goes_on_when_the_daemon_was_killed(short_dir: Path) -> None:
    control = short_dir / "ctl"
    with (
        BackgroundLab(listen=(f"daemon:{control}",)) as lab,
        uml_dump(control, short_dir / "pcap") as dump,
        FakeGuest(control) as guest,
    ):
        guest.attach()
        guest.send(frame(BROADCAST, LEFT, b"before"))
        dump.wait_frames(1)
        lab.kill_daemon()
        lab.start()
        guest.send(frame(BROADCAST, LEFT, b"after"))
        assert [each[14:19] for each in dump.wait_frames(2)] == [b"befor", b"after"]
        port = lab.client.ports("lan")[0]
        assert (port.kind, port.detail, port.pid) == ("daemon", "dump", dump.process.pid)
        lab.client.remove_port("lan", port.port_no)
        assert dump.wait() == (0, "disconnected\n")


async def test_drop_in_serves_it(short_dir: Path) -> None:
    control = short_dir / "ctl"
    async with uml_switch("ours", ("-unix", str(control)), ready=(control,)) as switch:
        with uml_dump(control, short_dir / "pcap") as dump, FakeGuest(control) as guest:
            guest.attach()
            await switch.wait_line("New connection", 2)
            guest.send(frame(BROADCAST, LEFT))
            assert dump.wait_frames(1) == [frame(BROADCAST, LEFT)]
        await switch.wait_line("Disconnect", 2)
