"""What a slow stream gets of frames that have another tag there; half a frame may be out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.deadline import wait_until
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    StreamEnd,
    mac,
    plug,
    plug_narrow_stream,
    plug_tcp_stream,
    traffic_of,
)
from umlab.engine.contract import Engine
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.vlan import STAG, PortVlan, VidSet

Keep = Callable[[GuestEnd], GuestEnd]

TEN = VidSet.of([10])
#: What is sent with a tag of priority 5, or without one.
TAG = b"\x81\x00\xa0\x0a"
#: The settings of where frames come from and of the slow stream, and the tag that they come and leave with.
WAYS = {
    "put in": (PortVlan.access(10), PortVlan.trunk(TEN), b"", b"\x81\x00\x00\x0a"),
    "taken out": (PortVlan.trunk(TEN), PortVlan.access(10), TAG, b""),
    "native": (PortVlan.trunk(TEN), PortVlan.trunk(VidSet.of([20]), native=10), TAG, b""),
    "another TPID": (PortVlan.trunk(TEN), PortVlan.trunk(TEN, tpid=STAG), TAG, b"\x88\xa8\xa0\x0a"),
    "another VID": (PortVlan(10, TEN), PortVlan.trunk(TEN), b"\x81\x00\xa0\x00", TAG),
    "as it is": (PortVlan.trunk(TEN), PortVlan.trunk(TEN), TAG, TAG),
}
DEPTH = 100
COUNT = 60


def numbered(tag: bytes) -> list[bytes]:
    """Return frames on both sides of the sizes of the native engine's buffers, with a tag."""
    frames = []
    for number in range(COUNT):
        size = 60 if number % 3 else 2040 + number % 12
        head = BROADCAST + mac(1) + tag + b"\x88\xb5" + number.to_bytes(4, "big") * 5
        frames.append(head.ljust(size + len(tag), b"\xa5"))
    return frames


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("plug_slow", [plug_narrow_stream, plug_tcp_stream], ids=["unix", "tcp"])
def test_slow_stream_gets_whole_frames_in_their_form_and_others_theirs(
    make_engine: Callable[..., Engine], keep: Keep, plug_slow: Callable[[Engine], StreamEnd], way: str
) -> None:
    ingress, egress, came, left = WAYS[way]
    ports = {number: PortConfig(vlan) for number, vlan in enumerate((ingress, egress, ingress, egress), 1)}
    engine = make_engine(SwitchConfig(egress_queue_depth=DEPTH, max_frame=2060, ports=ports))
    sender = keep(plug(engine))
    slow, same, other = keep(plug_slow(engine)), keep(plug(engine)), keep(plug(engine))
    sent, changed = numbered(came), numbered(left)
    # A tag without a VLAN does not leave as one.
    kept = changed if way == "another VID" else sent
    received: dict[int, list[bytes]] = {same.port_no: [], other.port_no: []}
    for each in sent:
        sender.send(each)
        # They read at once, so that only the slow one has frames that wait.
        for quick in (same, other):
            received[quick.port_no].append(quick.receive())
    wait_until(lambda: traffic_of(engine, sender.port_no) == COUNT, 10, "all are dealt with")
    assert engine.snapshot().queued[slow.port_no] > 1
    assert slow.receive_many(COUNT) == changed
    assert received == {same.port_no: kept, other.port_no: changed}
    counters = engine.snapshot().ports[slow.port_no]
    assert (counters.tx_frames, counters.tx_bytes) == (COUNT, sum(map(len, changed)))
    assert counters.drops == {}


def test_frames_that_wait_keep_the_form_in_which_they_were_sent(
    make_engine: Callable[..., Engine], keep: Keep
) -> None:
    """A setting that changes is for frames that come from then on."""
    ports = {1: PortConfig(PortVlan.access(10)), 2: PortConfig(PortVlan.trunk(TEN))}
    engine = make_engine(SwitchConfig(egress_queue_depth=DEPTH, max_frame=2060, ports=ports))
    sender, slow = keep(plug(engine)), keep(plug_narrow_stream(engine))
    frames = numbered(b"")
    for each in frames:
        sender.send(each)
    wait_until(lambda: traffic_of(engine, sender.port_no) == COUNT, 10, "all are dealt with")
    ports[2] = PortConfig(PortVlan.access(10))
    engine.configure(SwitchConfig(egress_queue_depth=DEPTH, ports=ports))
    assert engine.snapshot().queued[slow.port_no] > 1
    sender.send(frames[0])
    assert slow.receive_many(COUNT + 1) == [*numbered(b"\x81\x00\x00\x0a"), frames[0]]
