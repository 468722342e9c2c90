"""QEMU's datagrams without QEMU: a port while the peer's socket is there, and for nobody else."""

from __future__ import annotations

import os
import pwd
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.deadline import scaled, wait_until_async
from support.no_descriptors import out_of_descriptors
from support.recording_sink import RecordingSink
from umlab.errors import SocketInUse, StateError, SwitchError, TransportError
from umlab.switch.model import Framing
from umlab.transports import dgram
from umlab.transports.contract import MAX_ID, PRIVATE, KeptSession, Listener, Peer, Session
from umlab.transports.dgram import TRANSPORT


class Place:
    """Two paths, as the switch is told, and the peer behind one of them."""

    def __init__(self, base: Path) -> None:
        self.ours, self.theirs = f"{base}/ours", f"{base}/theirs"
        self._peers: list[socket.socket] = []

    def listener(self) -> Listener:
        return TRANSPORT.make(f"{self.ours},{self.theirs}", PRIVATE)

    def peer(self) -> socket.socket:
        """Bind as QEMU does, which removes what is there."""
        Path(self.theirs).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._peers.append(sock)
        sock.settimeout(scaled(10))
        sock.bind(self.theirs)
        return sock

    def close(self) -> None:
        for sock in self._peers:
            sock.close()


@pytest.fixture
def place(short_dir: Path) -> Iterator[Place]:
    made = Place(short_dir)
    yield made
    made.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dgram, "INTERVAL", 0.02)


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but a datagram bring a port."""
    monkeypatch.setattr(dgram, "INTERVAL", scaled(1000))


def nothing_waits(listener: Listener) -> bool:
    """Tell whether a socket has been emptied."""
    return not select.select([listener.descriptors()["socket"]], [], [], 0)[0]


def end(sink: RecordingSink, session: Session) -> None:
    """Do what the switch does when it is told that a session has ended."""
    sink.opened.remove(session)
    session.close()
    os.close(session.link.fd)


async def test_peer_that_is_there_has_a_port_at_once(place: Place, sink: RecordingSink) -> None:
    peer = place.peer()
    listener = place.listener()
    assert (listener.kind, listener.where) == ("dgram", f"{place.ours},{place.theirs}")
    assert listener.descriptors() == {}
    await listener.start(sink)
    (session,) = sink.opened
    assert (session.kind, session.detail, session.link.framing) == ("dgram", place.theirs, Framing.DATAGRAM)
    assert session.peer is not None
    assert (session.peer.pid, session.peer.uid) == (0, os.getuid())
    assert not os.get_blocking(session.link.fd)
    os.write(session.link.fd, b"to it")
    assert peer.recv(100) == b"to it"
    peer.sendto(b"from it", place.ours)
    assert os.read(session.link.fd, 100) == b"from it"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, pytest.raises(PermissionError):
        stranger.sendto(b"spoofed", place.ours)
    assert os.stat(place.ours).st_mode & 0o777 == 0o600
    await listener.close()
    await listener.close()
    assert not os.path.exists(place.ours)
    assert (sink.closed, sink.refused) == ([], [])


async def test_peer_has_the_groups_of_its_user_and_not_that_of_its_file(
    place: Place, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.peer()

    def groups(name: str, group: int) -> list[int]:
        assert name == "ann"
        return [group, 78]

    monkeypatch.setattr(pwd, "getpwuid", {os.getuid(): SimpleNamespace(pw_name="ann", pw_gid=77)}.__getitem__)
    monkeypatch.setattr(os, "getgrouplist", groups)
    for peer in (Peer(0, os.getuid(), 77, None, (77, 78)), Peer(0, os.getuid(), MAX_ID, None)):
        listener = place.listener()
        await listener.start(sink)
        assert sink.opened[-1].peer == peer
        await listener.close()
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)


@pytest.mark.usefixtures("_impatient")
async def test_peer_that_comes_later_and_goes_and_comes_back_is_served_each_time(
    place: Place, sink: RecordingSink
) -> None:
    listener = place.listener()
    await listener.start(sink)
    assert sink.opened == []
    for round_no in range(1, 4):
        with place.peer() as peer:
            await wait_until_async(lambda: bool(sink.opened), 10, "a port")
            (session,) = sink.opened
            os.write(session.link.fd, b"to it")
            assert peer.recv(100) == b"to it"
        # Its file stays, as that of a QEMU that was killed does.
        await wait_until_async(lambda: len(sink.closed) == round_no, 10, "it is gone")  # noqa: B023
        assert sink.closed[-1] is session
        end(sink, session)
    missing = f"cannot connect to {place.theirs}: No such file or directory; tried again every 0.02 s"
    gone = missing.replace("No such file or directory", "Connection refused")
    assert sink.reasons == [missing, gone, gone, gone], "once for each time"
    await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_peer_in_anothers_place_gets_a_new_port(place: Place, sink: RecordingSink) -> None:
    listener = place.listener()
    old = place.peer()
    await listener.start(sink)
    (session,) = sink.opened
    new = place.peer()
    await wait_until_async(lambda: len(sink.closed) == 1, 10, "the old port is gone")
    await wait_until_async(lambda: len(sink.opened) == 2, 10, "the new port")
    os.write(sink.opened[1].link.fd, b"to the new one")
    assert new.recv(100) == b"to the new one"
    with pytest.raises(PermissionError):
        old.sendto(b"from the old one", place.ours)
    assert sink.closed == [session]
    await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_peer_that_is_another_at_once_gets_a_new_port(place: Place, sink: RecordingSink) -> None:
    listener = place.listener()
    old = place.peer()
    await listener.start(sink)
    # The file system may give its inode's number to the next one.
    old.close()
    new = place.peer()
    await wait_until_async(lambda: len(sink.opened) == 2, 10, "the new port")
    os.write(sink.opened[1].link.fd, b"to the new one")
    assert new.recv(100) == b"to the new one"
    await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_peer_is_known_to_be_gone_once_a_frame_did_not_reach_it_and_its_file_is_away(
    place: Place, sink: RecordingSink
) -> None:
    listener = place.listener()
    peer = place.peer()
    await listener.start(sink)
    (session,) = sink.opened
    os.unlink(place.theirs)
    os.write(session.link.fd, b"without its file")
    assert peer.recv(100) == b"without its file"
    peer.close()
    assert sink.closed == []
    with pytest.raises(ConnectionRefusedError):
        os.write(session.link.fd, b"lost")
    await wait_until_async(lambda: bool(sink.closed), 10, "it is gone")
    await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_peer_that_is_connected_to_us_lives(place: Place, sink: RecordingSink) -> None:
    listener = place.listener()
    peer = place.peer()
    await listener.start(sink)
    peer.connect(place.ours)
    (session,) = sink.opened
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, pytest.raises(PermissionError):
        probe.connect(place.theirs)
    peer.send(b"from it")
    looks = 0
    is_gone = listener._is_gone  # type: ignore[attr-defined]

    def count() -> bool:
        nonlocal looks
        looks += 1
        return bool(is_gone())

    listener._is_gone = count  # type: ignore[attr-defined]
    await wait_until_async(lambda: looks > 2, 10, "some looks at it")
    assert sink.closed == []
    assert os.read(session.link.fd, 100) == b"from it"
    await listener.close()


@pytest.mark.usefixtures("_patient")
async def test_first_datagram_brings_the_port_and_all_that_waited_is_dropped(
    place: Place, sink: RecordingSink
) -> None:
    listener = place.listener()
    await listener.start(sink)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"nobody's", place.ours)
        await wait_until_async(lambda: nothing_waits(listener), 10, "the stranger's is dropped")
        assert sink.opened == []
        peer = place.peer()
        # All three wait when the switch looks.
        stranger.sendto(b"nobody's", place.ours)
        peer.sendto(b"first", place.ours)
        stranger.sendto(b"nobody's", place.ours)
    await wait_until_async(lambda: bool(sink.opened), 10, "a port")
    peer.sendto(b"second", place.ours)
    assert os.read(sink.opened[0].link.fd, 100) == b"second"
    assert sink.reasons[1:] == [f"{place.ours}: 2 frames of strangers are dropped"]
    await listener.close()


@pytest.mark.parametrize("error", [SwitchError("no port left"), StateError("it does not run")])
@pytest.mark.usefixtures("_impatient")
async def test_port_that_is_refused_is_tried_again_and_told_once(
    place: Place, sink: RecordingSink, error: Exception
) -> None:
    sink.refusal = error
    listener = place.listener()
    peer = place.peer()
    await listener.start(sink)
    peer.sendto(b"lost", place.ours)
    peer.sendto(b"lost", place.ours)
    await wait_until_async(lambda: nothing_waits(listener), 10, "what waits is dropped")
    assert [(kind, reason, peer) for kind, reason, peer in sink.refused] == [("dgram", error, None)]
    sink.refusal = None
    await wait_until_async(lambda: bool(sink.opened), 10, "a port")
    await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_lack_of_descriptors_is_no_end(
    place: Place, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = place.listener()
    place.peer()
    await listener.start(sink)
    with out_of_descriptors(monkeypatch) as failures:
        await wait_until_async(lambda: len(failures) > 1, 10, "two looks")
    assert sink.closed == []
    await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_another_process_goes_on_with_socket_and_port(place: Place, sink: RecordingSink) -> None:
    peer = place.peer()
    before, after = place.listener(), place.listener()
    await before.start(sink)
    kept = {name: os.dup(fd) for name, fd in before.descriptors().items()}
    old = sink.opened[0]
    session = KeptSession(
        old.peer, old.detail, {"identity": list(old.state["identity"])}, (os.dup(old.link.fd),)
    )
    # As a process ends: its file stays.
    os.link(place.ours, f"{place.ours}.aside")
    await before.close()
    os.rename(f"{place.ours}.aside", place.ours)

    await after.start(sink, kept)
    assert after.descriptors() == kept
    resumed = after.resume(session)
    assert (resumed.peer, resumed.detail, resumed.state) == (old.peer, old.detail, old.state)
    os.write(resumed.link.fd, b"to it")
    assert peer.recv(100) == b"to it"
    peer.close()
    await wait_until_async(lambda: sink.closed == [resumed], 10, "it is gone")
    assert len(sink.opened) == 1
    os.close(resumed.link.fd)
    for state, fds in (({}, (0,)), ({"identity": None}, ()), ({"identity": 7}, (0,))):
        with pytest.raises((LookupError, ValueError, TypeError)):
            after.resume(KeptSession(None, "", state, fds))
    await after.close()
    assert not os.path.exists(place.ours)


async def test_path_in_use_is_refused(place: Place, sink: RecordingSink) -> None:
    first, second = place.listener(), place.listener()
    await first.start(sink)
    with pytest.raises(SocketInUse):
        await second.start(sink)
    await second.close()
    await first.close()


# UDP: the port is there from the start.


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(scaled(10))
    return sock


def shown(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname())


async def test_udp_port_takes_frames_of_its_peer_alone(sink: RecordingSink) -> None:
    with udp() as peer, udp() as stranger:
        with udp() as place:
            ours = place.getsockname()
        listener = TRANSPORT.make(f"127.0.0.1:{ours[1]},{shown(peer)}", PRIVATE)
        await listener.start(sink)
        (session,) = sink.opened
        assert (session.kind, session.detail, session.peer) == ("dgram", shown(peer), None)
        stranger.sendto(b"spoofed", ours)
        peer.sendto(b"from it", ours)
        assert os.read(session.link.fd, 100) == b"from it"
        os.write(session.link.fd, b"to it")
        assert peer.recv(100) == b"to it"
        await listener.close()
    assert sink.refused == []


async def test_udp_frames_of_strangers_before_the_peer_is_known_are_dropped(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = dgram._bind
    with udp() as place, udp() as peer, udp() as stranger:
        ours = place.getsockname()
        place.close()

        def attacked(address: tuple[str, int]) -> socket.socket:
            sock = bind(address)
            for sender in (stranger, peer, stranger):
                sender.sendto(b"too early", ours)
            return sock

        monkeypatch.setattr(dgram, "_bind", attacked)
        listener = TRANSPORT.make(f"127.0.0.1:{ours[1]},{shown(peer)}", PRIVATE)
        await listener.start(sink)
        peer.sendto(b"from it", ours)
        assert os.read(sink.opened[0].link.fd, 100) == b"from it"
        assert sink.reasons == [f"127.0.0.1:{ours[1]}: 2 frames of strangers are dropped"]
        await listener.close()


@pytest.mark.usefixtures("_impatient")
async def test_udp_port_stays_while_its_peer_is_away_and_comes_back_when_it_was_removed(
    sink: RecordingSink,
) -> None:
    with udp() as place, udp() as peer:
        ours, theirs = shown(place), shown(peer)
    listener = TRANSPORT.make(f"{ours},{theirs}", PRIVATE)
    await listener.start(sink)
    (session,) = sink.opened
    os.write(session.link.fd, b"nobody is there")
    with pytest.raises(ConnectionRefusedError):
        os.read(session.link.fd, 100)
    end(sink, session)
    await wait_until_async(lambda: bool(sink.opened), 10, "the next port")
    assert (sink.closed, sink.refused) == ([], [])
    await listener.close()


async def test_udp_address_that_cannot_be_had_is_refused(sink: RecordingSink) -> None:
    with udp() as place:
        listener = TRANSPORT.make(f"{shown(place)},127.0.0.1:9", PRIVATE)
        with pytest.raises(TransportError, match=r"cannot bind 127\.0\.0\.1:\d+: Address already in use"):
            await listener.start(sink)
        await listener.close()


async def test_udp_without_a_descriptor_is_refused(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = TRANSPORT.make("127.0.0.1:9,127.0.0.1:10", PRIVATE)
    with out_of_descriptors(monkeypatch), pytest.raises(TransportError, match="Too many open files"):
        await listener.start(sink)


@pytest.mark.parametrize(
    ("place", "argument"),
    [
        (
            "/s/lan,/s/q",
            "dgram,id=n0,local.type=unix,local.path=/s/q,remote.type=unix,remote.path=/s/lan",
        ),
        (
            "127.0.0.1:1,127.0.0.1:2",
            "dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=2,"
            "remote.type=inet,remote.host=127.0.0.1,remote.port=1",
        ),
    ],
)
def test_what_qemu_is_told(place: str, argument: str) -> None:
    (told,) = TRANSPORT.make(place, PRIVATE).arguments
    assert (told.program, told.text) == ("qemu", f"-netdev {argument} -device virtio-net-pci,netdev=n0")


def test_relative_paths_begin_where_they_are_told_to() -> None:
    assert TRANSPORT.resolve("lan,q", "/lab/".__add__) == "/lab/lan,/lab/q"
    assert TRANSPORT.resolve("127.0.0.1:1,127.0.0.1:2", "/lab/".__add__) == "127.0.0.1:1,127.0.0.1:2"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/s/lan", "has no peer; write LOCAL,REMOTE"),
        ("/s/lan,", "is not the path of a socket"),
        ("/s/lan,127.0.0.1:1", "both must be paths, or addresses of one kind"),
        ("[::1]:1,127.0.0.1:1", "both must be paths, or addresses of one kind"),
        ("127.0.0.1:1,here:1", "is not a numeric address"),
    ],
)
def test_what_names_no_place_is_refused(place: str, reason: str) -> None:
    with pytest.raises(TransportError, match=reason):
        TRANSPORT.make(place, PRIVATE)
