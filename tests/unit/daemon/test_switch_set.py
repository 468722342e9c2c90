"""The switches of a daemon, written down at a real keeper and taken up by the next daemon."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.guest_end import BROADCAST, frame, mac
from support.kept_lab import KeptLab
from support.qemu_peer import free_address
from umlab.daemon import switch_set
from umlab.daemon.access import user_name
from umlab.daemon.guest_set import GuestSet
from umlab.daemon.journal import SwitchJournal
from umlab.daemon.switch import SwitchService
from umlab.daemon.switch_change import SwitchChange
from umlab.errors import (
    AlreadyExists,
    LabError,
    NoSuchPort,
    NoSuchSwitch,
    SocketInUse,
    SwitchError,
    TransportError,
)
from umlab.switch.model import Framing, Link, SwitchConfig
from umlab.transports.contract import PRIVATE, Access, Peer, Session, nothing_to_close
from umlab.wire.ethernet import format_mac

Change = Callable[[dict[str, Any], list[int]], list[int] | None]


class BessGuest:
    """A guest on a switch's seqpacket listener; context manager."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(scaled(10))
        self.sock.connect(str(path))

    def __enter__(self) -> BessGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, to: bytes = BROADCAST) -> bytes:
        sent = frame(to, mac(self.number))
        self.sock.send(sent)
        return sent

    def receive(self) -> bytes:
        return self.sock.recv(2000)


@pytest.fixture
async def pair(kept: KeptLab) -> AsyncIterator[tuple[BessGuest, BessGuest]]:
    """Yield two guests on the switch ``lan``, which has learnt both."""
    await kept.lab.put_switch(kept.switch())
    with BessGuest(kept.runtime / "b", 1) as one:
        await wait_until_async(lambda: len(kept.lab.ports("lan")) == 1, 10, "port 1")
        with BessGuest(kept.runtime / "b", 2) as two:
            await wait_until_async(lambda: len(kept.lab.ports("lan")) == 2, 10, "port 2")
            sent = one.send()
            assert two.receive() == sent
            sent = two.send()
            assert one.receive() == sent
            yield one, two


def numbers(kept: KeptLab) -> list[int]:
    return [port.port_no for port in kept.lab.ports("lan")]


async def test_switch_is_made_once_and_goes_without_a_trace(kept: KeptLab) -> None:
    lab, spec = kept.lab, kept.switch(f"bess:{kept.runtime}/b", f"daemon:{kept.runtime}/c,{kept.runtime}/d")
    assert await lab.put_switch(spec)
    assert not await lab.put_switch(spec)
    with pytest.raises(AlreadyExists):
        await lab.put_switch(kept.switch())
    with pytest.raises(SocketInUse):
        await lab.put_switch(kept.switch(name="other"))
    with pytest.raises(LabError, match="switch name 'a/b'"):
        await lab.put_switch(kept.switch(name="a/b"))
    view = lab.switch("lan")
    assert [each.kind for each in view.listeners] == ["bess", "daemon"]
    assert [each.name for each in lab.switches()] == ["lan"] == list(lab.lab().switches)
    assert await lab.remove_switch("lan")
    assert not await lab.remove_switch("lan")
    assert os.listdir(kept.runtime) == []
    for look in (lab.switch, lab.ports, lab.fdb, lab.flush_fdb):
        with pytest.raises(NoSuchSwitch):
            look("lan")
    await kept.crash()
    assert kept.kept() == set()


async def test_more_places_than_can_be_kept_make_no_switch(kept: KeptLab) -> None:
    with pytest.raises(LabError, match="254 descriptors for the keeper"):
        await kept.lab.put_switch(kept.switch(*(f"bess:{kept.runtime}/{number}" for number in range(254))))
    assert kept.lab.switches() == []
    assert os.listdir(kept.runtime) == []
    # As many as one message takes are kept, and come back.
    await kept.lab.put_switch(kept.switch(*(f"bess:{kept.runtime}/{number}" for number in range(253))))
    await kept.restart()
    assert len(kept.lab.switch("lan").listeners) == 253


