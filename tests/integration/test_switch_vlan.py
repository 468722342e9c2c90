"""VLANs and mirror sessions of a lab's daemon: told by API and command line, live, kept over a crash."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, frame, mac
from support.deadline import scaled, wait_until
from umlab._descriptor_limit import raise_descriptor_limit
from umlab.errors import ApiError, SwitchError
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy
from umlab.switch.vlan import PortVlan, VidSet

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

UMLAB = Path(sys.executable).with_name("umlab")
ACCESS = PortConfig(PortVlan.access(10))
TRUNK = PortConfig(PortVlan.trunk(VidSet.parse("10,20-29")))
#: Ports of the large configuration, and frames that are under way meanwhile.
MANY, WINDOW = 1000, 32
#: A source that is not learnt.
GROUP = b"\x03\0\0\0\0\1"
_LOOP: dict[str, Any] = {"there": (2, frozenset({1})), "back": (1, frozenset({2}))}


class Plug:
    """A guest on the switch's seqpacket socket, on the next free port."""

    def __init__(self, lab: BackgroundLab, number: int) -> None:
        self.mac = mac(number)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(scaled(10))
        self.sock.connect(str(lab.runtime / f"{lab.name}.bess"))

    def send(self, to: bytes, payload: bytes) -> bytes:
        """Send a frame and return it."""
        sent = frame(to, self.mac, payload)
        self.sock.send(sent)
        return sent

    def receive(self) -> bytes:
        """Return the next frame."""
        return self.sock.recv(2000)

    def next_is(self, sent: bytes) -> bool:
        """Say whether the next frame that comes is this one, and so none came before it."""
        return self.receive() == sent


@pytest.fixture(scope="module")
def _lab() -> Iterator[BackgroundLab]:
    with BackgroundLab(listen=("bess",)) as lab:
        yield lab


@pytest.fixture
def lab(_lab: BackgroundLab) -> Iterator[BackgroundLab]:
    """A switch that is told nothing, without guests."""
    yield _lab
    wait_until(lambda: not _lab.client.switch("lan").ports, 20, "the end of all ports")
    config = _lab.client.switch("lan").config
    nothing = dict.fromkeys(config.ports), dict.fromkeys(each.name for each in config.mirrors)
    _lab.client.set_switch("lan", ports=nothing[0], mirrors=nothing[1])


@contextlib.contextmanager
def plugged(lab: BackgroundLab, count: int) -> Iterator[list[Plug]]:
    """Have guests on the ports from 1 on."""
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        plugs = []
        for number in range(1, count + 1):
            plugs.append(Plug(lab, number & 0xFF))
            stack.callback(plugs[-1].sock.close)
            # Many at once are more than the listener's queue holds.
            if number % 100 == 0 or number == count or count < 10:
                wait_until(lambda number=number: lab.client.switch(lab.name).ports == number, 30, "ports")
        yield plugs


