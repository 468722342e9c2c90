"""The management console protocol, version 2: requests, reply fragments and notifications.

One datagram is one message, in the byte order of the machine, which guest and client share.  The
smallest program of umlab loads this module, so it is written without dataclasses and enums.

Source: Linux arch/um/drivers/mconsole.h and mconsole_user.c; uml_watchdog of uml-utilities.
"""

from __future__ import annotations

import struct

from umlab.errors import BadMagic, LocalProtocolError, OversizeMessage, TruncatedMessage, UnsupportedVersion

__all__ = [
    "HANG",
    "MAX_COMMAND",
    "MAX_FRAGMENT",
    "MAX_NOTIFICATION",
    "PANIC",
    "SOCKET",
    "USER",
    "Notification",
    "ReplyFragment",
    "parse_notification",
    "parse_reply",
    "parse_request",
    "serialize_notification",
    "serialize_reply",
    "serialize_request",
]

MAGIC = 0xCAFEBABE
VERSION = 2

MAX_COMMAND = 511
"""Bytes of a request's text; the guest's buffer of 512 keeps one for its own NUL."""
MAX_FRAGMENT = 511
"""Bytes of one reply fragment's text, without its NUL."""
MAX_NOTIFICATION = 512
"""Bytes of a notification's data."""

SOCKET = 0
"""Notification: the console is up; the data is its socket's path."""
PANIC = 1
"""Notification: the kernel panicked; the data is its message."""
HANG = 2
"""Notification: the hardware watchdog's time is over; no data."""
USER = 3
"""Notification: a program of the guest wrote the data to ``/proc/mconsole``."""

_REQUEST = struct.Struct("=III")
_REPLY = struct.Struct("=iii")
_NOTIFICATION = struct.Struct("=IIii")
_WATCHDOG = struct.Struct("=Qiii4x")

_TEXT_REPLY = b"ERR "


class ReplyFragment:
    """One datagram of an answer.

    Attributes:
        err: 0 for success, 1 for an error without a number, or a negative errno.
        more: Whether another fragment follows.
        text: At most ``MAX_FRAGMENT`` bytes, without the NUL that ends them on the wire.
    """

    __slots__ = ("err", "more", "text")

    def __init__(self, err: int, more: bool, text: bytes) -> None:
        self.err = err
        self.more = more
        self.text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ReplyFragment):
            return NotImplemented
        return (self.err, self.more, self.text) == (other.err, other.more, other.text)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ReplyFragment(err={self.err!r}, more={self.more!r}, text={self.text!r})"


