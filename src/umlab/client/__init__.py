"""The public client of lab daemons: what everybody who manages a running lab goes through.

::

    from umlab.client import Client, labs

    for name in labs():
        with Client(name) as lab:
            print(name, [guest.name for guest in lab.guests()])

`AsyncClient` has the same methods to be awaited.  What they return is in `umlab.daemon.view`, what they
raise in `umlab.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umlab.client.aio import AsyncClient
    from umlab.client.event import Event
    from umlab.client.survey import labs
    from umlab.client.sync import Client

__all__ = ["AsyncClient", "Client", "Event", "labs"]

_MODULES = {"AsyncClient": "aio", "Client": "sync", "Event": "event", "labs": "survey"}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: a program that blocks does not pay for asyncio."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
