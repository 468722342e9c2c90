"""LLDP: what a station says of itself to whoever is at the other end of its link.

A frame to one of ``GROUP_ADDRESSES`` with ``ETHERTYPE``, untagged, carries one LLDPDU: TLVs one behind the
other.  Each begins with 16 bits, big-endian: its type in the upper 7, the number of bytes that follow in
the other 9.  The first three have to be there, in this order.

====  ====================  ==============================================================================
type  name                  then
====  ====================  ==============================================================================
1     Chassis ID            subtype 1, identifier 1 to 255
2     Port ID               subtype 1, identifier 1 to 255
3     Time To Live          seconds u16; 0 takes back all that was said
4     Port Description      text, up to 255
5     System Name           text, up to 255
6     System Description    text, up to 255
7     System Capabilities   bits that it could have u16, bits that are on u16
8     Management Address    size of the next two u8, family u8, address 1 to 31, kind of the interface number
                            u8, interface number u32, size u8, object identifier up to 128; several times
127   organisation's own    OUI 3, subtype 1, up to 507; read are those of 00-80-C2 with subtype 1 (port VID
                            u16) and 3 (VID u16, size u8, the VLAN's name up to 32; several times)
0     End of LLDPDU         nothing; what comes behind it is padding, and it may be missing
====  ====================  ==============================================================================

An optional TLV that is not well-formed is passed over and the others hold; whatever else is wrong spoils the
LLDPDU.  Of an optional TLV that comes once only the first counts.

Source: IEEE 802.1AB-2016 7, 8 and 9.2.7.7; IEEE 802.1Q-2018 D.2 (the TLVs of 00-80-C2).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from umlab.errors import LocalProtocolError, RemoteProtocolError, TruncatedMessage
from umlab.wire.ethernet import MAC_SIZE, EthernetHeader, format_mac, parse_ethernet, serialize_ethernet
from umlab.wire.text import printable_line

ETHERTYPE = 0x88CC
#: Reaches the other end of the link and nobody behind a bridge of any kind: where we send to.
NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
#: The addresses of LLDP: nearest bridge, nearest bridge that is no two-port relay, nearest customer bridge.
GROUP_ADDRESSES = frozenset((NEAREST_BRIDGE, bytes.fromhex("0180c2000003"), bytes.fromhex("0180c2000000")))

#: Subtypes of a chassis identifier that are not plain text.
CHASSIS_MAC, CHASSIS_NETWORK = 4, 5
#: Subtypes of a port identifier that are not plain text,
PORT_MAC, PORT_NETWORK = 3, 4
#: and that of an interface's name.
PORT_INTERFACE_NAME = 5
#: Names of the capabilities, from the lowest bit.
CAPABILITIES = (
    *("other", "repeater", "bridge", "wlan-access-point", "router", "telephone"),
    *("docsis-cable-device", "station-only", "c-vlan", "s-vlan", "two-port-relay"),
)
BRIDGE = 1 << CAPABILITIES.index("bridge")
#: Families of an address, as IANA numbers them.
FAMILY_IPV4, FAMILY_IPV6, FAMILY_MAC = 1, 2, 6
#: Bytes of an identifier, and of a text.
MAX_TEXT = 255

_END, _CHASSIS_ID, _PORT_ID, _TTL = range(4)
_PORT_DESCRIPTION, _SYSTEM_NAME, _SYSTEM_DESCRIPTION, _CAPABILITIES, _ADDRESS = range(4, 9)
_ORGANISATION = 127
_TEXTS = {
    _PORT_DESCRIPTION: "port_description",
    _SYSTEM_NAME: "system_name",
    _SYSTEM_DESCRIPTION: "system_description",
}
_PORT_VID, _VLAN_NAME = bytes.fromhex("0080c201"), bytes.fromhex("0080c203")
_MAX_SIZE = (1 << 9) - 1
_MAX_ADDRESS, _MAX_OID, _MAX_VLAN_NAME = 31, 128, 32
_BYTE, _TWO_BYTES = struct.Struct("!B"), struct.Struct("!BB")
_WORD, _TWO_WORDS = struct.Struct("!H"), struct.Struct("!HH")
_INTERFACE = struct.Struct("!BIB")
_NAMED_VLAN = struct.Struct("!HB")


class Identifier(NamedTuple):
    """A chassis or a port.

    Attributes:
        subtype: What kind of identifier it is; the two number them differently.
        value: 1 to 255 bytes.
    """

    subtype: int
    value: bytes


class Capabilities(NamedTuple):
    """What a station could be, and is, in bits; see ``CAPABILITIES``."""

    supported: int
    enabled: int


class ManagementAddress(NamedTuple):
    """Where a station is managed.

    Attributes:
        family: Such as ``FAMILY_IPV4``.
        address: 1 to 31 bytes.
        interface_kind: 1 for an unknown interface, 2 for ``ifIndex``, 3 for a port number of the system.
        interface_no: The interface's number.
        oid: An object identifier, encoded, up to 128 bytes.
    """

    family: int
    address: bytes
    interface_kind: int = 1
    interface_no: int = 0
    oid: bytes = b""


class VlanName(NamedTuple):
    """A VLAN of a port, and what it is called there, 1 to 32 bytes."""

    vid: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Lldpdu:
    """What a station says of itself; a text that is missing is empty.

    Attributes:
        chassis_id: The station,
        port_id: and the port of it that is at this link.
        ttl: Seconds that all of it holds; with 0 nothing of it does any more.
        port_description: Text, up to 255 bytes, as are the next two.
        system_name: The station's name.
        system_description: What it runs.
        capabilities: What it is, ``None`` where it does not say.
        management_addresses: Where it is managed.
        port_vid: The VLAN of the port's untagged frames, 0 for none; ``None`` where it does not say.
        vlan_names: VLANs of the port.
        passed_over: Optional TLVs that are not well-formed.
    """

    chassis_id: Identifier
    port_id: Identifier
    ttl: int
    port_description: bytes = b""
    system_name: bytes = b""
    system_description: bytes = b""
    capabilities: Capabilities | None = None
    management_addresses: tuple[ManagementAddress, ...] = ()
    port_vid: int | None = None
    vlan_names: tuple[VlanName, ...] = ()
    passed_over: int = field(default=0, compare=False)


def is_lldp(frame: bytes) -> bool:
    """Tell whether a frame is for those that speak LLDP, whatever is in it."""
    return frame[12:14] == _WORD.pack(ETHERTYPE) and frame[:MAC_SIZE] in GROUP_ADDRESSES


def parse_frame(frame: bytes) -> Lldpdu:
    """Decode a frame.

    Raises:
        TruncatedMessage: It ends within a TLV.
        RemoteProtocolError: It is no LLDP frame, or its LLDPDU is malformed.
    """
    parse_ethernet(frame)
    if not is_lldp(frame):
        raise RemoteProtocolError("a frame of another protocol")
    return parse_lldpdu(frame[14:])


def parse_lldpdu(data: bytes) -> Lldpdu:
    """Decode what a frame carries; the module shows the layout.

    Raises:
        TruncatedMessage: It ends within a TLV.
        RemoteProtocolError: It does not begin with the three TLVs that have to be there, one of them comes
            again or is not well-formed, or its end has contents.
    """
    tlvs = _tlvs(data)
    chassis_id = _identifier(_expect(tlvs, _CHASSIS_ID))
    port_id = _identifier(_expect(tlvs, _PORT_ID))
    time_to_live = _expect(tlvs, _TTL)
    if len(time_to_live) < _WORD.size:
        raise RemoteProtocolError(f"a time to live of {len(time_to_live)} bytes")
    found = _Optional()
    for kind, value in tlvs:
        if kind <= _TTL:
            raise RemoteProtocolError(f"a TLV of type {kind} comes again")
        try:
            found.take(kind, value)
        except (RemoteProtocolError, struct.error):
            found.passed_over += 1
    return Lldpdu(
        chassis_id,
        port_id,
        _WORD.unpack_from(time_to_live)[0],
        **found.once,
        management_addresses=tuple(found.addresses),
        vlan_names=tuple(found.vlan_names),
        passed_over=found.passed_over,
    )


def serialize_frame(source: bytes, pdu: Lldpdu) -> bytes:
    """Encode an LLDPDU as a frame to the nearest bridge.  Raises LocalProtocolError."""
    return serialize_ethernet(EthernetHeader(NEAREST_BRIDGE, source, ETHERTYPE)) + serialize_lldpdu(pdu)


def serialize_lldpdu(pdu: Lldpdu) -> bytes:
    """Encode an LLDPDU; the reverse of ``parse_lldpdu``.

    Raises:
        LocalProtocolError: A field does not fit.
    """
    parts = [
        _tlv(_CHASSIS_ID, _identifier_value(pdu.chassis_id)),
        _tlv(_PORT_ID, _identifier_value(pdu.port_id)),
        _tlv(_TTL, _pack(_WORD, pdu.ttl)),
    ]
    for kind, name in _TEXTS.items():
        text: bytes = getattr(pdu, name)
        _check_size(name, text, 0, MAX_TEXT)
        if text:
            parts.append(_tlv(kind, text))
    if pdu.capabilities is not None:
        parts.append(_tlv(_CAPABILITIES, _pack(_TWO_WORDS, *pdu.capabilities)))
    parts += [_tlv(_ADDRESS, _address_value(each)) for each in pdu.management_addresses]
    if pdu.port_vid is not None:
        parts.append(_tlv(_ORGANISATION, _PORT_VID + _pack(_WORD, pdu.port_vid)))
    for vlan in pdu.vlan_names:
        _check_size("a VLAN's name", vlan.name, 1, _MAX_VLAN_NAME)
        front = _VLAN_NAME + _pack(_NAMED_VLAN, vlan.vid, len(vlan.name))
        parts.append(_tlv(_ORGANISATION, front + vlan.name))
    return b"".join((*parts, _tlv(_END, b"")))


def chassis_text(chassis_id: Identifier) -> str:
    """Return a chassis identifier for people."""
    return _identifier_text(chassis_id, CHASSIS_MAC, CHASSIS_NETWORK)


def port_text(port_id: Identifier) -> str:
    """Return a port identifier for people."""
    return _identifier_text(port_id, PORT_MAC, PORT_NETWORK)


def address_text(family: int, address: bytes) -> str:
    """Return an address for people, in hexadecimal digits where its family has no form or another size."""
    if (family, len(address)) in ((FAMILY_IPV4, 4), (FAMILY_IPV6, 16)):
        return str(ipaddress.ip_address(address))
    if family == FAMILY_MAC and len(address) == MAC_SIZE:
        return format_mac(address)
    return address.hex()


def capability_names(bits: int) -> tuple[str, ...]:
    """Return the names of capabilities, from the lowest bit; bits without a name are left out."""
    return tuple(name for number, name in enumerate(CAPABILITIES) if bits >> number & 1)


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and contents of each TLV up to the end."""
    offset = 0
    while offset < len(data):
        if len(data) < offset + _WORD.size:
            raise TruncatedMessage(offset + _WORD.size, len(data))
        (head,) = _WORD.unpack_from(data, offset)
        offset += _WORD.size
        kind, end = head >> 9, offset + (head & _MAX_SIZE)
        if len(data) < end:
            raise TruncatedMessage(end, len(data))
        if kind == _END:
            if end > offset:
                raise RemoteProtocolError("the end has contents")
            return
        yield kind, data[offset:end]
        offset = end


