"""Ethernet header and MAC address codec."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from umlab.errors import LocalProtocolError, TruncatedMessage
from umlab.wire.ethernet import (
    BROADCAST,
    EthernetHeader,
    format_mac,
    is_group,
    parse_ethernet,
    parse_mac,
    serialize_ethernet,
)

VECTORS = Path(__file__).parents[2] / "vectors"
# An ARP request's header as a UML guest sends it.
ARP = bytes.fromhex("ffffffffffff 0200000000010806")
HEADER = EthernetHeader(BROADCAST, b"\x02\0\0\0\0\x01", 0x0806)


@pytest.mark.parametrize("name", ["ethernet_arp", "ethernet_vlan"])
def test_frame_of_a_real_kernel_is_decoded(name: str) -> None:
    frame = (VECTORS / f"{name}.bin").read_bytes()
    fields = tomllib.loads((VECTORS / f"{name}.toml").read_text())["fields"]
    expected = EthernetHeader(bytes.fromhex(fields["dst"]), bytes.fromhex(fields["src"]), fields["ethertype"])
    assert parse_ethernet(frame) == expected
    assert serialize_ethernet(expected) == frame[:14]


@pytest.mark.parametrize("payload", [b"", b"\0", b"payload" * 200])
def test_parse_header_is_decoded_whatever_follows(payload: bytes) -> None:
    assert parse_ethernet(ARP + payload) == HEADER


@pytest.mark.parametrize("size", range(14))
def test_parse_short_frame_tells_how_much_is_missing(size: int) -> None:
    with pytest.raises(TruncatedMessage) as caught:
        parse_ethernet(ARP[:size])
    assert (caught.value.needed, caught.value.got) == (14, size)


def test_serialize_gives_the_wire_form() -> None:
    assert serialize_ethernet(HEADER) == ARP


@pytest.mark.parametrize(
    "header",
    [
        EthernetHeader(b"\x02" * 5, b"\x02" * 6, 0x800),
        EthernetHeader(b"\x02" * 6, b"\x02" * 7, 0x800),
        EthernetHeader(b"\x02" * 6, b"\x02" * 6, 0x10000),
        EthernetHeader(b"\x02" * 6, b"\x02" * 6, -1),
    ],
)
def test_serialize_what_does_not_fit_is_refused(header: EthernetHeader) -> None:
    with pytest.raises(LocalProtocolError):
        serialize_ethernet(header)


@pytest.mark.parametrize(
    ("mac", "group"),
    [("ff:ff:ff:ff:ff:ff", True), ("01:00:5e:00:00:fb", True), ("02:ff:ff:ff:ff:ff", False)],
)
def test_is_group_goes_by_the_lowest_bit_of_the_first_byte(mac: str, group: bool) -> None:
    assert is_group(parse_mac(mac)) is group


def test_mac_text_is_lower_case_pairs_and_is_read_in_either_case() -> None:
    mac = bytes([0x02, 0, 0xAB, 0xCD, 0xEF, 0x0A])
    assert format_mac(mac) == "02:00:ab:cd:ef:0a"
    assert parse_mac("02:00:ab:cd:ef:0a") == parse_mac("02:00:AB:CD:EF:0A") == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00",
        "2:00:00:00:00:00",
        "02-00-00-00-00-00",
        "0g:00:00:00:00:00",
        "  :00:00:00:00:00",
        " 0:0 :00:00:00:00",
        "\u06602:00:00:00:00:00",
        "020000000000",
    ],
)
def test_parse_mac_anything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="not a MAC address") as caught:
        parse_mac(text)
    assert repr(text) in str(caught.value)
