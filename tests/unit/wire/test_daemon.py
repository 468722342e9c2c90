"""The attach protocol's codec against the bytes of the real kernel and switches, and hostile ones."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest

from umlab.errors import (
    BadMagic,
    OversizeMessage,
    RemoteProtocolError,
    TruncatedMessage,
    UnsupportedType,
    UnsupportedVersion,
)
from umlab.wire.daemon import (
    MAGIC,
    MAX_ATTACH_REQUEST,
    PADDED_V3,
    AttachRequest,
    parse_attach_reply,
    parse_attach_request,
    serialize_attach_reply,
    serialize_attach_request,
)

VECTORS = Path(__file__).parents[2] / "vectors"
NAME = b"\0\0\0\0\x9c\x78\0\0".ljust(107, b"\x20") + b"k"
#: Version to the bytes of its request, without what may follow it.
SIZES = {0: 120, 1: 124, 3: 122}


def vectors(kind: str) -> list[str]:
    names = sorted(path.stem for path in VECTORS.glob(f"daemon_{kind}_*.bin"))
    assert names, f"no vectors of kind {kind}"
    return names


def load(name: str) -> tuple[bytes, dict[str, Any]]:
    description = tomllib.loads((VECTORS / f"{name}.toml").read_text())
    for key in description["fields"].keys() & {"path", "mac", "behind"}:
        description["fields"][key] = bytes.fromhex(description["fields"][key])
    return (VECTORS / f"{name}.bin").read_bytes(), description


def request(version: int, path: bytes = NAME) -> bytes:
    mac = None if version == 3 else bytes(range(6))
    return serialize_attach_request(AttachRequest(version, path, mac))


SERVED = [name for name in vectors("request") if not name.endswith("_v2")]


@pytest.mark.parametrize("name", SERVED)
def test_request_is_read_and_made_as_it_was_sent(name: str) -> None:
    data, description = load(name)
    fields = description["fields"]
    parsed = parse_attach_request(data, v0=True)
    assert parsed == AttachRequest(fields["version"], fields["path"], fields.get("mac"))
    end = len(data) - len(fields["behind"])
    assert serialize_attach_request(parsed)[:end] == data[:end]


def test_request_of_the_kernel_is_made_byte_for_byte() -> None:
    data, _ = load("daemon_request_v3_kernel")
    assert len(data) == PADDED_V3
    assert serialize_attach_request(parse_attach_request(data))[:122] == data[:122]


@pytest.mark.parametrize("version", [0, 1])
def test_request_made_by_hand_was_served_by_the_original(version: int) -> None:
    _, description = load(f"daemon_request_v{version}")
    assert description["uml_switch"] == ["New connection", "Disconnect"]
    assert description["uml_switch_reply_size"] == (0 if version == 0 else 110)


def test_version_2_is_refused_as_the_original_refuses_it() -> None:
    data, description = load("daemon_request_v2")
    assert description["uml_switch"][0] == "Version 2 is not supported"
    assert description["uml_switch_reply_size"] == 0
    with pytest.raises(UnsupportedVersion, match="version 2 is not supported"):
        parse_attach_request(data)


@pytest.mark.parametrize("name", vectors("reply"))
def test_reply_is_read_and_made_as_it_was_sent(name: str) -> None:
    data, description = load(name)
    assert parse_attach_reply(data) == description["fields"]["path"]
    assert serialize_attach_reply(parse_attach_reply(data)) == data


def test_v0_is_a_bad_magic_where_it_is_not_served() -> None:
    data, _ = load("daemon_request_v0")
    with pytest.raises(BadMagic, match="bad magic 0x00000000"):
        parse_attach_request(data)


@pytest.mark.parametrize("version", SIZES)
def test_request_that_is_cut_says_how_many_bytes_it_has(version: int) -> None:
    data = request(version)
    for length in range(SIZES[version]):
        with pytest.raises(TruncatedMessage) as caught:
            parse_attach_request(data[:length], v0=True)
        assert caught.value.got == length
        known = 4 if length < 4 else 8 if length < 8 and version else SIZES[version]
        assert caught.value.needed == known
    assert parse_attach_request(data[: SIZES[version]], v0=True).version == version


@pytest.mark.parametrize("behind", [b"", b"\xaa\xbb", b"name user=root pid=1", b"x" * 128])
def test_v3_may_have_padding_or_a_text_behind_it(behind: bytes) -> None:
    assert parse_attach_request(request(3)[:122] + behind) == AttachRequest(3, NAME)


@pytest.mark.parametrize(("version", "limit"), [(0, 120), (1, 124), (3, MAX_ATTACH_REQUEST)])
def test_request_with_one_byte_too_many_is_refused(version: int, limit: int) -> None:
    data = request(version).ljust(limit, b"x")
    parse_attach_request(data, v0=True)
    with pytest.raises(OversizeMessage, match=f"of {limit + 1} bytes, the limit is {limit}"):
        parse_attach_request(data + b"x", v0=True)


@pytest.mark.parametrize("version", [2, 4, 99, 0xFFFFFFFF])
def test_other_versions_are_refused_at_their_eighth_byte(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"version {version} is"):
        parse_attach_request(struct.pack("=II", MAGIC, version), v0=True)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("=II", MAGIC, 1),
        struct.pack("=I", 1) + request(0)[4:],
        struct.pack("=III", MAGIC, 3, 2) + request(3)[12:],
        struct.pack("=III", MAGIC, 3, 0x101) + request(3)[12:],
    ],
)
def test_other_types_are_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedType):
        parse_attach_request(data, v0=True)


def test_dump_is_a_v3_request_of_type_1() -> None:
    data = struct.pack("=III", MAGIC, 3, 1) + b"\x01\x00" + NAME + b"\xaa\xbb"
    dump = AttachRequest(3, NAME, dump=True)
    assert parse_attach_request(data) == dump
    assert serialize_attach_request(dump) == data[:122] + b"\0\0"


@pytest.mark.parametrize("version", SIZES)
def test_request_without_a_unix_name_is_refused(version: int) -> None:
    with pytest.raises(RemoteProtocolError, match="without a name"):
        parse_attach_request(request(version, bytes(108)), v0=True)
    at = SIZES[version] - 110
    other = request(version)[:at] + b"\x02\x00" + request(version)[at + 2 :]
    with pytest.raises(RemoteProtocolError, match="family 2"):
        parse_attach_request(other, v0=True)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedMessage),
        (serialize_attach_reply(NAME)[:-1], TruncatedMessage),
        (serialize_attach_reply(NAME) + b"\0", OversizeMessage),
        (serialize_attach_reply(bytes(108)), RemoteProtocolError),
        (b"\x02\x00" + NAME, RemoteProtocolError),
    ],
)
def test_reply_that_is_broken_raises(data: bytes, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error):
        parse_attach_reply(data)
