"""Throw bytes at LLDP: the parser raises `RemoteProtocolError` only, and a switch's neighbours stay few.

Run: ``python tests/fuzz/fuzz_lldp.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60`` and a copy of tests/vectors/lldp_*.bin as corpus.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab._clock import ManualClock
    from umlab.errors import RemoteProtocolError
    from umlab.switch.control.lldp import MAX_NEIGHBOURS, LldpMachine, Station
    from umlab.switch.model import SECOND_NS
    from umlab.wire.lldp import is_lldp, parse_frame, parse_lldpdu, serialize_lldpdu

CLOCK = ManualClock()
MACHINE = LldpMachine(Station(b"\x02\0\0\0\0\x01", "lan", "lab/lan", "umlab"), lambda port_no: "guest")
MACHINE.add_port(1, 0)
MACHINE.send(True, 0)


def one_input(data: bytes) -> None:
    """Feed one input to the parser, and to a machine that has seen all that came before."""
    with contextlib.suppress(RemoteProtocolError):
        pdu = parse_frame(data)
        assert is_lldp(data)
        assert parse_lldpdu(serialize_lldpdu(pdu)) == pdu
    CLOCK.advance(SECOND_NS // 8)
    now_ns = CLOCK.now_ns()
    with contextlib.suppress(RemoteProtocolError):
        MACHINE.receive(1, data, now_ns)
    MACHINE.handle_timer(now_ns)
    neighbours = MACHINE.neighbours(1)
    assert len(neighbours) <= MAX_NEIGHBOURS
    for each in neighbours:
        texts = (
            each.chassis_id,
            each.port_id,
            each.system_name,
            each.system_description,
            each.port_description,
        )
        assert all(not text or text.isprintable() for text in (*texts, *each.vlan_names.values()))
    MACHINE.take_events()
    MACHINE.frames_to_send()


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
