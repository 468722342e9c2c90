"""Both directions of a WebSocket at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import WebSocketDisconnect


async def until_one_ends(*directions: Coroutine[Any, Any, None]) -> None:
    """Run them side by side until one ends, end the others, and raise what any has raised.

    That the client has left is no error.
    """
    tasks = [asyncio.ensure_future(each) for each in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result
