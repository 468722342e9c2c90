"""Events and counters as plain, JSON-ready records."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

from support.deadline import wait_until_async
from umlab.daemon.record import counters_record, event_record, port_records
from umlab.daemon.switch import SessionOpened, SessionRefused, SwitchService
from umlab.errors import LabError, TransportError
from umlab.switch.counters import DropReason, PortCounters, SwitchCounters
from umlab.switch.events import MacLearned, StationMoved, UnknownUnicast
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.contract import Peer

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def test_event_is_named_in_snake_case_and_its_addresses_are_text() -> None:
    assert event_record(MacLearned(5, A, 1)) == {
        "event": "mac_learned",
        "at_ns": 5,
        "mac": "02:00:00:00:00:01",
        "port_no": 1,
        "vid": 0,
    }
    moved = event_record(StationMoved(5, A, 2, 1))
    assert (moved["event"], moved["mac"]) == ("station_moved", "02:00:00:00:00:01")
    unknown = event_record(UnknownUnicast(5, A, B, 1))
    assert (unknown["source"], unknown["destination"]) == ("02:00:00:00:00:01", "02:00:00:00:00:02")


def test_error_and_peer_are_plain() -> None:
    peer = Peer(7, 1000, 1000, None)
    refused = event_record(SessionRefused(5, "daemon", TransportError("no"), peer))
    assert refused["error"] == "no"
    assert refused["peer"] == {"pid": 7, "uid": 1000, "gid": 1000, "boot": None, "groups": []}
    assert json.loads(json.dumps(refused)) == refused
    assert event_record(SessionOpened(5, 1, "daemon", "v3", None))["peer"] is None
    assert event_record(SessionRefused(5, "x", LabError("a"), None))["event"] == "session_refused"


def test_each_bucket_of_sizes_is_a_counter() -> None:
    counters = PortCounters()
    for size in (14, 64, 65, 127, 128, 511, 1023, 1024, 1518, 1519, 9018):
        counters.count_rx(size)
    counters.count_tx(60)
    record = counters_record(counters)
    sizes = {name.removeprefix("rx_size_"): count for name, count in record.items() if "rx_size" in name}
    assert sizes == {
        **{"0_64": 2, "65_127": 2, "128_255": 1, "256_511": 1, "512_1023": 1, "1024_1518": 2},
        "1519_up": 2,
    }
    assert sum(sizes.values()) == record["rx_frames"]
    assert record["tx_size_0_64"] == 1


def test_each_reason_to_drop_is_a_counter() -> None:
    counters = PortCounters(rx_frames=3)
    counters.count_drop(DropReason.TAIL)
    counters.count_drop(DropReason.RUNT)
    record = counters_record(counters)
    assert (record["rx_frames"], record["drop_tail"], record["drop_runt"]) == (3, 1, 1)
    assert all(isinstance(value, int) for value in record.values())
    assert counters_record(SwitchCounters(learned=2))["learned"] == 2


async def test_ports_are_listed_with_peer_and_counters(short_dir: Path) -> None:
    service = SwitchService("lan", SwitchConfig(), [BessListener(short_dir / "b")])
    await service.start()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guest:
            guest.connect(str(short_dir / "b"))
            await wait_until_async(lambda: len(service.ports()) == 1, 10, "a port")
            await asyncio.sleep(0)
            (record,) = port_records(service)
        assert (record["port_no"], record["kind"], record["detail"]) == (1, "bess", "")
        assert record["counters"]["rx_frames"] == 0
        assert json.loads(json.dumps(record)) == record
    finally:
        await service.stop()
