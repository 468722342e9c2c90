"""LLDP with real agents in both directions, and with frames of one that were recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.peers.fake_guest import FakeGuest
from integration.peers.lldpd import Lldpd, lldpd
from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.switch_process import UMLAB, RunningSwitch, switch_run
from support.deadline import scaled, wait_until
from umlab.client import Client
from umlab.switch.control.lldp import Neighbour

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture
def runtime(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    return short_dir


def umlab(*words: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run([UMLAB, *words], capture_output=True, text=True, timeout=scaled(30))
    assert done.returncode == 0, done.stderr
    return done.stdout


def neighbours() -> dict[int, list[Neighbour]]:
    """Return the neighbours of each port of the switch ``lan``."""
    with Client("lan") as client:
        return {port.port_no: list(port.neighbours) for port in client.ports("lan")}


def names() -> dict[int, list[str]]:
    """Return the names of the neighbours of each port of the switch ``lan``."""
    return {port_no: [each.system_name for each in found] for port_no, found in neighbours().items()}


def row_of(name: str) -> list[str]:
    """Return the line of a neighbour in what is shown."""
    (row,) = (line.split() for line in umlab("switch", "show", "lan").splitlines() if name in line.split())
    return row


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        for number in "12":
            made.run("ip", "link", "add", f"near{number}", "type", "veth", "peer", "name", f"far{number}")
            for end in ("near", "far"):
                made.run("ip", "link", "set", f"{end}{number}", "up")
        yield made


def gone(switch: RunningSwitch, name: str) -> str:
    """Return why a neighbour is known no more, once it is."""
    while True:
        record = switch.wait_for("neighbour_gone")
        if record["system_name"] == name:
            return str(record["cause"])


def wait_known(agent: Lldpd, expected: dict[str, str], what: str) -> None:
    """Wait until an agent knows these neighbours, and no others."""
    wait_until(lambda: agent.neighbours() == expected, 20, what)


@pytest.mark.needs_root
def test_real_agents_and_the_switch_see_each_other(runtime: Path, namespace: NetworkNamespace) -> None:
    places = ("--listen", "raw:near1", "--listen", "raw:near2")
    with (
        switch_run("lan", *places, within=namespace.words()) as switch,
        lldpd(namespace, "far1", "left.example") as left,
        lldpd(namespace, "far2", "right.example") as right,
    ):
        switch.wait_for("started")
        both = {1: ["left.example"], 2: ["right.example"]}

        # The switch reads along, and the agents see each other through it.
        wait_until(
            lambda: all(name in names()[port_no] for port_no, (name,) in both.items()), 20, "neighbours"
        )
        assert left.neighbours().keys() == {"right.example"}
        (shown,) = neighbours()[1]
        assert (shown.port_id, shown.port_description) == (namespace.mac("far1"), "far1")
        assert row_of("left.example")[:2] == ["1", "left.example"]

        # It tells of itself when it is to.
        umlab("switch", "set", "lan", "lldp=on")
        wait_known(left, {"right.example": namespace.mac("far2"), "lan/lan": "lan:1"}, "the switch")
        wait_until(lambda: right.neighbours().get("lan/lan") == "lan:2", 20, "the switch at the other port")

        # A bridge and a peer keep it to themselves.
        for policy in ("bridge", "peer"):
            umlab("switch", "set", "lan", "--ports", "1-2", "--reserved", policy)
            wait_known(left, {"lan/lan": "lan:1"}, f"nobody behind a port that is a {policy}")
            assert names() == both

        # Everything is taken back.
        umlab("switch", "set", "lan", "lldp=off")
        wait_known(left, {}, "no switch")
        left.end()
        assert gone(switch, "left.example") == "shutdown"
        right.kill()
        assert gone(switch, "right.example") == "aged"
        assert names() == {1: [], 2: []}


def test_what_an_agent_once_sent_is_shown(runtime: Path) -> None:
    frame, farewell = ((VECTORS / f"lldp_{name}.bin").read_bytes() for name in ("lldpd", "lldpd_farewell"))
    with switch_run("lan") as switch:
        switch.wait_for("started")
        with (
            FakeGuest(runtime / "umlab/lan/lan.ctl") as guest,
            FakeGuest(runtime / "umlab/lan/lan.ctl") as other,
        ):
            guest.attach()
            other.attach()
            guest.send(frame)
            assert switch.wait_for("neighbour_seen")["system_name"] == "left.example"
            assert other.receive() == frame
            assert row_of("left.example")[:2] == ["1", "left.example"]
            guest.send(frame[:-9])
            guest.send(farewell)
            assert gone(switch, "left.example") == "shutdown"
            with Client("lan") as client:
                assert client.switch("lan").counters["lldp_malformed"] == 1
