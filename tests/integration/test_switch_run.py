"""``umlab switch run`` as a process: where it listens, what it prints, how it ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, frame, mac
from integration.peers.switch_process import UMLAB, switch_run
from support.deadline import scaled
from umlab.daemon.spec import DEFAULT_KINDS

pytestmark = pytest.mark.integration


def refused(*options: str) -> str:
    """Run a switch that must not start; return what it says in one line on stderr."""
    done = subprocess.run(
        [UMLAB, "switch", "run", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=False,
    )
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("umlab: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_every_protocol_is_in_one_broadcast_domain(short_dir: Path) -> None:
    control, data, path = short_dir / "ctl", short_dir / "data", short_dir / "bess"
    with (
        switch_run("lan", "--listen", f"daemon:{control},{data}", "--listen", f"bess:{path}") as switch,
        contextlib.ExitStack() as stack,
    ):
        switch.wait_for("started")
        guests = []
        for version in (0, 1, 3):
            guest = stack.enter_context(FakeGuest(control, data))
            guest.attach(version)
            switch.wait_for("session_opened")
            guests.append(guest)
        bess = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        bess.settimeout(scaled(10))
        bess.connect(str(path))
        assert switch.wait_for("session_opened")["kind"] == "bess"

        for number, guest in enumerate(guests):
            sent = frame(BROADCAST, mac(number + 1), b"from guest %d" % number)
            guest.send(sent)
            assert bess.recv(2000) == sent
            assert all(other.receive() == sent for other in guests if other is not guest)
        for number, guest in enumerate(guests):
            sent = frame(mac(number + 1), mac(9), b"to guest %d" % number)
            bess.send(sent)
            assert guest.receive() == sent

        switch.process.send_signal(signal.SIGINT)
        ports = switch.wait_for("stopping")["ports"]

    assert [port["detail"] for port in ports] == ["v0", "v1", "v3", ""]
    # Each guest sent one broadcast; the three unicast frames came from the last one.
    assert [port["counters"]["rx_frames"] for port in ports] == [1, 1, 1, 3]
    assert [port["counters"]["tx_frames"] for port in ports] == [3, 3, 3, 3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_it_and_removes_its_sockets(short_dir: Path, number: signal.Signals) -> None:
    places = (f"daemon:{short_dir}/ctl,{short_dir}/data", f"bess:{short_dir}/bess")
    with switch_run("lan", *(word for place in places for word in ("--listen", place))) as switch:
        switch.wait_for("started")
        assert {path.name for path in short_dir.iterdir()} == {"ctl", "data", "bess"}
        switch.process.send_signal(number)
        assert switch.process.wait(scaled(20)) == 0

    assert list(short_dir.iterdir()) == []


def test_without_places_it_listens_in_the_runtime_directory(short_dir: Path) -> None:
    with switch_run("lan", runtime=short_dir) as switch:
        started = switch.wait_for("started")

        places = {each["kind"]: Path(each["where"]) for each in started["listeners"]}
        assert set(places) == set(DEFAULT_KINDS) > {"daemon", "bess"}
        assert all(place.parent == short_dir / "umlab/lan" for place in places.values())
        for place in places.values():
            mode = place.stat().st_mode
            assert stat.S_ISSOCK(mode) or stat.S_ISDIR(mode)
            assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600)


def test_second_switch_is_refused_and_the_first_goes_on(short_dir: Path) -> None:
    control = short_dir / "ctl"
    with switch_run("lan", "--listen", f"daemon:{control}") as switch:
        switch.wait_for("started")

        said = refused("other", "--listen", f"bess:{short_dir}/bess", "--listen", f"daemon:{control}")

        assert str(control) in said
        assert "another switch" in said
        assert not (short_dir / "bess").exists()
        with FakeGuest(control) as one, FakeGuest(control) as two:
            one.attach()
            two.attach()
            one.send(frame(BROADCAST, mac(1)))
            assert two.receive() == frame(BROADCAST, mac(1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["a/b"], "a/b"),
        (["x" * 200], "x" * 24),
        (["lan", "--listen", "smoke:signals"], "smoke:signals"),
        (["lan", "--listen", "daemon:"], "daemon:CTL"),
        (["lan", "--listen", "daemon:/nonexistent/ctl"], "/nonexistent/ctl"),
        (["lan", "--listen", "bess:/" + "x" * 200], "107"),
        (["lan", "--listen", "tap:a/b"], "a/b"),
        (["lan", "--listen", "daemon:/dev/null"], "/dev/null"),
    ],
)
def test_what_cannot_be_had_is_named_in_one_line(options: list[str], named: str) -> None:
    assert named in refused(*options)
