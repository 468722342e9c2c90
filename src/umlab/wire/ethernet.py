"""Ethernet II header and MAC addresses: bytes to values and back.

A MAC address is 6 raw bytes everywhere in umlab; text is for people only.
"""

from __future__ import annotations

from typing import NamedTuple

from umlab.errors import LocalProtocolError, TruncatedMessage

#: Bytes of a MAC address.
MAC_SIZE = 6
#: Bytes of a header without a VLAN tag.
HEADER_SIZE = 14
#: Reaches every station.
BROADCAST = b"\xff" * MAC_SIZE


class EthernetHeader(NamedTuple):
    """What every frame begins with.

    Attributes:
        dst: Destination MAC, 6 bytes.
        src: Source MAC, 6 bytes.
        ethertype: The type field as it stands: under 0x600 it is an 802.3 length, 0x8100 a VLAN tag's.
    """

    dst: bytes
    src: bytes
    ethertype: int


def parse_ethernet(frame: bytes) -> EthernetHeader:
    """Decode the header of a frame.

    Layout, big endian, 14 bytes: destination 6, source 6, ethertype u16; the payload follows.

    Args:
        frame: One frame without FCS.

    Raises:
        TruncatedMessage: It has fewer than 14 bytes.

    Source: IEEE 802.3-2018 3.1.1.
    """
    if len(frame) < HEADER_SIZE:
        raise TruncatedMessage(HEADER_SIZE, len(frame))
    return EthernetHeader(frame[0:6], frame[6:12], int.from_bytes(frame[12:14], "big"))


def serialize_ethernet(header: EthernetHeader) -> bytes:
    """Encode a header; the reverse of ``parse_ethernet``.

    Raises:
        LocalProtocolError: An address does not have 6 bytes, or the ethertype does not fit a u16.
    """
    dst, src, ethertype = header
    if len(dst) != MAC_SIZE or len(src) != MAC_SIZE:
        raise LocalProtocolError(f"a MAC address has {MAC_SIZE} bytes")
    if not 0 <= ethertype <= 0xFFFF:
        raise LocalProtocolError(f"ethertype {ethertype:#x} does not fit 16 bits")
    return dst + src + ethertype.to_bytes(2, "big")


def is_group(mac: bytes) -> bool:
    """Tell whether an address is a group (multicast or broadcast): the lowest bit of its first byte."""
    return bool(mac[0] & 1)


def format_mac(mac: bytes) -> str:
    """Write an address as lower-case pairs with colons, such as ``02:00:00:00:00:2a``."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Read an address written as six pairs of hexadecimal digits with colons, in either case.

    Raises:
        ValueError: The text is anything else.
    """
    pairs = text.split(":")
    if len(pairs) != MAC_SIZE or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"not a MAC address: {text!r}")
    try:
        mac = bytes.fromhex("".join(pairs))
    except ValueError:
        raise ValueError(f"not a MAC address: {text!r}") from None
    if len(mac) != MAC_SIZE:  # fromhex skips blanks
        raise ValueError(f"not a MAC address: {text!r}")
    return mac
