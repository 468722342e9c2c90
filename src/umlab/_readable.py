"""Wait for a descriptor in an event loop."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Wait until a descriptor that can be waited for is readable; nobody watches it afterwards.

    Args:
        fd: Such as a pipe, a socket, or a pidfd, which is readable once its process has ended.

    Raises:
        PermissionError: It is a file, which is always readable.
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