def umlab(*words: str, status: int = 0) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run([UMLAB, *words], capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == status, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def tagged(sent: bytes, vid: int) -> bytes:
    """Return a frame with a tag."""
    return sent[:12] + b"\x81\x00" + vid.to_bytes(2, "big") + sent[12:]


def test_ports_are_told_from_the_command_line_and_shown(lab: BackgroundLab) -> None:
    with plugged(lab, 4) as (one, two, three, four):
        told = umlab("switch", "set", "lan", "--ports", "1,2", "--access", "10")
        assert told == "port 1-2: transparent -> access 10\nlan: changed\n"
        umlab("switch", "set", "lan", "--ports", "3", "--trunk", "10,20-29")
        sent = one.send(BROADCAST, b"in ten")
        assert two.next_is(sent)
        assert three.next_is(tagged(sent, 10))
        # The transparent port has none of that, and nobody has its frames.
        three.sock.send(tagged(frame(BROADCAST, three.mac, b"in ten"), 10))
        assert two.receive()[12:20] == one.receive()[12:20] == b"\x88\xb5in ten"
        three.sock.send(tagged(frame(BROADCAST, three.mac, b"in thirty"), 30))
        four.send(BROADCAST, b"in none")
        last = two.send(BROADCAST, b"last")
        assert one.next_is(last)
        assert three.next_is(tagged(last, 10))
        wait_until(lambda: len(lab.client.fdb("lan")) == 4, 10, "four addresses")
        (shown,) = map(json.loads, umlab("switch", "show", "lan", "--fdb", "--json").splitlines())
        text = umlab("switch", "show", "lan", "--counters")
    assert shown["switch"]["config"]["ports"] == {
        **{"1": {"access": 10}, "2": {"access": 10}, "3": {"trunk": "10,20-29"}},
    }
    assert {(entry["port_no"], entry["vid"]) for entry in shown["fdb"]} == {(1, 10), (2, 10), (3, 10), (4, 0)}
    assert "trunk 10,20-29" in text
    assert [port["counters"]["drop_vlan"] for port in shown["ports"] if port["port_no"] == 3] == [1]


def test_change_that_is_refused_changes_nothing(lab: BackgroundLab) -> None:
    with plugged(lab, 2) as (one, two):
        lab.client.set_switch("lan", ports={1: ACCESS, 2: ACCESS})
        before = lab.client.switch("lan").config
        refused = umlab("switch", "set", "lan", "--ports", "1-2,7,9", "--access", "20", "hub=on", status=1)
        assert "nothing is plugged in at port 7,9 (there are 1-2)" in refused
        with pytest.raises(SwitchError, match="at port 3 "):
            lab.client.set_switch("lan", ports={1: TRUNK, 3: TRUNK}, hub=True)
        loop = {name: MirrorSession(name, *ends) for name, ends in _LOOP.items()}
        with pytest.raises(ApiError, match="gets the copies of mirror"):
            lab.client.set_switch("lan", ports={1: TRUNK}, mirrors=loop)
        umlab("switch", "set", "lan", "--ports", "1", "--access", "0", status=2)
        umlab("switch", "set", "lan", "--ports", "1", "--trunk", "1-4095", status=2)
        assert lab.client.switch("lan").config == before
        assert two.next_is(one.send(BROADCAST, b"still in ten"))


def test_vlans_addresses_and_mirrors_outlive_a_daemon() -> None:
    bridge = PortConfig(PortVlan.access(20), ReservedPolicy.BRIDGE)
    tap = MirrorSession("tap", 5, frozenset({1}), egress=False)
    with (
        BackgroundLab("kept", listen=("bess",)) as lab,
        plugged(lab, 5) as (one, two, three, four, five),
    ):
        ports = {1: ACCESS, 2: TRUNK, 3: bridge, 9: ACCESS}
        lab.client.set_switch(lab.name, ports=ports, mirrors={"tap": tap}, ahead=True)
        # One address in two VLANs, at two ports.
        three.mac = one.mac
        sent = one.send(BROADCAST, b"in ten")
        assert two.next_is(tagged(sent, 10))
        assert five.next_is(sent)
        assert two.next_is(tagged(three.send(BROADCAST, b"in twenty"), 20))
        four.send(BROADCAST, b"in none")
        wait_until(lambda: len(lab.client.fdb(lab.name)) == 3, 10, "three addresses")
        known = {(entry.mac, entry.vid, entry.port_no) for entry in lab.client.fdb(lab.name)}
        assert {(vid, port_no) for _, vid, port_no in known} == {(10, 1), (20, 3), (0, 4)}
        lab.leave()
        lab.start()
        _check(lab, ports, tap, known, (one, two, three, five))
        lab.kill_daemon()
        lab.start()
        _check(lab, ports, tap, known, (one, two, three, five))
        assert "  empty  access 10" in umlab("switch", "show", lab.name)


def _check(
    lab: BackgroundLab,
    ports: dict[int, PortConfig],
    tap: MirrorSession,
    known: set[tuple[str, int, int]],
    plugs: tuple[Plug, Plug, Plug, Plug],
) -> None:
    """Check that a daemon goes on with what another was told and knew."""
    one, two, three, five = plugs
    config = lab.client.switch(lab.name).config
    assert (config.ports, config.mirrors) == (ports, (tap,))
    assert {(entry.mac, entry.vid, entry.port_no) for entry in lab.client.fdb(lab.name)} == known
    for vid, plug in ((10, one), (20, three)):
        two.sock.send(tagged(frame(one.mac, GROUP, b"to one of them"), vid))
        assert plug.next_is(frame(one.mac, GROUP, b"to one of them"))
        sent = plug.send(two.mac, b"answer")
        assert two.next_is(tagged(sent, vid))
        if plug is one:
            assert five.next_is(sent)


class Traffic:
    """Frames from one guest to another and back, without a pause, each of them counted."""

    def __init__(self, one: Plug, two: Plug) -> None:
        self._ends = (one, two)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0
        self.lost: list[str] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        wait_until(lambda: self.rounds > 10 or self.lost, 10, "frames under way")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                for sender, receiver in (self._ends, self._ends[::-1]):
                    number = self.rounds.to_bytes(4, "big")
                    sent = [sender.send(receiver.mac, number + bytes([each])) for each in range(WINDOW)]
                    for each in sent:
                        if not receiver.next_is(each):
                            raise AssertionError(f"another frame in round {self.rounds}")
                self.rounds += 1
        except (OSError, AssertionError) as error:
            self.lost.append(repr(error))


def test_live_changes_cost_other_ports_no_frame(lab: BackgroundLab) -> None:
    with plugged(lab, 4) as (one, two, *_):
        lab.client.set_switch("lan", ports={1: ACCESS, 2: ACCESS})
        with Traffic(one, two) as traffic:
            for number in range(20):
                vid = 20 + number
                lab.client.set_switch("lan", ports={3: PortConfig(PortVlan.access(vid)), 4: TRUNK})
                lab.client.set_switch("lan", ports={3: None, 4: None}, hub=False)
            assert traffic.rounds > 20
        assert traffic.lost == []
        ports = lab.client.ports("lan")
    dropped = [
        name for port in ports[:2] for name, count in port.counters.items() if "drop" in name and count
    ]
    assert dropped == []


def test_thousand_ports_of_four_thousand_vlans_are_told_at_once(lab: BackgroundLab) -> None:
    """Each port is of four VLANs by itself and of one with a neighbour; two others go on meanwhile."""
    config = {
        number: PortConfig(PortVlan.trunk(VidSet.of(range(4 * number - 6, 4 * number - 1)), None))
        for number in range(3, MANY + 3)
    }
    with plugged(lab, MANY + 2) as (one, two, *others):
        lab.client.set_switch("lan", ports={1: ACCESS, 2: ACCESS})
        with Traffic(one, two) as traffic:
            began = time.monotonic()
            assert lab.client.set_switch("lan", ports=config).changed
            took = time.monotonic() - began
        assert traffic.lost == []
        assert took < scaled(1)
        members = VidSet()
        for port in lab.client.switch("lan").config.ports.values():
            assert port.vlan is not None
            members |= port.vlan.members
        assert len(members) > 4000
        # The last VLAN of one port is the first of the next.
        others[0].sock.send(tagged(frame(BROADCAST, others[0].mac, b"next"), 10))
        assert others[1].receive()[14:22] == b"\x00\x0a\x88\xb5next"
