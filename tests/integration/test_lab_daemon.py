"""A lab's daemon dies, is upgraded or goes: its guests, ports, addresses and consoles stay."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab, TypedShell, bess_guest, daemon_guest
from integration.peers.fake_guest import BROADCAST, FakeGuest, frame, mac
from support.deadline import scaled, wait_until
from support.process import is_gone
from umlab.api.background import start_in_background, stop_kept
from umlab.client import Client
from umlab.client.survey import survey
from umlab.errors import LabError, LabNotRunning
from umlab.guest.watch import group_members

pytestmark = pytest.mark.integration


@pytest.fixture
def guests() -> Iterator[BackgroundLab]:
    """Yield a lab of two real guests, of an old and of a new kind, with addresses."""
    with BackgroundLab(guests=(daemon_guest("lan"), bess_guest("lan"))) as lab:
        lab.wait_ready()
        for guest, device, number in (("left", "eth0", 1), ("right", "vec0", 2)):
            TypedShell(lab, guest).ask(
                f"ip addr add 10.0.0.{number}/24 dev {device}; ip link set {device} up"
            )
        yield lab


def kill(lab: BackgroundLab) -> None:
    lab.kill_daemon()
    with pytest.raises(LabNotRunning):
        lab.client.lab()
    lab.start()


def upgrade(lab: BackgroundLab) -> None:
    lab.upgrade_daemon()


def leave(lab: BackgroundLab) -> None:
    lab.leave()
    lab.start()


@pytest.mark.parametrize("change", [kill, upgrade, leave])
def test_guests_ports_addresses_and_consoles_outlive_a_daemon(
    guests: BackgroundLab, change: Callable[[BackgroundLab], None]
) -> None:
    lab = guests
    left, right = TypedShell(lab, "left"), TypedShell(lab, "right")
    # Both learn each other, and the shell has something to remember.
    assert "5 packets received" in left.ask("ping -A -c 5 10.0.0.2")
    left.ask("memory=kept")
    left.ask("{ ping -i 0.02 10.0.0.2 >/tmp/ping 2>&1 & }")
    wait_until(lambda: len(lab.client.fdb("lan")) == 2, 10, "both addresses")
    # The addresses are written down once a second.
    written = {entry.mac: entry.port_no for entry in lab.client.fdb("lan")}
    before = {port.port_no: (port.kind, port.pid, port.guest) for port in lab.client.ports("lan")}
    pids = {guest.name: (guest.pid, guest.started_at) for guest in lab.client.guests()}
    log = lab.client.log("left", 0, 1 << 20)
    keeper = lab.client.lab().keeper_pid
    _wait_for_a_written_fdb(lab)

    change(lab)

    assert lab.client.lab().keeper_pid == keeper
    assert {guest.name: (guest.pid, guest.started_at) for guest in lab.client.guests()} == pids
    assert {guest.state for guest in lab.client.guests()} == {"ready"}
    ports = lab.client.ports("lan")
    assert {port.port_no: (port.kind, port.pid, port.guest) for port in ports} == before
    assert {port.state for port in ports} == {"up"}
    assert {entry.mac: entry.port_no for entry in lab.client.fdb("lan")} == written
    assert lab.client.log("left", 0, 1 << 20).data.startswith(log.data)
    assert left.ask("echo $memory") == "kept\n"
    # What went on pinging meanwhile goes on, without an error.
    left.ask("kill -INT %1; wait")
    output = left.ask("cat /tmp/ping")
    sent, received = map(int, re.findall(r"(\d+) packets (?:transmitted|received)", output))
    assert received > 0.3 * sent, output[-500:]
    assert "5 packets received" in left.ask("ping -A -c 5 10.0.0.2")
    assert "5 packets received" in right.ask("ping -A -c 5 10.0.0.1")


def _left(lab: BackgroundLab) -> list[str]:
    return os.listdir(lab.runtime) if lab.runtime.exists() else []


def _wait_for_a_written_fdb(lab: BackgroundLab) -> None:
    """Wait until the keeper has the addresses: its file in memory is replaced each time."""
    keeper = lab.client.lab().keeper_pid

    def written() -> bool:
        sizes = []
        for name in os.listdir(f"/proc/{keeper}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{keeper}/fd/{name}"
                if "umlab-fdb" in os.readlink(path):
                    sizes.append(os.stat(path).st_size)
        return sizes == [2 * 20]

    wait_until(written, 10, "two addresses at the keeper")


def test_a_guest_that_ends_while_there_is_no_daemon_is_seen_to_have_ended(guests: BackgroundLab) -> None:
    lab = guests
    pid = lab.client.guest("left").pid
    lab.kill_daemon()
    os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: not group_members(pid), 10, "the end of the guest")

    lab.start()

    assert (lab.client.guest("left").state, lab.client.guest("left").status) == ("ended", -signal.SIGKILL)
    wait_until(lambda: [port.guest for port in lab.client.ports("lan")] == ["right"], 10, "one port")
    # Ended ones are started anew, others are let alone.
    right = lab.client.guest("right")
    assert lab.client.put_guest(lab.order.guests[0]).changed
    assert not lab.client.put_guest(lab.order.guests[1]).changed
    assert lab.client.guest("right") == right
    lab.wait_ready()


def test_every_kind_of_session_is_resumed(short_dir: Path) -> None:
    control, data, path = short_dir / "ctl", short_dir / "data", short_dir / "bess"
    with (
        BackgroundLab(listen=(f"daemon:{control},{data}", f"bess:{path}")) as lab,
        contextlib.ExitStack() as stack,
    ):
        guests = []
        for number, version in enumerate((0, 1, 3)):
            guests.append(stack.enter_context(FakeGuest(control, data)))
            guests[number].attach(version)
            wait_until(lambda count=number + 1: len(lab.client.ports("lan")) == count, 10, "its port")
        bess = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        bess.settimeout(scaled(10))
        bess.connect(str(path))
        wait_until(lambda: len(lab.client.ports("lan")) == 4, 10, "four ports")
        before = [(port.port_no, port.kind, port.detail, port.pid) for port in lab.client.ports("lan")]

        lab.kill_daemon()
        # Sent into the gap: nobody hears of it before the next daemon.
        bess.send(frame(BROADCAST, mac(9), b"in the gap"))
        lab.start()

        assert [
            (port.port_no, port.kind, port.detail, port.pid) for port in lab.client.ports("lan")
        ] == before
        for guest in guests:
            assert guest.receive() == frame(BROADCAST, mac(9), b"in the gap")
        for number, guest in enumerate(guests):
            guest.send(frame(mac(9), mac(number + 1), b"to bess"))
            assert bess.recv(2000) == frame(mac(9), mac(number + 1), b"to bess")
            bess.send(frame(mac(number + 1), mac(9), b"back"))
            assert guest.receive() == frame(mac(number + 1), mac(9), b"back")
        # Sessions still end as they did, on either side.
        guests[2].close()
        bess.close()
        wait_until(lambda: [port.detail for port in lab.client.ports("lan")] == ["v0", "v1"], 10, "two ports")
        assert lab.client.remove_port("lan", 1).changed
        assert [port.detail for port in lab.client.ports("lan")] == ["v1"]
        # And the keeper holds nothing of them: a guest sees the end of what it is not part of any more.
        with FakeGuest(control, data) as late:
            late.attach(3)
            wait_until(lambda: len(lab.client.ports("lan")) == 2, 10, "a port for a new guest")


def test_guest_that_asked_while_there_was_no_daemon_is_served_by_the_next(short_dir: Path) -> None:
    with BackgroundLab(listen=(f"daemon:{short_dir}/ctl", f"bess:{short_dir}/bess")) as lab:
        lab.kill_daemon()
        with (
            FakeGuest(short_dir / "ctl") as guest,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bess,
        ):
            bess.settimeout(scaled(10))
            bess.connect(str(short_dir / "bess"))
            lab.start()
            guest.attach(3)
            wait_until(lambda: len(lab.client.ports("lan")) == 2, 10, "both ports")
            guest.send(frame(BROADCAST, mac(1)))
            assert bess.recv(2000) == frame(BROADCAST, mac(1))


def test_settings_changed_at_run_time_outlive_a_daemon() -> None:
    with BackgroundLab() as lab:
        assert lab.client.set_switch("lan", hub=True, max_frame=1518).changed
        lab.kill_daemon()
        lab.start()
        config = lab.client.switch("lan").config
        assert (config.hub, config.max_frame) == (True, 1518)


def test_second_daemon_is_refused_and_the_first_goes_on() -> None:
    with BackgroundLab() as lab:
        pid = lab.client.lab().pid
        with pytest.raises(LabError, match=f"lan runs already, as process {pid}"):
            start_in_background(lab.order)
        with pytest.raises(LabError, match="runs already"):
            stop_kept("lan")
        assert lab.client.lab().pid == pid


def test_dead_keeper_takes_guests_and_daemon_with_it_and_leaves_nothing(guests: BackgroundLab) -> None:
    lab = guests
    view = lab.client.lab()
    pids = [guest.pid for guest in lab.client.guests()]

    os.kill(view.keeper_pid, signal.SIGKILL)

    for pid in pids:
        wait_until(lambda pid=pid: not group_members(pid), 20, "the end of a guest")
    wait_until(lambda: is_gone(view.pid), 20, "the end of the daemon")
    assert _left(lab) == []


def test_lab_whose_daemon_died_can_be_ended(guests: BackgroundLab) -> None:
    lab = guests
    pids = [guest.pid for guest in lab.client.guests()]
    keeper = lab.client.lab().keeper_pid
    assert survey().kept == []
    lab.kill_daemon()
    assert survey().kept == ["lan"]
    assert all(group_members(pid) for pid in pids)

    assert stop_kept("lan")

    assert not any(group_members(pid) for pid in pids)
    wait_until(lambda: is_gone(keeper), 10, "the end of the keeper")
    assert not stop_kept("lan")
    assert survey().kept == []
    assert _left(lab) == []


def test_switch_that_cannot_start_leaves_nothing(short_dir: Path) -> None:
    lab = BackgroundLab(listen=("daemon", f"bess:{short_dir}/none/bess"))
    with pytest.raises(LabError, match="none/bess"):
        lab.start()
    assert _left(lab) == []
    with Client("lan") as client, pytest.raises(LabNotRunning):
        client.lab()
