"""Whatever one guest does, it is counted or refused with a reason, and the others keep their traffic.

In every test two well-behaved guests talk through the switch before, while and after it is attacked, and
the switch leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, MAGIC, FakeGuest, attach_request, attached, frame, mac
from integration.peers.switch_thread import (
    LEFT,
    RIGHT,
    BessGuest,
    Conversation,
    SwitchThread,
    switch_with_conversation,
)
from support.deadline import scaled, wait_until
from umlab.switch.counters import DropReason
from umlab.switch.events import FdbFull
from umlab.switch.model import SwitchConfig
from umlab.transports.control import MAX_SILENT

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

NAME = b"\0somebody".ljust(108, b"\x07")


@pytest.fixture
def running(short_dir: Path) -> Iterator[tuple[SwitchThread, Conversation]]:
    with switch_with_conversation(short_dir, SwitchConfig(max_frame=1518)) as pair:
        yield pair


@pytest.fixture
def switch(running: tuple[SwitchThread, Conversation]) -> SwitchThread:
    return running[0]


@pytest.fixture
def talk(running: tuple[SwitchThread, Conversation]) -> Conversation:
    return running[1]


def connect(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    # Waits while the backlog is full, as a guest does; with a time limit it would fail at once.
    sock.connect(os.fspath(path))
    sock.settimeout(scaled(10))
    return sock


@contextlib.contextmanager
def bess_guest(switch: SwitchThread) -> Iterator[BessGuest]:
    """Attach a guest and wait for its port, so that the next one has the next number."""
    count = len(switch.ports())
    with BessGuest(switch.bess) as guest:
        switch.wait_ports(count + 1)
        yield guest


def is_closed(sock: socket.socket) -> bool:
    """Wait for what comes next on a control stream and say whether it is the end."""
    try:
        return sock.recv(200) == b""
    except ConnectionResetError:
        return True


def v3(name: bytes, family: int = 1) -> bytes:
    return struct.pack("=IIIH", MAGIC, 3, 0, family) + name.ljust(108, b"\0")


UNREACHABLE = "the guest's data socket {} cannot be reached: "
HOSTILE = {
    "garbage": ([b"GET / HTTP/1.1\r\n\r\n".ljust(200)], "message of 200 bytes, the limit is 120"),
    "garbage_without_end": ([b"\xff" * 250_000], "the limit is 120"),
    "version_2": ([attach_request(2, NAME)], "version 2 is not supported"),
    "version_99": ([attach_request(99, NAME)], "version 99 is not supported"),
    "wrong_type": ([attach_request(3, NAME, 7)], "bad request type 7"),
    "wrong_type_of_v1": ([struct.pack("=II", MAGIC, 1) + bytes(116)], "bad request type 1"),
    "wrong_type_of_v0": ([attach_request(0, NAME, 7)], "bad request type 7"),
    "oversized": ([v3(NAME) + b"x" * 5000], "message of 251 bytes, the limit is 250"),
    "oversized_v1": ([attach_request(1, NAME) + b"x"], "message of 125 bytes, the limit is 124"),
    "split_and_wrong": ([attach_request(3, NAME, 7)[:60], attach_request(3, NAME, 7)[60:]], "request type 7"),
    "split_in_the_version": ([attach_request(2, NAME)[:6], attach_request(2, NAME)[6:]], "version 2 is"),
    "no_unix_address": ([v3(NAME, family=2)], "a data socket of family 2, not AF_UNIX"),
    "no_name": ([v3(b"")], "a data socket without a name"),
    "nobody_has_this_name": ([v3(NAME)], "Connection refused"),
    "nobody_has_this_path": ([v3(b"/nowhere/data")], UNREACHABLE.format("/nowhere/data") + "No such file"),
    "path_without_end": ([v3(b"/" * 108)], "a pathname without an end"),
    "blanks_and_escapes": ([v3(b"/a\x1b[2J\nb")], UNREACHABLE.format(r"/a\x1b[2J\x0ab")),
    "device": ([v3(b"/dev/null")], UNREACHABLE.format("/dev/null")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_request_is_refused_with_its_reason(
    switch: SwitchThread, talk: Conversation, case: str
) -> None:
    pieces, reason = HOSTILE[case]
    with connect(switch.control) as stream:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                stream.sendall(piece)
        assert is_closed(stream)
        (said,) = switch.wait_refusals(1)
        assert reason in said
        assert said.isprintable()
        talk.goes_on()
    assert len(switch.ports()) == 2
    assert talk.lost == 0


def test_request_that_names_the_switchs_own_sockets_makes_no_loop(
    switch: SwitchThread, talk: Conversation
) -> None:
    with connect(switch.control) as stream:
        stream.sendall(v3(os.fsencode(switch.control)))
        assert is_closed(stream)
        assert "Protocol wrong type for socket" in switch.wait_refusals(1)[0]
    # The socket of v0 guests takes datagrams, but ours have no attached sender.
    with connect(switch.control) as stream, attached(switch.control) as guest:
        stream.sendall(v3(os.fsencode(switch.data)))
        assert len(stream.recv(200)) == 110
        with FakeGuest(switch.control, switch.data) as old:
            old.stream.sendall(attach_request(0, os.fsencode(switch.data).ljust(108, b"\0")))
            switch.wait_ports(5)
            guest.send(frame(BROADCAST, mac(3)))
            wait_until(lambda: switch.snapshot().counters.unknown_sender == 2, 10, "both are seen")
            talk.goes_on()
            assert switch.snapshot().counters.unknown_sender == 2
            assert guest.receive_waiting() == []
    with attached(switch.control) as guest, connect(switch.control) as stream:
        assert guest.switch_name is not None
        stream.sendall(v3(guest.switch_name))
        assert is_closed(stream)
        assert "Operation not permitted" in switch.wait_refusals(2)[1]
    assert talk.lost == 0


@pytest.mark.parametrize("length", [0, 3, 7, 60, 119])
def test_connection_that_ends_in_mid_request_is_refused(
    switch: SwitchThread, talk: Conversation, length: int
) -> None:
    for _ in range(50):
        with connect(switch.control) as stream:
            stream.sendall(attach_request(3, NAME)[:length])
    reasons = switch.wait_refusals(50)
    assert len(reasons) == 50
    assert all(reason.startswith(f"message is cut: {length} of ") for reason in reasons)
    assert len(switch.ports()) == 2
    assert talk.lost == 0


def test_500_connections_that_never_speak_keep_nobody_out(switch: SwitchThread, talk: Conversation) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(switch.control)) for _ in range(500)]
        too_many = 500 - MAX_SILENT
        reason = f"more than {MAX_SILENT} connections have not asked for a port"
        assert switch.wait_refusals(too_many) == [reason] * too_many
        assert all(map(is_closed, silent[:too_many]))
        talk.goes_on()
        with attached(switch.control) as late, attached(switch.control, 0, switch.data) as old:
            switch.wait_ports(4)
            late.send(frame(BROADCAST, mac(3)))
            assert old.receive() == frame(BROADCAST, mac(3))
    assert len(switch.wait_refusals(500)) == 500, "each has one reason, the end of those that were left too"
    assert talk.lost == 0


def test_500_bess_guests_that_never_read_keep_nobody_out(switch: SwitchThread, talk: Conversation) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(BessGuest(switch.bess))
        switch.wait_ports(502)
        with attached(switch.control) as late, attached(switch.control) as other:
            switch.wait_ports(504)
            for _ in range(20):
                late.send(frame(BROADCAST, mac(3)))
                assert other.receive() == frame(BROADCAST, mac(3))
            talk.goes_on()
    assert talk.lost == 0


def test_storm_of_connections_on_the_control_socket_is_counted(
    switch: SwitchThread, talk: Conversation
) -> None:
    for _ in range(2000):
        connect(switch.control).close()
    assert set(switch.wait_refusals(2000)) == {"message is cut: 0 of 4 bytes"}
    talk.goes_on()
    assert len(switch.refusals()) == 2000
    assert talk.lost == 0


def test_storm_of_connections_on_the_bess_socket_leaves_no_port(
    switch: SwitchThread, talk: Conversation
) -> None:
    for _ in range(500):
        connect(switch.bess, socket.SOCK_SEQPACKET).close()
    with BessGuest(switch.bess) as last:
        last.send(frame(LEFT, mac(3)))
        wait_until(partial(knows, switch, mac(3)), 20, "the last one is served")
        switch.wait_ports(3)
        talk.goes_on()
    switch.wait_ports(2)
    assert talk.lost == 0


def test_storm_of_guests_that_attach_and_leave_leaves_no_port(
    switch: SwitchThread, talk: Conversation
) -> None:
    for version in (3, 1, 0) * 100:
        with attached(switch.control, version, switch.data):
            pass
    switch.wait_ports(2)
    assert talk.lost == 0


def test_flood_on_an_attached_control_stream_ends_that_session_only(
    switch: SwitchThread, talk: Conversation
) -> None:
    with attached(switch.control) as guest:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                guest.stream.sendall(b"x" * 100_000)
        assert is_closed(guest.stream)
        assert "the limit is 124" in switch.wait_refusals(1)[0]
        switch.wait_ports(2)
    assert talk.lost == 0


# Frames.


def drops_of(switch: SwitchThread, port_no: int) -> dict[DropReason, int]:
    return switch.snapshot().ports[port_no].drops


def test_frames_without_a_header_are_counted_and_go_nowhere(switch: SwitchThread, talk: Conversation) -> None:
    with attached(switch.control) as guest, bess_guest(switch) as other, attached(switch.control) as seer:
        for length in range(14):
            guest.send(frame(BROADCAST, mac(3))[:length])
            if length:
                other.send(frame(BROADCAST, mac(4))[:length])
        guest.send(frame(BROADCAST, mac(3))[:14])
        assert seer.receive() == frame(BROADCAST, mac(3))[:14]
        talk.goes_on()
        assert seer.receive_waiting() == []
        assert drops_of(switch, 3) == {DropReason.RUNT: 14}
        assert drops_of(switch, 4) == {DropReason.RUNT: 13}
        known = {entry.mac for entry in switch.call(switch.service.fdb)}
        assert known == {LEFT, RIGHT, mac(3)}, "nothing is learnt from a frame without a source"
    assert talk.lost == 0


def test_empty_message_of_a_bess_guest_ends_its_own_port_only(
    switch: SwitchThread, talk: Conversation
) -> None:
    with bess_guest(switch) as guest:
        guest.send(b"")
        switch.wait_ports(2)
        assert guest.receive() == b""
    assert talk.lost == 0


def test_frames_over_the_maximum_are_counted_and_go_nowhere(switch: SwitchThread, talk: Conversation) -> None:
    with attached(switch.control) as guest, bess_guest(switch) as other, attached(switch.control) as seer:
        for length in (1519, 1600, 9000, 60_000):
            guest.send(frame(BROADCAST, mac(3), size=length))
            other.send(frame(BROADCAST, mac(4), size=length))
        other.send(frame(BROADCAST, mac(4), size=1518))
        wait_until(lambda: switch.snapshot().ports[4].rx_frames == 1, 10, "the last one is through")
        wait_until(lambda: drops_of(switch, 3) == {DropReason.OVERSIZE: 4}, 10, "all are counted")
        assert drops_of(switch, 4) == {DropReason.OVERSIZE: 4}
        assert seer.receive() == frame(BROADCAST, mac(4), size=1518), "and not a byte of the longer ones"
        assert seer.receive_waiting() == []
    assert talk.lost == 0


def test_stranger_cannot_send_to_a_guests_socket_of_the_switch(
    switch: SwitchThread, talk: Conversation
) -> None:
    with attached(switch.control) as guest, FakeGuest(switch.control) as stranger:
        assert guest.switch_name is not None
        with pytest.raises(PermissionError):
            stranger.datagrams.sendto(frame(BROADCAST, mac(66)), guest.switch_name)
        with pytest.raises(PermissionError):
            stranger.datagrams.connect(guest.switch_name)
        talk.goes_on()
        assert guest.receive_waiting() == []
    assert talk.lost == 0


def test_stranger_on_the_v0_socket_is_counted_and_not_forwarded(
    switch: SwitchThread, talk: Conversation
) -> None:
    with (
        attached(switch.control, 0, switch.data) as old,
        attached(switch.control) as new,
        FakeGuest(switch.control, switch.data) as stranger,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless,
    ):
        switch.wait_ports(4)
        for _ in range(50):
            stranger.send(frame(BROADCAST, mac(66)))
            nameless.sendto(frame(BROADCAST, mac(66)), os.fspath(switch.data))
        # A v3 guest is a stranger there as well.
        new.datagrams.sendto(frame(BROADCAST, mac(66)), os.fspath(switch.data))
        wait_until(lambda: switch.snapshot().counters.unknown_sender == 101, 10, "all are counted")
        old.send(frame(BROADCAST, mac(3)))
        assert new.receive() == frame(BROADCAST, mac(3))
        assert new.receive_waiting() == []
        assert mac(66) not in {entry.mac for entry in switch.call(switch.service.fdb)}
    assert talk.lost == 0


def test_guests_that_stop_reading_lose_their_own_frames_only(
    switch: SwitchThread, talk: Conversation
) -> None:
    depth = switch.service.engine.config.egress_queue_depth
    with (
        attached(switch.control) as stuck,
        bess_guest(switch) as other,
        attached(switch.control) as source,
    ):
        for address, guest in ((mac(3), stuck), (mac(4), other)):
            guest.send(frame(LEFT, address))
        for target, port_no in ((mac(3), 3), (mac(4), 4)):
            wait_until(partial(knows, switch, target), 10, "it is learnt")
            sent = 0
            while not drops_of(switch, port_no).get(DropReason.TAIL):
                for _ in range(200):
                    source.send(frame(target, mac(5), size=1000))
                sent += 200
                assert sent < 20_000
            assert switch.snapshot().queued[port_no] == depth
        talk.goes_on()
        received = [stuck.receive() for _ in range(depth)]
        assert received == [frame(mac(3), mac(5), size=1000)] * depth, "what was queued is still in order"
        snapshot = switch.snapshot()
        assert [snapshot.ports[port_no].drops for port_no in (1, 2)] == [{}, {}]
    assert talk.lost == 0


def knows(switch: SwitchThread, address: bytes) -> bool:
    return any(entry.mac == address for entry in switch.call(switch.service.fdb))


def test_guest_whose_data_socket_died_is_counted_until_its_stream_ends(
    switch: SwitchThread, talk: Conversation
) -> None:
    with attached(switch.control) as dying, attached(switch.control) as source:
        switch.wait_ports(4)
        dying.datagrams.close()
        for _ in range(20):
            source.send(frame(BROADCAST, mac(3)))
        wait_until(lambda: drops_of(switch, 3) == {DropReason.PEER_GONE: 20}, 10, "20 drops")
        talk.goes_on()
        assert len(switch.ports()) == 4
    switch.wait_ports(2)
    assert talk.lost == 0


def test_100_000_source_addresses_fill_the_table_and_no_more(
    switch: SwitchThread, talk: Conversation
) -> None:
    capacity = switch.service.engine.config.fdb_capacity
    with attached(switch.control) as liar:
        switch.wait_ports(3)
        liar.send(frame(BROADCAST, mac(3)))
        for number in range(100_000):
            liar.send(frame(mac(3), b"\x02\x66" + number.to_bytes(4, "big")))
        wait_until(lambda: switch.snapshot().ports[3].drops.get(DropReason.SAME_PORT) == 100_000, 60, "all")
        counters = switch.snapshot().counters
        assert len(switch.call(switch.service.fdb)) == capacity
        assert counters.learned == capacity
        assert counters.learn_refused == 100_000 + 3 - capacity
        assert [event.capacity for event in switch.events if isinstance(event, FdbFull)] == [capacity]
        assert knows(switch, LEFT)
        assert knows(switch, RIGHT)
        talk.goes_on()
    wait_until(lambda: len(switch.call(switch.service.fdb)) == 2, 20, "the liar's addresses are gone")
    assert talk.lost == 0


# A switch as a process, with hardly any descriptors.


def test_switch_without_descriptors_serves_who_is_there_and_later_who_waits(short_dir: Path) -> None:
    limit = 40
    log = short_dir / "log"
    words = ["switch", "run", "lan", "--json"]
    words += ["--listen", f"daemon:{short_dir}/ctl", "--listen", f"bess:{short_dir}/bess"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("umlab"), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        )
    try:
        wait_until(lambda: b'"started"' in log.read_bytes(), 20, "the switch is up")
        with attached(short_dir / "ctl") as left, attached(short_dir / "ctl") as right:
            with contextlib.ExitStack() as stack:
                silent = [stack.enter_context(connect(short_dir / "ctl")) for _ in range(limit)]
                wait_until(
                    lambda: b"cannot accept: Too many open files" in log.read_bytes(), 10, "it says so"
                )
                late = stack.enter_context(FakeGuest(short_dir / "ctl"))
                late.stream.sendall(attach_request(3, late.name))
                for source, target in ((left, right), (right, left)) * 20:
                    source.send(frame(BROADCAST, mac(1)))
                    assert target.receive() == frame(BROADCAST, mac(1))
                assert process.poll() is None
                for sock in silent:
                    sock.close()
                assert len(late.read_reply()) == 110, "it waited, and is served"
            assert log.read_bytes().count(b"cannot accept") == 1
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(scaled(10)) == 0
    assert sorted(path.name for path in short_dir.iterdir()) == ["log"]
