"""The blocks of pcapng, byte for byte, and as another program reads them."""

from __future__ import annotations

import struct

import pytest

from support.pcapng_blocks import INTERFACE, STATISTICS, Packet, read_blocks, read_packets
from umlab.wire.pcapng import (
    INBOUND,
    OUTBOUND,
    block_length,
    serialize_interface,
    serialize_packet,
    serialize_section,
    serialize_statistics,
)

#: 2026-01-02 03:04:05.678901234 UTC.
AT_NS = 1_767_323_045_678_901_234


def text_options(data: bytes) -> dict[int, str]:
    return {code: value.decode() for code, value in read_blocks(data)[0].options}


def test_section_says_its_byte_order_version_and_writer() -> None:
    assert serialize_section("umlab 1", "Linux") == bytes.fromhex(
        "0a0d0d0a 38000000 4d3c2b1a 0100 0000 ffffffffffffffff"
        "0300 0500 4c696e7578 000000"
        "0400 0700 756d6c61622031 00"
        "0000 0000 38000000"
    )
    assert text_options(serialize_section("umlab")) == {4: "umlab"}


def test_interface_is_ethernet_with_times_in_nanoseconds() -> None:
    assert serialize_interface("lan:3", "", 96) == bytes.fromhex(
        "01000000 2c000000 0100 0000 60000000"
        "0200 0500 6c616e3a33 000000"
        "0900 0100 09 000000 0000 0000 2c000000"
    )


def test_interface_says_what_is_plugged_in_and_the_filter() -> None:
    (block,) = read_blocks(serialize_interface("lan:3", "daemon, guest web", 65_535, "tcp port 80"))
    assert (block.kind, block.body) == (INTERFACE, struct.pack("<HHI", 1, 0, 65_535))
    assert dict(block.options) == {2: b"lan:3", 3: b"daemon, guest web", 9: b"\x09", 11: b"\0tcp port 80"}


def test_packet_without_anything_more_to_say() -> None:
    assert serialize_packet(2, 0x1122334455667788, b"abcde", 1514, INBOUND) == bytes.fromhex(
        "06000000 34000000 02000000 44332211 88776655 05000000 ea050000"
        "6162636465 000000"
        "0200 0400 01000000 0000 0000 34000000"
    )


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 14, 65_535])
@pytest.mark.parametrize(("drop", "lost"), [("", 0), ("tail", 0), ("", 7), ("same_port", (1 << 64) - 1)])
def test_packet_is_read_back(size: int, drop: str, lost: int) -> None:
    data = bytes(number % 251 + 1 for number in range(size))
    block = serialize_packet(9, AT_NS, data, size + 5, OUTBOUND, drop, lost)
    comment = f"drop: {drop}" if drop else ""
    assert read_packets(block) == [Packet(9, AT_NS, data, size + 5, OUTBOUND, comment, lost)]
    assert block_length(block) == len(block)
    assert block_length(b"xyz" + block, 3) == len(block)


def test_options_of_a_packet_come_in_their_order() -> None:
    (block,) = read_blocks(serialize_packet(0, 0, b"", 0, INBOUND, "tail", 1))
    assert block.options == [(1, b"drop: tail"), (2, b"\1\0\0\0"), (4, b"\1\0\0\0\0\0\0\0")]


def test_statistics_are_of_one_size_whatever_they_count() -> None:
    large = serialize_statistics(1, AT_NS, AT_NS - 1, 1 << 40, 1 << 39, 1 << 38)
    assert len(large) == len(serialize_statistics(0, 0, 0, 0, 0, 0))
    (block,) = read_blocks(large)
    words = struct.pack("<II", AT_NS >> 32, AT_NS & 0xFFFF_FFFF)
    assert (block.kind, block.body) == (STATISTICS, struct.pack("<I", 1) + words)
    options = dict(block.options)
    assert options.pop(3) == words
    assert options.pop(2) == struct.pack("<II", (AT_NS - 1) >> 32, (AT_NS - 1) & 0xFFFF_FFFF)
    counts = {code: int.from_bytes(value, "little") for code, value in options.items()}
    # Received, lost, accepted by the filter, delivered.
    assert counts == {4: 1 << 40, 5: 1 << 38, 6: 1 << 39, 8: 1 << 38}


@pytest.mark.parametrize("character", ["x", "é", "\N{EARTH GLOBE EUROPE-AFRICA}"])
def test_text_that_is_too_long_is_cut_between_characters(character: str) -> None:
    """A length of more than 16 bits broke the block, and half a character the text."""
    text = text_options(serialize_section("a" + character * 70_000))[4]
    assert text == "a" + character * (len(text) - 1)
    assert 64_900 < len(text.encode()) <= 65_535
    capture_filter = dict(read_blocks(serialize_interface("x", "x", 96, character * 70_000))[0].options)[11]
    assert set(capture_filter[1:].decode()) == {character}


def test_text_that_is_no_text_has_its_place_kept() -> None:
    """What a guest calls itself may be bytes that are no UTF-8."""
    name = b"web\xff".decode(errors="surrogateescape")
    assert dict(read_blocks(serialize_interface(name, name, 96))[0].options)[2] == b"web?"
