"""One line of a session."""

from __future__ import annotations

import asyncio
import socket

from support.deadline import scaled, wait_until_async
from umlab.guest.inside.stream import Stream


async def test_reader_has_what_was_taken_from_the_line_meanwhile() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = Stream(ours)
        reading = asyncio.create_task(stream.read())
        await wait_until_async(lambda: stream._waking, 10, "the reader waits")
        theirs.send(b"late")
        assert stream.is_settled()
        assert await asyncio.wait_for(reading, scaled(10)) == b"late"
