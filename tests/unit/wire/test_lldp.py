"""LLDP: layouts by hand, frames of a real agent, what is passed over and what is refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from umlab.errors import LocalProtocolError, RemoteProtocolError, TruncatedMessage
from umlab.wire.lldp import (
    FAMILY_IPV4,
    FAMILY_IPV6,
    FAMILY_MAC,
    Capabilities,
    Identifier,
    Lldpdu,
    ManagementAddress,
    VlanName,
    address_text,
    capability_names,
    chassis_text,
    is_lldp,
    parse_frame,
    parse_lldpdu,
    port_text,
    serialize_frame,
    serialize_lldpdu,
)

VECTORS = Path(__file__).parents[2] / "vectors"
MAC = b"\x02\0\0\0\0\x01"
FRONT = bytes.fromhex("0180c200000e 020000000001 88cc")
CHASSIS = bytes.fromhex("0207 04 020000000001")
PORT = bytes.fromhex("0405 05 65746830")
TTL = bytes.fromhex("0602 0079")
END = bytes(2)
LEAST = CHASSIS + PORT + TTL
PDU = Lldpdu(Identifier(4, MAC), Identifier(5, b"eth0"), 121)


def with_tlvs(*tlvs: str) -> bytes:
    """Return an LLDPDU with TLVs behind those that have to be there."""
    return LEAST + b"".join(map(bytes.fromhex, tlvs)) + END


def test_layout_of_everything() -> None:
    pdu = replace(
        PDU,
        port_description=b"up",
        system_name=b"left",
        system_description=b"Linux",
        capabilities=Capabilities(0x14, 0x04),
        management_addresses=(
            ManagementAddress(FAMILY_IPV4, b"\x0a\0\0\x01", 2, 7, b"\x2b\x06"),
            ManagementAddress(FAMILY_MAC, MAC),
        ),
        port_vid=1,
        vlan_names=(VlanName(10, b"blue"), VlanName(4094, b"x")),
    )
    data = with_tlvs(
        *("0802 7570", "0a04 6c656674", "0c05 4c696e7578", "0e04 0014 0004"),
        *("100e 05 01 0a000001 02 00000007 02 2b06", "100e 07 06 020000000001 01 00000000 00"),
        *("fe06 0080c201 0001", "fe0b 0080c203 000a 04 626c7565", "fe08 0080c203 0ffe 01 78"),
    )
    assert serialize_lldpdu(pdu) == data
    assert parse_lldpdu(data) == pdu
    assert serialize_frame(MAC, pdu) == FRONT + data
    assert parse_frame(FRONT + data) == pdu


@pytest.mark.parametrize("behind", [b"", END, END + b"padding", END + b"\xff"])
def test_end_may_be_missing_and_padding_may_follow(behind: bytes) -> None:
    assert parse_lldpdu(LEAST + behind) == PDU
    assert parse_lldpdu(LEAST + behind).passed_over == 0


def test_ttl_may_grow_in_later_versions() -> None:
    assert parse_lldpdu(CHASSIS + PORT + bytes.fromhex("0604 0000 ffff")).ttl == 0


@pytest.mark.parametrize("address", ["0180c200000e", "0180c2000003", "0180c2000000"])
def test_addresses_of_lldp(address: str) -> None:
    frame = bytes.fromhex(address) + FRONT[6:] + LEAST
    assert is_lldp(frame)
    assert parse_frame(frame) == PDU


@pytest.mark.parametrize(
    "front",
    ["0180c2000001 020000000001 88cc", "0180c200000e 020000000001 8100", "ffffffffffff 020000000001 88cc"],
)
def test_frame_of_another_protocol_is_told_apart(front: str) -> None:
    frame = bytes.fromhex(front) + LEAST
    assert not is_lldp(frame)
    with pytest.raises(RemoteProtocolError, match="another protocol"):
        parse_frame(frame)


@pytest.mark.parametrize("size", range(14))
def test_frame_without_a_header_is_refused(size: int) -> None:
    with pytest.raises(TruncatedMessage):
        parse_frame(FRONT[:size])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "type 0 where one of type 1 belongs"),
        (END, "type 0 where one of type 1 belongs"),
        (PORT + CHASSIS + TTL, "type 2 where one of type 1 belongs"),
        (CHASSIS + TTL, "type 3 where one of type 2 belongs"),
        (CHASSIS + PORT, "type 0 where one of type 3 belongs"),
        (CHASSIS + PORT + END + TTL, "type 0 where one of type 3 belongs"),
        (b"\x02\0", "identifier of 0 bytes"),
        (b"\x02\x01\x04", "identifier of 0 bytes"),
        (b"\x03\x01" + b"\x04" * 257, "identifier of 256 bytes"),
        (CHASSIS + b"\x04\x01\x05", "identifier of 0 bytes"),
        (CHASSIS + PORT + b"\x06\x01\0", "time to live of 1 bytes"),
        (LEAST + CHASSIS, "type 1 comes again"),
        (LEAST + PORT, "type 2 comes again"),
        (LEAST + TTL, "type 3 comes again"),
        (LEAST + b"\0\x01x", "the end has contents"),
    ],
)
def test_malformed_lldpdu_says_why(data: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        parse_lldpdu(data)


@pytest.mark.parametrize("size", [size for size in range(1, len(LEAST)) if size not in (9, 16)])
def test_lldpdu_that_is_cut_says_how_much_is_missing(size: int) -> None:
    with pytest.raises(TruncatedMessage) as caught:
        parse_lldpdu(LEAST[:size])
    assert caught.value.got == size < caught.value.needed <= len(LEAST)


def tlv(kind: int, contents: str) -> str:
    value = bytes.fromhex(contents)
    return ((kind << 9 | len(value)).to_bytes(2, "big") + value).hex()


@pytest.mark.parametrize(
    ("kind", "contents"),
    [
        (7, "000400"),
        (8, ""),
        (8, "05"),
        (8, "05 01 0a000001 02 00000007"),
        (8, "05 01 0a000001 02 00000007 01"),
        (8, "01 01 02 00000007 00"),
        (8, f"21 01 {'00' * 32} 02 00000007 00"),
        (8, f"05 01 0a000001 02 00000007 81 {'2b' * 129}"),
        (127, "0080c2"),
        (127, "0080c201 00"),
        (127, "0080c203 000a"),
        (127, "0080c203 000a 00"),
        (127, "0080c203 000a 02 62"),
        (127, f"0080c203 000a 21 {'62' * 33}"),
    ],
)
def test_optional_tlv_that_is_malformed_is_passed_over(kind: int, contents: str) -> None:
    found = parse_lldpdu(with_tlvs(tlv(kind, contents), "0a01 61"))
    assert (found, found.passed_over) == (replace(PDU, system_name=b"a"), 1)


def test_text_that_is_too_long_is_passed_over() -> None:
    found = parse_lldpdu(LEAST + bytes.fromhex("0b00") + b"a" * 256)
    assert (found.system_name, found.passed_over) == (b"", 1)
    assert parse_lldpdu(LEAST + bytes.fromhex("0aff") + b"a" * 255).system_name == b"a" * 255


@pytest.mark.parametrize("unknown", ["1200", "7e02 abcd", "fc01 00", "fe04 00120f01", "fe04 0080c204"])
def test_unknown_tlv_is_skipped(unknown: str) -> None:
    found = parse_lldpdu(with_tlvs(unknown))
    assert (found, found.passed_over) == (PDU, 0)


def test_first_of_what_counts_once_counts() -> None:
    found = parse_lldpdu(
        with_tlvs(
            "0a01 61",
            "0a01 62",
            "0e04 0001 0001",
            "0e04 0002 0002",
            "fe06 0080c201 0001",
            "fe06 0080c201 0002",
        )
    )
    assert found == replace(PDU, system_name=b"a", capabilities=Capabilities(1, 1), port_vid=1)


@pytest.mark.parametrize(
    ("pdu", "words"),
    [
        (replace(PDU, chassis_id=Identifier(4, b"")), "an identifier has 1 to 255 bytes, not 0"),
        (replace(PDU, port_id=Identifier(4, bytes(256))), "an identifier has 1 to 255 bytes, not 256"),
        (replace(PDU, port_id=Identifier(256, b"x")), "does not fit"),
        (replace(PDU, ttl=65_536), "does not fit"),
        (replace(PDU, ttl=-1), "does not fit"),
        (replace(PDU, system_name=bytes(256)), "system_name has 0 to 255 bytes"),
        (replace(PDU, capabilities=Capabilities(1, 65_536)), "does not fit"),
        (replace(PDU, management_addresses=(ManagementAddress(1, b""),)), "an address has 1 to 31 bytes"),
        (replace(PDU, management_addresses=(ManagementAddress(1, b"x", oid=bytes(129)),)), "0 to 128 bytes"),
        (replace(PDU, port_vid=65_536), "does not fit"),
        (replace(PDU, vlan_names=(VlanName(1, b""),)), "a VLAN's name has 1 to 32 bytes"),
    ],
)
def test_what_does_not_fit_is_not_sent(pdu: Lldpdu, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        serialize_lldpdu(pdu)


@pytest.mark.parametrize(
    ("chassis", "port", "value", "shown"),
    [
        (4, 3, MAC, "02:00:00:00:00:01"),
        (5, 4, b"\x01\x0a\0\0\x01", "10.0.0.1"),
        (5, 4, b"\x01", ""),
        (7, 7, b"left\x1b[31m", r"left\x1b[31m"),
        (7, 5, b"\0\x01", "0001"),
        (3, 2, b"\xff", r"\xff"),
    ],
)
def test_identifiers_are_shown_by_their_kind(chassis: int, port: int, value: bytes, shown: str) -> None:
    assert chassis_text(Identifier(chassis, value)) == shown
    assert port_text(Identifier(port, value)) == shown


@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [
        (FAMILY_IPV4, "0a000001", "10.0.0.1"),
        (FAMILY_IPV6, "fe80" + "00" * 13 + "01", "fe80::1"),
        (FAMILY_MAC, "020000000001", "02:00:00:00:00:01"),
        (FAMILY_IPV4, "0a0000", "0a0000"),
        (FAMILY_MAC, "02", "02"),
        (16, "6578", "6578"),
        (FAMILY_IPV4, "", ""),
    ],
)
def test_addresses_are_shown_by_their_family(family: int, address: str, shown: str) -> None:
    assert address_text(family, bytes.fromhex(address)) == shown


def test_capabilities_have_names() -> None:
    assert capability_names(0) == ()
    assert capability_names(0x14) == ("bridge", "router")
    assert capability_names(0xFFFF)[-1] == "two-port-relay"


@pytest.mark.parametrize("name", sorted(path.stem for path in VECTORS.glob("lldp_*.bin")))
def test_frame_of_a_real_agent_is_decoded(name: str) -> None:
    frame = (VECTORS / f"{name}.bin").read_bytes()
    fields = tomllib.loads((VECTORS / f"{name}.toml").read_text())["fields"]
    pdu = parse_frame(frame)
    shown = {
        "chassis": chassis_text(pdu.chassis_id),
        "port": port_text(pdu.port_id),
        "ttl": pdu.ttl,
        "system_name": pdu.system_name.decode(),
        "capabilities": list(capability_names(pdu.capabilities.enabled)) if pdu.capabilities else [],
        "passed_over": pdu.passed_over,
    }
    assert shown == {key: fields[key] for key in shown}
    assert parse_lldpdu(serialize_lldpdu(pdu)) == pdu
