"""Coroutines that run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def until_ended(
    wanted: Iterable[Coroutine[Any, Any, None]], beside: Iterable[Coroutine[Any, Any, None]] = ()
) -> None:
    """Run coroutines until some of them have all ended, or one of all fails; the others are ended then.

    Args:
        wanted: Those that are waited for.
        beside: Those that only go on meanwhile.

    Raises:
        Exception: What the first one that fails has raised.
    """
    essential = {asyncio.ensure_future(each) for each in wanted}
    waiting = everything = essential | {asyncio.ensure_future(each) for each in beside}
    try:
        while essential & waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
    finally:
        for each in everything:
            each.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
