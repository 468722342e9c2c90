"""The blocking and the asyncio client, called in the same way by the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

from umlab.client import AsyncClient, Client


class Shell:
    """One of the two clients, called in the same way.

    Args:
        kind: ``sync`` or ``aio``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def ask(self, lab: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method and return its result."""
        if self.kind == "sync":
            with Client(lab) as client:
                return getattr(client, method)(*args, **kwargs)

        async def ask() -> Any:
            async with AsyncClient(lab) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(ask())

    def take(
        self, count: int, lab: str, method: str, *args: Any, into: list[Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Return the first items of an iterator, all of them where it ends sooner.

        Args:
            count: How many.
            lab: The lab.
            method: What returns the iterator.
            args: Its arguments.
            into: Where each item goes at once; a new list unless given.
            kwargs: More arguments.
        """
        taken = [] if into is None else into
        if self.kind == "sync":
            with Client(lab) as client:
                _take(count, getattr(client, method)(*args, **kwargs), taken)
            return taken

        async def take() -> None:
            async with AsyncClient(lab) as client:
                await _take_async(count, getattr(client, method)(*args, **kwargs), taken)

        asyncio.run(take())
        return taken


def _take(count: int, items: Generator[Any, None, None], taken: list[Any]) -> None:
    for item in items:
        taken.append(item)
        if len(taken) == count:
            items.close()


async def _take_async(count: int, items: AsyncGenerator[Any, None], taken: list[Any]) -> None:
    async for item in items:
        taken.append(item)
        if len(taken) == count:
            break
    await items.aclose()
