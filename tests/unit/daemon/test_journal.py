"""What is written down of a switch, as the next daemon finds it; see also test_switch_set."""

from __future__ import annotations

import os
import resource

import pytest

from support.guest_end import mac
from support.kept_lab import KeptLab
from umlab._boot import Boot
from umlab.daemon.journal import MAX_FDB, SwitchJournal, kept_switches
from umlab.daemon.spec import SwitchSpec
from umlab.errors import LabError
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import Framing, Link, PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet
from umlab.transports.contract import Access, Peer, Session, nothing_to_close

ENTRIES = [FdbEntry(mac(1), 1, 5, 4094), FdbEntry(mac(2), 4_000_000_000, (1 << 62) + 1)]


@pytest.mark.parametrize(
    "peer",
    [None, Peer(7, 8, 9, None, (10, 11)), Peer(7, 8, 9, Boot(1 << 60, 1_700_000_000_000_000_001))],
    ids=str,
)
async def test_everything_is_found_as_it_was_written(kept: KeptLab, peer: Peer | None) -> None:
    spec = SwitchSpec("lan", SwitchConfig(hub=True, fdb_capacity=7), (), Access(0o660, 5, (1, 2), (3,)))
    journal = SwitchJournal(kept.link, "lan")
    journal.switch(spec, ())
    for port_no in (10, 9):
        session = Session(
            "daemon", Link(0, Framing.DATAGRAM), peer, "v0", nothing_to_close, (0, 0), {"address": "00ff"}
        )
        journal.attached(port_no, 3, session)
    journal.fdb(ENTRIES)
    # Another switch's, whose name begins in the same way.
    SwitchJournal(kept.link, "lan-2").fdb(ENTRIES)
    await kept.crash()
    link = kept.keeper.connect()
    ((found, switch),) = kept_switches(link)
    assert found == spec
    assert [(port_no, listener) for port_no, listener, _ in switch.sessions] == [(9, 3), (10, 3)]
    for _, _, session_kept in switch.sessions:
        assert (session_kept.peer, session_kept.detail) == (peer, "v0")
        assert (session_kept.state, len(session_kept.fds)) == ({"address": "00ff"}, 3)
    assert switch.fdb == ENTRIES
    assert set(link.things) == {"fdb/lan-2"}
    assert len(switch.unused) == 6
    switch.close()
    switch.close()
    link.close()


async def test_switch_without_ports_and_addresses(kept: KeptLab) -> None:
    journal = SwitchJournal(kept.link, "lan")
    journal.switch(SwitchSpec("lan", SwitchConfig(), ()), ())
    await kept.crash()
    link = kept.keeper.connect()
    ((_, switch),) = kept_switches(link)
    assert (list(switch.sessions), list(switch.fdb), switch.unused) == ([], [], set())
    link.close()


async def test_removed_switch_leaves_nothing(kept: KeptLab) -> None:
    journal = SwitchJournal(kept.link, "lan")
    journal.switch(SwitchSpec("lan", SwitchConfig(), ()), ())
    session = Session("bess", Link(0, Framing.SEQPACKET), None, "", nothing_to_close)
    for port_no in (1, 2):
        journal.attached(port_no, 0, session)
    journal.fdb(ENTRIES)
    journal.remove([1, 2])
    await kept.crash()
    assert kept.kept() == set()


async def test_only_the_latest_addresses_are_written_and_the_same_ones_once(kept: KeptLab) -> None:
    journal = SwitchJournal(kept.link, "lan")
    entries = [FdbEntry(number.to_bytes(6, "big"), 1, number) for number in range(MAX_FDB + 5)]
    journal.fdb(entries)
    journal.fdb(entries)
    await kept.crash()
    link = kept.keeper.connect()
    (fd,) = link.things["fdb/lan"].fds
    assert os.fstat(fd).st_size == MAX_FDB * 20
    assert os.pread(fd, 6, 0) == (5).to_bytes(6, "big")
    link.close()


async def test_without_descriptors_the_addresses_are_not_written_and_the_switch_goes_on(
    kept: KeptLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: object) -> int:
        raise OSError(24, "Too many open files")

    journal = SwitchJournal(kept.link, "lan")
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", exhausted)
        journal.fdb([FdbEntry(mac(1), 1, 1)])
    assert "switch lan: its addresses are not written down: Too many open files" in caplog.text
    journal.fdb([FdbEntry(mac(1), 1, 1)])
    await kept.crash()
    assert kept.kept() == {"fdb/lan"}


async def test_settings_that_fit_in_part_only_are_refused(kept: KeptLab) -> None:
    vlan = PortVlan.trunk(VidSet.of(range(1, 4095, 2)))
    config = SwitchConfig(ports={number: PortConfig(vlan) for number in range(1, 30)})
    journal = SwitchJournal(kept.link, "lan")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(LabError, match="lan: its settings cannot be written down: File too large"):
            journal.switch(SwitchSpec("lan", config, ()), ())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.switch(SwitchSpec("lan", config, ()), ())
    await kept.crash()
    link = kept.keeper.connect()
    ((found, switch),) = kept_switches(link)
    assert found.config == config
    switch.close()
    link.close()