def _expect(tlvs: Iterator[tuple[int, bytes]], expected: int) -> bytes:
    kind, value = next(tlvs, (_END, b""))
    if kind != expected:
        raise RemoteProtocolError(f"a TLV of type {kind} where one of type {expected} belongs")
    return value


@dataclass(slots=True)
class _Optional:
    """The optional TLVs of an LLDPDU so far; ``once`` has the fields of those that count once."""

    once: dict[str, Any] = field(default_factory=dict)
    addresses: list[ManagementAddress] = field(default_factory=list)
    vlan_names: list[VlanName] = field(default_factory=list)
    passed_over: int = 0

    def take(self, kind: int, value: bytes) -> None:
        """Add one TLV; what is unknown adds nothing."""
        if kind in _TEXTS:
            if len(value) > MAX_TEXT:
                raise RemoteProtocolError(f"a text of {len(value)} bytes")
            self.once.setdefault(_TEXTS[kind], value)
        elif kind == _CAPABILITIES:
            self.once.setdefault("capabilities", Capabilities(*_TWO_WORDS.unpack_from(value)))
        elif kind == _ADDRESS:
            self.addresses.append(_address(value))
        elif kind == _ORGANISATION:
            self._take_organisation(value[: len(_PORT_VID)], value[len(_PORT_VID) :])

    def _take_organisation(self, front: bytes, value: bytes) -> None:
        if len(front) < len(_PORT_VID):
            raise RemoteProtocolError("no organisation and subtype")
        if front == _PORT_VID:
            self.once.setdefault("port_vid", _WORD.unpack_from(value)[0])
        elif front == _VLAN_NAME:
            vid, size = _NAMED_VLAN.unpack_from(value)
            name = value[_NAMED_VLAN.size :][:size]
            if not 1 <= size <= _MAX_VLAN_NAME or len(name) < size:
                raise RemoteProtocolError("a VLAN's name of another size")
            self.vlan_names.append(VlanName(vid, name))


