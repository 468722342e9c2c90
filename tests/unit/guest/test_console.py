"""The console's tail: bounded, escaped, searchable, and its log file."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from support.deadline import scaled
from umlab.guest import console
from umlab.guest.console import TAIL_SIZE, Console, escape


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"one\r\ntwo\n", "one\ntwo\n"),
        (b"\ttab", "\ttab"),
        (b"\x1b]0;evil\x07", "\\x1b]0;evil\\x07"),
        (b"over\rwrite\x08", "over\\rwrite\\x08"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("größe".encode(), "größe"),
        ("\u202eevil".encode(), "\\u202eevil"),
        (b"\xc2\x9b31m", "\\x9b31m"),
    ],
)
def test_output_is_escaped(data: bytes, text: str) -> None:
    assert escape(data) == text


def test_tail_keeps_the_last_64_kib() -> None:
    kept = Console()
    for number in range(40):
        kept.feed(bytes([number]) * 4096)
    assert len(kept.tail) == TAIL_SIZE
    assert kept.tail[-1] == 39
    assert kept.tail[0] == 24


def test_log_gets_everything_until_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LOG_LIMIT", 10)
    log = io.BytesIO()
    kept = Console(log)
    for _ in range(5):
        kept.feed(b"abcd")
    assert log.getvalue() == b"abcdabcdab"
    assert kept.tail == b"abcd" * 5


def test_log_that_fails_ends_and_the_tail_goes_on() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    kept = Console(Full())
    kept.feed(b"one")
    kept.feed(b"two")
    assert kept.tail == b"onetwo"


async def test_marker_is_found_across_pieces() -> None:
    kept = Console()
    waiting = asyncio.create_task(kept.wait_for(b"is down"))
    await asyncio.sleep(0)
    kept.feed(b"guest is d")
    await asyncio.sleep(0)
    assert not waiting.done()
    kept.feed(b"own\n")
    await asyncio.wait_for(waiting, scaled(5))


async def test_marker_of_the_past_does_not_count() -> None:
    kept = Console()
    kept.feed(b"is down")
    waiting = asyncio.create_task(kept.wait_for(b"is down"))
    await asyncio.sleep(0)
    kept.feed(b"other")
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    kept.feed(b"is down")


def test_log_that_takes_a_part_ends_there_and_the_tail_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """As a nearly full disk does: what came later would not be where it belongs."""

    class NearlyFull(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(data[:2])

    log = NearlyFull()
    kept = Console(log)
    kept.feed(b"one")
    kept.feed(b"two")
    assert log.getvalue() == b"on"
    assert (kept.tail, kept.total) == (b"onetwo", 6)
    assert "the console log ends: [Errno 28] No space left on device" in caplog.text


@pytest.mark.parametrize(("before", "logged"), [(6, b"abcd"), (8, b"ab"), (10, b""), (99, b"")])
def test_log_goes_on_where_an_earlier_process_was(
    monkeypatch: pytest.MonkeyPatch, before: int, logged: bytes
) -> None:
    monkeypatch.setattr(console, "LOG_LIMIT", 10)
    log = io.BytesIO()
    kept = Console(log, earlier=b"x" * (TAIL_SIZE + 5), total=before)
    kept.feed(b"abcd")
    assert log.getvalue() == logged
    assert kept.total == before + 4
    assert kept.tail == b"x" * (TAIL_SIZE - 4) + b"abcd"


async def test_growth_is_waited_for() -> None:
    kept = Console(total=10)
    await kept.grow(9)
    waiting = [asyncio.ensure_future(kept.grow(total)) for total in (10, 12)]
    await asyncio.sleep(0)
    kept.feed(b"ab")
    await asyncio.wait_for(waiting[0], scaled(10))
    await asyncio.sleep(0)
    assert not waiting[1].done()
    kept.feed(b"c")
    await asyncio.wait_for(waiting[1], scaled(10))
