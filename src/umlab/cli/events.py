"""``umlab events``: what happens in running labs, as it happens."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from umlab.cli.exit_status import EXIT_NOT_RUNNING
from umlab.cli.hook import event_kinds, event_names
from umlab.cli.option import AsJson, LabNames
from umlab.cli.output import Output, event_text

if TYPE_CHECKING:
    from umlab.client.event import Event
    from umlab.errors import LabError

EPILOG = """
Examples:

  umlab events

  umlab events lan ring --from oldest

  umlab events lan --json --no-follow --from oldest

  umlab events --on panic --on hang --guest 'web*'
"""


def events(
    names: LabNames = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Go on with what happens.")
    ] = True,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="now|oldest",
            help="Where to begin: now, or with the oldest event that is still kept.",
            autocompletion=lambda incomplete: [w for w in ("now", "oldest") if w.startswith(incomplete)],
        ),
    ] = "now",
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            metavar="EVENT",
            help="Only these: panic, hang and so on as for hooks, or a kind such as port_attached; "
            "may be repeated.",
            autocompletion=event_names,
            show_default=False,
        ),
    ] = None,
    guest: Annotated[
        str | None,
        typer.Option(
            "--guest", metavar="PATTERN", help="Only of these guests, such as 'web*'.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the events of labs until interrupted, or until their daemons are gone for 10 seconds."""
    from umlab.cli.interrupt import run_interruptible
    from umlab.client import labs
    from umlab.daemon.event_kind import EVENT_KINDS

    begin: Literal["now", "oldest"] = "oldest" if start == "oldest" else "now"
    if begin != start:
        raise typer.BadParameter(f"--from {start}: write now or oldest")
    wanted = _Wanted(frozenset(event_kinds(on or (), EVENT_KINDS)), guest)
    chosen = list(dict.fromkeys(names or labs()))
    if not chosen:
        print("umlab: no lab runs; start one with: umlab switch run NAME --background", file=sys.stderr)
        raise typer.Exit(EXIT_NOT_RUNNING)
    run_interruptible(_print_events(chosen, begin, follow, wanted, Output(as_json=as_json)))


@dataclass(frozen=True)
class _Wanted:
    """What is printed: events of these kinds, and of guests of this pattern, where there are any."""

    kinds: frozenset[str]
    guests: str | None

    def has(self, event: Event) -> bool:
        if self.kinds and event.kind not in self.kinds:
            return False
        return self.guests is None or fnmatchcase(str(event.data.get("guest", "")), self.guests)


async def _print_events(
    names: list[str], start: Literal["now", "oldest"], follow: bool, wanted: _Wanted, output: Output
) -> None:
    import asyncio

    tasks = [asyncio.ensure_future(_print_lab(name, start, follow, wanted, output)) for name in names]
    try:
        errors = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if any(errors):
        raise typer.Exit(EXIT_NOT_RUNNING)


async def _print_lab(
    name: str, start: Literal["now", "oldest"], follow: bool, wanted: _Wanted, output: Output
) -> LabError | None:
    """Print the events of one lab; the end of one is told and is not the end of the others."""
    from contextlib import aclosing

    from umlab.client.aio import AsyncClient
    from umlab.errors import ApiTimeout, ConnectionLost, LabNotRunning

    try:
        async with AsyncClient(name) as client, aclosing(client.events(start, follow=follow)) as stream:
            async for event in stream:
                if wanted.has(event):
                    output.record({"lab": name, "event": event.kind, **event.data}, _line(name, event))
    except (LabNotRunning, ConnectionLost, ApiTimeout) as error:
        # Said at once, because the others may go on for long.
        print(f"umlab: {error}", file=sys.stderr)
        return error
    return None


def _line(lab: str, event: Event) -> str:
    from datetime import datetime

    facts = {key: value for key, value in event.data.items() if key not in ("event", "at", "at_ns")}
    at = event.data.get("at")
    time = datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3] if isinstance(at, float) else " " * 12
    return f"{time}  {lab}  {event_text(event.kind, facts)}"