async def test_ports_addresses_and_settings_are_taken_up(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest]
) -> None:
    one, two = pair
    shorter = SwitchChange({"max_frame": 1500})
    assert await kept.lab.set_switch("lan", shorter)
    assert not await kept.lab.set_switch("lan", shorter)
    with pytest.raises(SwitchError, match="first_port_no"):
        await kept.lab.set_switch("lan", SwitchChange({"first_port_no": 5}))
    kept.lab.switch_set.write_fdbs()
    before, entries = kept.lab.ports("lan"), {each.mac: each.port_no for each in kept.lab.fdb("lan")}
    assert len(entries) == 2
    assert before[0].macs == ("02:00:00:00:00:01",)
    await kept.crash()
    one.send(mac(2))
    await kept.start()
    assert two.receive() == frame(mac(2), mac(1))
    after = kept.lab.ports("lan")
    assert [(each.port_no, each.kind, each.pid, each.macs) for each in after] == [
        (each.port_no, each.kind, each.pid, each.macs) for each in before
    ]
    assert {each.mac: each.port_no for each in kept.lab.fdb("lan")} == entries
    assert kept.lab.switch("lan").config == SwitchConfig(max_frame=1500)
    with BessGuest(kept.runtime / "b", 3):
        await wait_until_async(lambda: numbers(kept) == [1, 2, 3], 10, "a third port")


async def test_port_and_addresses_that_went_do_not_come_back(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest]
) -> None:
    lab = kept.lab
    assert lab.port("lan", 2).port_no == 2
    kept.lab.switch_set.write_fdbs(all_of_them=True)
    assert lab.flush_fdb("lan", 1)
    assert not lab.flush_fdb("lan", 1)
    assert await lab.remove_port("lan", 2)
    assert not await lab.remove_port("lan", 2)
    for look in (lab.port, lab.flush_fdb):
        with pytest.raises(NoSuchPort):
            look("lan", 2)
    # The keeper lets go of it as well: the guest sees the end.
    assert pair[1].receive() == b""
    lab.switch_set.write_fdbs()
    await kept.restart()
    assert numbers(kept) == [1]
    assert kept.lab.fdb("lan") == []


