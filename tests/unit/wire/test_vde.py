"""The request of VDE clients: layouts by hand, and what is refused."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import pytest

from umlab.errors import (
    BadMagic,
    OversizeMessage,
    RemoteProtocolError,
    TruncatedMessage,
    UnsupportedType,
    UnsupportedVersion,
)
from umlab.wire.vde import (
    MAX_VDE_REQUEST,
    VdeRequest,
    parse_vde_request,
    serialize_vde_request,
)

VECTORS = Path(__file__).parents[2] / "vectors"
MAGIC = 0xFEEDFACE
PATH = b"/tmp/sw/.17844-00000".ljust(108, b"\0")
ADDRESS = struct.pack("=H", 1) + PATH


def v1(kind: int = 0, address: bytes = ADDRESS) -> bytes:
    return struct.pack("=II6s", MAGIC, kind, b"\x02\0\0\0\0\x01") + address


def v3(kind: int = 0, address: bytes = ADDRESS) -> bytes:
    return struct.pack("=III", MAGIC, 3, kind) + address


def test_request_of_libvdeplug_is_read_and_made_byte_for_byte() -> None:
    data = (VECTORS / "daemon_request_v3_vde.bin").read_bytes()
    fields = tomllib.loads((VECTORS / "daemon_request_v3_vde.toml").read_text())["fields"]
    request = parse_vde_request(data)
    expected = VdeRequest(3, bytes.fromhex(fields["path"]), None, bytes.fromhex(fields["behind"]))
    assert request == expected
    assert serialize_vde_request(request) == data
    assert request.description.startswith(b"vdeplug: user=root pid=")


@pytest.mark.parametrize("port_no", [1, 7, 255, 256, 65_535])
def test_port_is_in_the_upper_bits_of_the_type(port_no: int) -> None:
    assert parse_vde_request(v3(port_no << 8) + b"text").port_no == port_no


def test_v1_has_no_port_and_may_be_described() -> None:
    assert parse_vde_request(v1()) == VdeRequest(1, PATH)
    assert parse_vde_request(v1() + b"ab") == VdeRequest(1, PATH, None, b"ab")


@pytest.mark.parametrize("padding", [b"", b"\0\0", b"\x9c\x78"])
def test_padding_of_a_uml_kernel_is_no_description(padding: bytes) -> None:
    assert parse_vde_request(v3() + padding) == VdeRequest(3, PATH)


def test_abstract_name_is_kept_to_the_last_byte() -> None:
    name = b"\0\0\0\0".ljust(107, b"\x80") + b"k"
    assert parse_vde_request(v3(address=b"\x01\0" + name)).path == name


@pytest.mark.parametrize("whole", [v1(), v3()])
def test_request_that_is_cut_says_how_many_bytes_it_has(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(TruncatedMessage) as caught:
            parse_vde_request(whole[:length])
        assert caught.value.got == length
        assert caught.value.needed == (4 if length < 4 else 8 if length < 8 else len(whole))


@pytest.mark.parametrize("whole", [v1(), v3()])
def test_description_has_128_bytes_at_most(whole: bytes) -> None:
    assert parse_vde_request(whole + b"x" * 128).description == b"x" * 128
    with pytest.raises(OversizeMessage, match=f"the limit is {len(whole) + 128}"):
        parse_vde_request(whole + b"x" * 129)
    assert len(whole) + 128 <= MAX_VDE_REQUEST


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"GET / HTTP/1.1\r\n", BadMagic, "bad magic 0x20544547"),
        (bytes(120), BadMagic, "bad magic 0x00000000"),
        (struct.pack("=II", MAGIC, 2), UnsupportedVersion, "version 2 is"),
        (struct.pack("=II", MAGIC, 4), UnsupportedVersion, "version 4 is"),
        (struct.pack("=II", MAGIC, 0x300), UnsupportedVersion, "version 768 is"),
        (struct.pack("=II", MAGIC, 1), UnsupportedType, "bad request type 1"),
        (v3(1), UnsupportedType, "bad request type 1"),
        (v3(5 << 8 | 1), UnsupportedType, "bad request type 1"),
        (v3(0xFF), UnsupportedType, "bad request type 255"),
        (v3(65_536 << 8), RemoteProtocolError, "port 65536 is out of range"),
        (v3(0xFFFFFF00), RemoteProtocolError, "port 16777215 is out of range"),
        (v3(address=b"\x02\0" + PATH), RemoteProtocolError, "family 2"),
        (v3(address=b"\x01\0" + bytes(108)), RemoteProtocolError, "without a name"),
    ],
)
def test_request_that_is_none_says_why(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_vde_request(data)