class Notification:
    """What a guest, or its watchdog, says without being asked.

    Attributes:
        kind: ``SOCKET``, ``PANIC``, ``HANG`` or ``USER``; a later kernel may send other numbers.
        data: At most ``MAX_NOTIFICATION`` bytes; one NUL at the end is taken off, except from
            ``USER``, whose bytes are the program's own.
    """

    __slots__ = ("data", "kind")

    def __init__(self, kind: int, data: bytes) -> None:
        self.kind = kind
        self.data = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Notification):
            return NotImplemented
        return (self.kind, self.data) == (other.kind, other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Notification(kind={self.kind!r}, data={self.data!r})"


def serialize_request(text: bytes) -> bytes:
    """Return the datagram that asks a guest to run one command.

    Layout: magic u32 = 0xcafebabe, version u32 = 2, length u32, then the text.  The guest adds the
    NUL itself; the C client pads with NULs to 524 bytes, which the guest does not need.

    Args:
        text: The command, up to ``MAX_COMMAND`` bytes.

    Raises:
        LocalProtocolError: The text is longer, or has a NUL, at which the guest would cut it.

    Source: ``struct mconsole_request``; vector mconsole_request_version.
    """
    if len(text) > MAX_COMMAND:
        raise LocalProtocolError(f"a console command has at most {MAX_COMMAND} bytes, not {len(text)}")
    if b"\0" in text:
        raise LocalProtocolError("a console command cannot contain a NUL byte")
    return _REQUEST.pack(MAGIC, VERSION, len(text)) + text


def parse_request(data: bytes) -> bytes:
    """Return the text of one request datagram, as a guest would read it.

    Args:
        data: The datagram; bytes after the text (the C client's padding) are ignored.

    Raises:
        TruncatedMessage: The datagram ends before the header or the text does.
        BadMagic: The first word differs.
        UnsupportedVersion: Any version but 2.
        OversizeMessage: The length is over ``MAX_COMMAND``.
    """
    if len(data) < _REQUEST.size:
        raise TruncatedMessage(_REQUEST.size, len(data))
    magic, version, length = _REQUEST.unpack_from(data)
    if magic != MAGIC:
        raise BadMagic(magic)
    if version != VERSION:
        raise UnsupportedVersion(version)
    if length > MAX_COMMAND:
        raise OversizeMessage(length, MAX_COMMAND)
    return _body(data, _REQUEST.size, length)


def serialize_reply(fragment: ReplyFragment) -> bytes:
    """Return the datagram of one reply fragment, as a guest sends it.

    Layout: err i32, more i32, length i32 (the text and one NUL), the text, NUL.

    Raises:
        LocalProtocolError: The text is longer than ``MAX_FRAGMENT``.

    Source: ``struct mconsole_reply``; vectors mconsole_reply_*.
    """
    if len(fragment.text) > MAX_FRAGMENT:
        raise LocalProtocolError(
            f"a reply fragment has at most {MAX_FRAGMENT} bytes, not {len(fragment.text)}"
        )
    return _REPLY.pack(fragment.err, fragment.more, len(fragment.text) + 1) + fragment.text + b"\0"


def parse_reply(data: bytes) -> ReplyFragment:
    """Decode one datagram of an answer.

    A guest that takes the request for one of a version 0 client answers with bare text, ``ERR`` and
    a reason; that becomes a last fragment with ``err`` 1.

    Args:
        data: The datagram; bytes after the text are ignored.

    Raises:
        TruncatedMessage: The datagram ends before the header or the text does.
        OversizeMessage: The length is negative or over ``MAX_FRAGMENT`` and its NUL.

    Source: ``struct mconsole_reply``; vectors mconsole_reply_*.
    """
    if data.startswith(_TEXT_REPLY):
        return ReplyFragment(1, False, data.removeprefix(_TEXT_REPLY).removesuffix(b"\0"))
    if len(data) < _REPLY.size:
        raise TruncatedMessage(_REPLY.size, len(data))
    err, more, length = _REPLY.unpack_from(data)
    if not 0 <= length <= MAX_FRAGMENT + 1:
        raise OversizeMessage(length & 0xFFFFFFFF, MAX_FRAGMENT + 1)
    return ReplyFragment(err, more != 0, _body(data, _REPLY.size, length).removesuffix(b"\0"))


def serialize_notification(notification: Notification) -> bytes:
    """Return a notification's datagram in the kernel's layout, 16 bytes of header and the data.

    Layout: magic u32 = 0xcafebabe, version u32 = 2, type i32, length i32, the data; all but ``USER``
    and ``HANG`` end with a NUL that the length counts.

    Raises:
        LocalProtocolError: The data is longer than ``MAX_NOTIFICATION``.

    Source: ``struct mconsole_notify``; vectors mconsole_notify_*.
    """
    data = notification.data + (b"\0" if notification.kind in (SOCKET, PANIC) else b"")
    if len(data) > MAX_NOTIFICATION:
        raise LocalProtocolError(f"a notification has at most {MAX_NOTIFICATION} bytes, not {len(data)}")
    return _NOTIFICATION.pack(MAGIC, VERSION, notification.kind, len(data)) + data


def parse_notification(data: bytes) -> Notification:
    """Decode one notification, of the kernel or of the watchdog program.

    The kernel's header has 16 bytes (see `serialize_notification`).  ``uml_watchdog`` on a 64-bit
    machine writes the magic as u64 instead, so that its version, type and length begin at 8, and
    sends 24 bytes, the last four of which are not initialised.  The four bytes after the magic tell
    them apart: they are the kernel's version, or the zero half of the watchdog's magic.

    Args:
        data: The datagram.

    Raises:
        TruncatedMessage: The datagram ends before the header or the data does.
        BadMagic: The first word differs.
        UnsupportedVersion: Any version but 2.
        OversizeMessage: The length is negative or over ``MAX_NOTIFICATION``.

    Source: ``struct mconsole_notify``; vectors mconsole_notify_*.
    """
    if len(data) < _NOTIFICATION.size:
        raise TruncatedMessage(_NOTIFICATION.size, len(data))
    magic, version, kind, length = _NOTIFICATION.unpack_from(data)
    size = _NOTIFICATION.size
    if magic != MAGIC:
        raise BadMagic(magic)
    if version == 0 and len(data) >= _WATCHDOG.size:
        _, version, kind, length = _WATCHDOG.unpack_from(data)
        size = _WATCHDOG.size
    if version != VERSION:
        raise UnsupportedVersion(version & 0xFFFFFFFF)
    if not 0 <= length <= MAX_NOTIFICATION:
        raise OversizeMessage(length & 0xFFFFFFFF, MAX_NOTIFICATION)
    body = _body(data, size, length)
    return Notification(kind, body if kind == USER else body.removesuffix(b"\0"))


def _body(data: bytes, offset: int, length: int) -> bytes:
    if len(data) < offset + length:
        raise TruncatedMessage(offset + length, len(data))
    return data[offset : offset + length]
