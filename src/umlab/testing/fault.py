"""What can go wrong with a guest's console: each fault turns a good answer into what is sent instead.

A fault is a function of the request's text and of the datagrams with which the kernel would answer.  It
yields steps: a datagram to send, a number of seconds to wait, or ``DEATH``.  The guest does nothing else
until the last step, as a kernel, which serves one request at a time.  A test's own function is as good as
one of these::

    guest.set_fault(lambda request, answer: [0.1, *answer, *answer])
"""

from __future__ import annotations

import enum
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from umlab.wire.mconsole import MAX_FRAGMENT, ReplyFragment, parse_reply, serialize_reply

__all__ = [
    "DEATH",
    "HOSTILE",
    "Fault",
    "Step",
    "answer",
    "dies",
    "endless",
    "escapes",
    "garbage",
    "late",
    "silent",
    "slow",
    "wrong_length",
]


class _Death(enum.Enum):
    DEATH = enum.auto()


DEATH: Final = _Death.DEATH
"""The step at which the guest dies: it answers nothing more and leaves its socket behind."""

Step = bytes | float | Literal[_Death.DEATH]
Fault = Callable[[bytes, list[bytes]], Iterable[Step]]

HOSTILE = b"\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b5n\xc2\x9b6n\r\x08"
"""A title, an erased screen, a colour, two questions to the terminal (as one byte and as UTF-8), and more."""


def answer(text: bytes, err: int = 0) -> list[bytes]:
    """Return an answer's datagrams as the kernel cuts them, its error number on the first one only.

    Args:
        text: The whole answer.
        err: 0 for success, 1, or a negative errno.
    """
    pieces = [text[at : at + MAX_FRAGMENT] for at in range(0, len(text), MAX_FRAGMENT)] or [b""]
    last = len(pieces) - 1
    return [
        serialize_reply(ReplyFragment(0 if at else err, at < last, piece)) for at, piece in enumerate(pieces)
    ]


def silent(request: bytes, answer: list[bytes]) -> list[Step]:
    """Run the command and say nothing."""
    return []


def dies(request: bytes, answer: list[bytes]) -> list[Step]:
    """Take the request and die of it, leaving the socket behind."""
    return [DEATH]


def late(seconds: float) -> Fault:
    """Return the fault of a guest that answers after a span, and serves nobody before that."""
    return lambda _, answer: [seconds, *answer]


def slow(seconds: float) -> Fault:
    """Return the fault of a guest that takes a span for each datagram."""

    def fault(request: bytes, answer: list[bytes]) -> Iterator[Step]:
        for datagram in answer:
            yield seconds
            yield datagram

    return fault


def endless(request: bytes, answer: list[bytes]) -> Iterator[Step]:
    """Send fragments for ever, each of which promises another one."""
    fragment = serialize_reply(ReplyFragment(0, True, b"and so on\n" * 51))
    while True:
        yield fragment


def garbage(seed: int = 0, size: int = 64) -> Fault:
    """Return the fault of a guest that answers with random bytes.

    Args:
        seed: Names the bytes; the same ones for each request.
        size: Bytes of the one datagram.
    """
    noise = random.Random(seed).randbytes(size)
    return lambda _request, _answer: [noise]


def wrong_length(length: int) -> Fault:
    """Return the fault of a guest that gives each fragment a length of its own choice.

    Args:
        length: As the header's i32, without regard to the text.
    """

    def fault(request: bytes, answer: list[bytes]) -> list[Step]:
        return [datagram[:8] + struct.pack("=i", length) + datagram[12:] for datagram in answer]

    return fault


def escapes(request: bytes, answer: list[bytes]) -> Iterator[Step]:
    """Put what a terminal would obey before and after each fragment's text."""
    for datagram in answer:
        fragment = parse_reply(datagram)
        text = fragment.text[: MAX_FRAGMENT - 2 * len(HOSTILE)]
        yield serialize_reply(ReplyFragment(fragment.err, fragment.more, HOSTILE + text + HOSTILE))
