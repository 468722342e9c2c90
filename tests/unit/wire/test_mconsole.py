"""The console's codec against datagrams of the real kernel and programs, and against hostile ones."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import pytest

from umlab.errors import (
    BadMagic,
    LocalProtocolError,
    OversizeMessage,
    RemoteProtocolError,
    TruncatedMessage,
    UnsupportedVersion,
)
from umlab.wire import mconsole
from umlab.wire.mconsole import (
    HANG,
    PANIC,
    SOCKET,
    USER,
    Notification,
    ReplyFragment,
    parse_notification,
    parse_reply,
    parse_request,
    serialize_notification,
    serialize_reply,
    serialize_request,
)

VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(kind: str) -> list[str]:
    names = sorted(path.stem for path in VECTORS.glob(f"mconsole_{kind}_*.bin"))
    assert names, f"no vectors of kind {kind}"
    return names


def load(name: str) -> tuple[bytes, dict[str, object]]:
    fields = tomllib.loads((VECTORS / f"{name}.toml").read_text())["fields"]
    return (VECTORS / f"{name}.bin").read_bytes(), {
        key: value.encode() if isinstance(value, str) else value for key, value in fields.items()
    }


@pytest.mark.parametrize("name", vectors("request"))
def test_request_of_the_c_client_is_read_and_made(name: str) -> None:
    data, fields = load(name)
    text = fields["text"]
    assert isinstance(text, bytes)
    assert parse_request(data) == text
    assert serialize_request(text) == data[: 12 + len(text)]


@pytest.mark.parametrize("name", vectors("reply"))
def test_reply_of_the_kernel_is_read(name: str) -> None:
    data, fields = load(name)
    fragment = parse_reply(data)
    assert {"err": fragment.err, "more": fragment.more, "text": fragment.text} == fields


@pytest.mark.parametrize("name", [name for name in vectors("reply") if not name.endswith("version0")])
def test_reply_is_made_as_the_kernel_makes_it(name: str) -> None:
    data, _ = load(name)
    assert serialize_reply(parse_reply(data)) == data


@pytest.mark.parametrize("name", vectors("notify"))
def test_notification_of_kernel_and_watchdog_is_read(name: str) -> None:
    data, fields = load(name)
    notification = parse_notification(data)
    assert {"kind": notification.kind, "data": notification.data} == fields


@pytest.mark.parametrize("name", [name for name in vectors("notify") if not name.endswith("hang")])
def test_notification_is_made_as_the_kernel_makes_it(name: str) -> None:
    data, _ = load(name)
    assert serialize_notification(parse_notification(data)) == data


def test_every_kind_of_notification_has_a_vector() -> None:
    kinds = {parse_notification(load(name)[0]).kind for name in vectors("notify")}
    assert kinds == {SOCKET, PANIC, HANG, USER}


def test_request_of_511_bytes_is_the_longest() -> None:
    assert parse_request(serialize_request(b"x" * 511)) == b"x" * 511
    with pytest.raises(LocalProtocolError, match="at most 511 bytes, not 512"):
        serialize_request(b"x" * 512)


def test_request_with_nul_is_refused_because_the_guest_would_cut_it() -> None:
    with pytest.raises(LocalProtocolError, match="NUL"):
        serialize_request(b"log a\0b")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedMessage),
        (struct.pack("=II", mconsole.MAGIC, 2), TruncatedMessage),
        (struct.pack("=III", 0, 2, 0), BadMagic),
        (struct.pack("=III", mconsole.MAGIC, 1, 0), UnsupportedVersion),
        (struct.pack("=III", mconsole.MAGIC, 2, 512), OversizeMessage),
        (struct.pack("=III", mconsole.MAGIC, 2, 0xFFFFFFFF), OversizeMessage),
        (struct.pack("=III", mconsole.MAGIC, 2, 3) + b"go", TruncatedMessage),
    ],
)
def test_request_that_is_broken_raises(data: bytes, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error):
        parse_request(data)


def test_reply_loses_exactly_one_nul() -> None:
    assert parse_reply(struct.pack("=iii", 0, 0, 3) + b"a\0\0").text == b"a\0"
    assert parse_reply(struct.pack("=iii", 0, 0, 2) + b"ab").text == b"ab"
    assert parse_reply(struct.pack("=iii", 0, 0, 0)).text == b""


def test_reply_ignores_bytes_after_its_text() -> None:
    assert parse_reply(struct.pack("=iii", -2, 1, 2) + b"a\0rest") == ReplyFragment(-2, True, b"a")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedMessage),
        (b"OK ", TruncatedMessage),
        (struct.pack("=ii", 0, 0), TruncatedMessage),
        (struct.pack("=iii", 0, 0, 2) + b"a", TruncatedMessage),
        (struct.pack("=iii", 0, 0, -1), OversizeMessage),
        (struct.pack("=iii", 0, 0, 513) + bytes(513), OversizeMessage),
    ],
)
def test_reply_that_is_broken_raises(data: bytes, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error):
        parse_reply(data)


def test_reply_of_512_bytes_cannot_be_made() -> None:
    assert len(serialize_reply(ReplyFragment(0, False, b"x" * 511))) == 524
    with pytest.raises(LocalProtocolError, match="at most 511 bytes, not 512"):
        serialize_reply(ReplyFragment(0, False, b"x" * 512))


def test_truncated_message_says_how_much_is_missing() -> None:
    with pytest.raises(TruncatedMessage) as caught:
        parse_reply(struct.pack("=iii", 0, 0, 10) + b"abc")
    assert (caught.value.needed, caught.value.got) == (22, 15)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedMessage),
        (struct.pack("=IIi", mconsole.MAGIC, 2, 0), TruncatedMessage),
        (struct.pack("=IIii", 1, 2, 0, 0), BadMagic),
        (struct.pack("=IIii", mconsole.MAGIC, 3, 0, 0), UnsupportedVersion),
        (struct.pack("=IIii", mconsole.MAGIC, 0, 2, 2), UnsupportedVersion),
        (struct.pack("=Qiii4x", mconsole.MAGIC, -1, 2, 0), UnsupportedVersion),
        (struct.pack("=IIii", mconsole.MAGIC, 2, 0, -1), OversizeMessage),
        (struct.pack("=IIii", mconsole.MAGIC, 2, 0, 513) + bytes(513), OversizeMessage),
        (struct.pack("=IIii", mconsole.MAGIC, 2, 0, 4) + b"abc", TruncatedMessage),
        (struct.pack("=Qiii4x", mconsole.MAGIC, 2, 2, 1), TruncatedMessage),
    ],
)
def test_notification_that_is_broken_raises(data: bytes, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error):
        parse_notification(data)


def test_notification_of_a_program_keeps_its_nul() -> None:
    data = serialize_notification(Notification(USER, b"a\0"))
    assert parse_notification(data) == Notification(USER, b"a\0")


def test_notification_of_an_unknown_kind_is_passed_on() -> None:
    assert parse_notification(struct.pack("=IIii", mconsole.MAGIC, 2, 9, 1) + b"x") == Notification(9, b"x")


def test_notification_counts_its_nul_in_the_limit() -> None:
    assert len(serialize_notification(Notification(USER, b"x" * 512))) == 528
    with pytest.raises(LocalProtocolError, match="at most 512 bytes, not 513"):
        serialize_notification(Notification(PANIC, b"x" * 512))


def test_values_compare_by_content_and_show_it() -> None:
    fragment = ReplyFragment(-19, False, b"no")
    assert repr(fragment) == "ReplyFragment(err=-19, more=False, text=b'no')"
    assert fragment != ReplyFragment(-19, True, b"no")
    assert fragment != b"no"
    notification = Notification(HANG, b"")
    assert repr(notification) == "Notification(kind=2, data=b'')"
    assert notification != Notification(PANIC, b"")
    assert notification != b""