def _identifier(value: bytes) -> Identifier:
    if not 2 <= len(value) <= 1 + MAX_TEXT:
        raise RemoteProtocolError(f"an identifier of {max(len(value) - 1, 0)} bytes")
    return Identifier(value[0], value[1:])


def _identifier_value(identifier: Identifier) -> bytes:
    _check_size("an identifier", identifier.value, 1, MAX_TEXT)
    return _pack(_BYTE, identifier.subtype) + identifier.value


def _identifier_text(identifier: Identifier, mac: int, network: int) -> str:
    subtype, value = identifier
    if subtype == mac:
        return address_text(FAMILY_MAC, value)
    if subtype == network:
        return address_text(value[0], value[1:])
    return printable_line(value) or value.hex()


def _address(value: bytes) -> ManagementAddress:
    if not value:
        raise RemoteProtocolError("an empty management address")
    end = 1 + value[0]
    kind, number, size = _INTERFACE.unpack_from(value, end)
    oid = value[end + _INTERFACE.size : end + _INTERFACE.size + size]
    if not 2 <= value[0] <= 1 + _MAX_ADDRESS or size > _MAX_OID or len(oid) < size:
        raise RemoteProtocolError("a management address of another size")
    return ManagementAddress(value[1], value[2:end], kind, number, oid)


def _address_value(address: ManagementAddress) -> bytes:
    _check_size("an address", address.address, 1, _MAX_ADDRESS)
    _check_size("an object identifier", address.oid, 0, _MAX_OID)
    front = _pack(_TWO_BYTES, 1 + len(address.address), address.family) + address.address
    interface = _pack(_INTERFACE, address.interface_kind, address.interface_no, len(address.oid))
    return front + interface + address.oid


def _tlv(kind: int, value: bytes) -> bytes:
    assert len(value) <= _MAX_SIZE
    return _WORD.pack(kind << 9 | len(value)) + value


def _pack(layout: struct.Struct, *numbers: int) -> bytes:
    try:
        return layout.pack(*numbers)
    except struct.error as error:
        raise LocalProtocolError(f"one of {numbers} does not fit: {error}") from None


def _check_size(what: str, value: bytes, least: int, most: int) -> None:
    if not least <= len(value) <= most:
        raise LocalProtocolError(f"{what} has {least} to {most} bytes, not {len(value)}")