async def test_port_of_another_guest_by_now_is_not_removed(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def set_down(guests: GuestSet, switch: SwitchService, pid: int | None = None) -> None:
        pair[0].sock.close()
        await wait_until_async(lambda: numbers(kept) == [2], 10, "it went by itself")
        later.enter_context(BessGuest(kept.runtime / "b", 3))
        await wait_until_async(lambda: numbers(kept) == [1, 2], 10, "the next one has its number")

    monkeypatch.setattr(GuestSet, "set_down", set_down)
    with ExitStack() as later:
        assert await kept.lab.remove_port("lan", 1)
        assert numbers(kept) == [1, 2]


async def test_switch_that_is_being_removed_does_not_come_back(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed() -> None:
        raise RuntimeError("killed here")

    service = kept.lab.switch_set.service("lan")
    with monkeypatch.context() as patch:
        patch.setattr(service, "stop", killed)
        with pytest.raises(RuntimeError, match="killed here"):
            await kept.lab.remove_switch("lan")
    await service.stop()
    await kept.crash()
    assert kept.kept() == set()


async def test_fdb_is_written_when_it_has_changed_or_is_old_and_a_large_one_seldom(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(SwitchJournal, "fdb", lambda journal, entries: written.append(len(entries)))
    write = kept.lab.switch_set.write_fdbs
    write()
    write()
    assert written == [2]
    pair[0].sock.send(frame(BROADCAST, mac(7)))
    await wait_until_async(lambda: len(kept.lab.fdb("lan")) == 3, 10, "an address")
    await wait_until_async(lambda: write() or written == [2, 3], 10, "the event")
    write(all_of_them=True)
    assert written == [2, 3, 3]
    monkeypatch.setattr(switch_set, "_FDB_REFRESH", 0.0)
    write()
    assert written == [2, 3, 3, 3]
    # A large one rests for a while, changed or not.
    monkeypatch.setattr(switch_set, "_FDB_REFRESH", 1000.0)
    monkeypatch.setattr(switch_set, "_FDB_PIECE", 1)
    kept.lab.flush_fdb("lan", 2)
    write()
    kept.lab.flush_fdb("lan")
    write()
    assert written[4:] == [2]


def key(name: str, value: Any) -> Change:
    return lambda meta, fds: meta.update({name: value})


def config_key(name: str, value: Any) -> Change:
    return lambda meta, fds: meta["config"].update({name: value})


def a_file(index: int) -> Change:
    """Put a regular file in the place of a descriptor."""

    def change(meta: dict[str, Any], fds: list[int]) -> list[int]:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), fds[index], inheritable=False)
        return fds

    return change


UNUSABLE: dict[str, Change] = {
    "no config": lambda meta, fds: meta.pop("config") and None,
    "no object": key("config", 5),
    "unknown setting": config_key("vlans", [1]),
    "impossible setting": config_key("max_frame", 1),
    "nowhere": key("listen", None),
    "unknown transport": key("listen", ["bess", "carrier-pigeon:x"]),
    "another transport": key("listen", ["daemon:/x", "bess:/x"]),
    "other sockets": key("sockets", [["listener"], ["control", "spare"]]),
    "too few sockets": lambda meta, fds: fds[:1],
    "too many sockets": lambda meta, fds: [*fds, fds[0]],
    "fewer places": key("listen", ["bess:/x"]),
    "a file": a_file(0),
    "another file": a_file(2),
}


def is_served(path: Path, kind: socket.SocketKind) -> bool:
    """Tell whether somebody holds the listening socket of that kind."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE)
async def test_switch_that_cannot_be_understood_is_ended_and_all_else_goes_on(
    kept: KeptLab, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    place = kept.runtime
    spec = kept.switch(f"bess:{place}/b", f"daemon:{place}/c,{place}/d")
    await kept.lab.put_switch(spec)
    await kept.lab.put_switch(kept.switch(f"bess:{place}/other", name="other"))
    with BessGuest(place / "b", 1) as guest:
        await wait_until_async(lambda: numbers(kept) == [1], 10, "a port")
        kept.lab.switch_set.write_fdbs(all_of_them=True)
        await kept.alter("switch/lan", change)
        await kept.start()
        assert "switch lan cannot be taken over and is ended" in caplog.text
        assert [each.name for each in kept.lab.switches()] == ["other"]
        # All of it is gone, here and at the keeper.
        assert guest.receive() == b""
    # The keeper closes them when it comes to it.
    for path, kind in ((place / "b", socket.SOCK_SEQPACKET), (place / "c", socket.SOCK_STREAM)):
        await wait_until_async(lambda path=path, kind=kind: not is_served(path, kind), 10, "its end")  # type: ignore[misc]
    assert await kept.lab.put_switch(spec)
    await kept.crash()
    assert kept.kept() == {"switch/lan", "switch/other", "fdb/other"}


UNUSABLE_PORT: dict[str, Change] = {
    "no peer": lambda meta, fds: meta.pop("peer") and None,
    "odd peer": key("peer", {"pid": 1}),
    "odd boot": key("peer", {"pid": 1, "uid": 0, "gid": 0, "boot": [1, 2, 3]}),
    "no listener": key("listener", 7),
    "odd listener": key("listener", "first"),
    "no descriptors": lambda meta, fds: [],
    "too many descriptors": lambda meta, fds: [*fds, fds[0]],
    "a file": a_file(0),
}


@pytest.mark.parametrize("change", UNUSABLE_PORT.values(), ids=UNUSABLE_PORT)
async def test_port_that_cannot_be_understood_is_detached_and_the_others_go_on(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest], change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    await kept.alter("port/lan/1", change)
    await kept.start()
    assert numbers(kept) == [2]
    assert any("cannot be" in record.message for record in caplog.records)
    assert pair[0].receive() == b""
    with BessGuest(kept.runtime / "b", 3) as third:
        await wait_until_async(lambda: numbers(kept) == [1, 2], 10, "the free number")
        sent = third.send()
        assert pair[1].receive() == sent


@pytest.mark.parametrize(
    "change",
    [lambda meta, fds: [], lambda meta, fds: os.pwrite(fds[0], b"odd", 40) and None],
    ids=["none", "another size"],
)
async def test_addresses_that_cannot_be_understood_are_learnt_anew(
    kept: KeptLab, pair: tuple[BessGuest, BessGuest], change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    kept.lab.switch_set.write_fdbs(all_of_them=True)
    await kept.alter("fdb/lan", change)
    await kept.start()
    assert "switch lan has to learn its addresses anew" in caplog.text
    assert numbers(kept) == [1, 2]
    assert kept.lab.fdb("lan") == []


async def test_what_belongs_to_nothing_is_let_go(kept: KeptLab) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for name in ("port/gone/1", "fdb/gone", "of another version"):
        kept.link.put(name, {}, [writer])
    os.close(writer)
    await kept.restart()
    await kept.crash()
    assert kept.kept() == set()
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_place_that_cannot_be_had_leaves_nothing(kept: KeptLab) -> None:
    with_a_port = "dgram:{}:{},127.0.0.1:9".format(*free_address(socket.SOCK_DGRAM))
    with pytest.raises(TransportError, match="none/b"):
        await kept.lab.put_switch(
            kept.switch(f"bess:{kept.runtime}/a", with_a_port, f"bess:{kept.runtime}/none/b")
        )
    assert kept.lab.switches() == []
    assert os.listdir(kept.runtime) == []
    await kept.crash()
    assert kept.kept() == set()


async def test_who_may_attach_outlives_a_crash(kept: KeptLab) -> None:
    spec = replace(kept.switch(), access=Access(0o640, uids=(1,)))
    await kept.lab.put_switch(spec)
    await kept.crash()
    await kept.start()
    assert not await kept.lab.put_switch(spec)
    with pytest.raises(AlreadyExists):
        await kept.lab.put_switch(kept.switch())
    assert (kept.runtime / "b").stat().st_mode & 0o777 == 0o640
    stranger = Session("bess", Link(-1, Framing.SEQPACKET), Peer(1, 2, 2, None), "", nothing_to_close)
    with pytest.raises(SwitchError, match="may not attach to switch lan"):
        kept.lab.switch_set.service("lan").session_opened(stranger)


async def test_switch_of_an_earlier_version_is_private(kept: KeptLab) -> None:
    await kept.lab.put_switch(kept.switch())

    def without_access(meta: dict[str, Any], fds: list[int]) -> None:
        del meta["access"]

    await kept.alter("switch/lan", without_access)
    await kept.start()
    assert kept.lab.switch_set.spec("lan").access == PRIVATE


async def test_port_is_shown_with_its_user_and_its_addresses(kept: KeptLab) -> None:
    await kept.lab.put_switch(kept.switch())
    with BessGuest(kept.runtime / "b", 1) as guest:
        for number in range(20):
            guest.sock.send(frame(BROADCAST, mac(number)))
        await wait_until_async(lambda: len(kept.lab.fdb("lan")) == 20, 10, "addresses")
        (port,) = kept.lab.ports("lan")
    assert (port.pid, port.uid, port.user) == (os.getpid(), os.geteuid(), user_name(os.geteuid()))
    assert (port.guest, port.umid) == (None, None)
    assert (port.fdb_entries, len(port.macs), port.macs[0]) == (20, 16, format_mac(mac(19)))
