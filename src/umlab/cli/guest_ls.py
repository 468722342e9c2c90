"""``umlab guest ls``: all guests of this machine."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli.option import AsJson, UmlDirs, Watch
from umlab.cli.page import Page, Table, present, span

if TYPE_CHECKING:
    from umlab.client.census import Census, GuestStatus
    from umlab.client.nic import GuestNic
    from umlab.mconsole.discover import Found

EPILOG = """
Examples:

  umlab guest ls

  umlab guest ls --watch

  umlab guest ls --uml-dir /srv/uml

  umlab guest ls --prune
"""

HEADINGS = ("GUEST", "LAB", "STATE", " PID", "KERNEL", " UP", " LOAD", " MEMORY", "NICS")
SPARE = ("KERNEL", "NICS", " LOAD", " MEMORY", " UP", " PID")
#: Where there is nothing to know, and where it is not known.
_NONE, _UNKNOWN = "-", "?"
#: States in which a kernel may be running.
_ALIVE = frozenset(
    {
        *("booting", "ready", "answers", "stopped", "silent", "garbled", "listening"),
        *("no socket", "another user's", "no access"),
    }
)
#: Whether a kernel in such a state answers at all.
_ANSWERS = {"answers": True, "stopped": True, "garbled": True, "silent": False}


def ls(
    as_json: AsJson = False,
    watch: Watch = None,
    uml_dir: UmlDirs = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove the run directories of guests that are surely dead."),
    ] = False,
) -> None:
    """List all guests of this machine, those of labs and those that were started otherwise.

    Of labs also ended ones until they are removed. A guest outside labs "answers", is "stopped", "silent",
    "garbled" or "dead", or its directory has "no socket", or "no console" in its place, is "another user's",
    or gives "no access".
    NICs are those of the command line, those that umlab has plugged in, and ports that the guest is behind.
    """
    if prune and watch is not None:
        raise typer.BadParameter("--prune and --watch exclude each other")
    present(lambda: _list(tuple(uml_dir or ()), prune=prune), as_json=as_json, watch=watch)


def _list(uml_dirs: Sequence[str], *, prune: bool) -> Page:
    import asyncio

    from umlab.client.census import take_census

    return _page(asyncio.run(take_census(uml_dirs)), prune=prune)


def _page(census: Census, *, prune: bool) -> Page:
    records = [_record(guest) for guest in census.guests]
    names = Counter(guest.name for guest in census.guests if guest.lab is None)
    rows = [
        # Of two outside labs that have one name, each by what `umlab console` takes for it.
        _row(
            guest, os.path.dirname(guest.path) if guest.lab is None and names[guest.name] > 1 else guest.name
        )
        for guest in census.guests
    ]
    lines = []
    for guest, record in zip(census.guests, records, strict=True):
        # What is in a lab's directory is its daemon's, or goes with the lab.
        if prune and guest.found is not None and guest.state == "dead" and guest.lab is None:
            record["kept"] = reason = _prune(guest.found)
            directory = _text(os.path.dirname(guest.path))
            lines.append(f"{directory} removed" if reason is None else f"{directory} stays: {_text(reason)}")
    for lab in census.hung:
        records.append({"lab": lab, "state": "hung"})
        lines.append(f"the daemon of {_text(lab)} does not answer")
    for lab in map(_text, census.kept):
        records.append({"lab": lab, "state": "kept"})
        lines.append(
            f"the daemon of {lab} has died; to manage its guests: umlab switch run {lab} --background"
        )
    parts: list[str | Table] = [Table(HEADINGS, rows, SPARE)] if rows else []
    return Page(records, [*parts, *lines] or ["no guest runs"])


def _prune(found: Found) -> str | None:
    from umlab.mconsole.prune import prune

    return prune(found)


def _record(guest: GuestStatus) -> dict[str, Any]:
    view = guest.view
    record: dict[str, Any] = {"lab": guest.lab}
    if view is not None:
        record |= dataclasses.asdict(view)
    else:
        record |= {"name": guest.name, "state": guest.state, "pid": guest.pid, "status": None}
        record |= {"kernel": None, "memory": None, "started_at": None, "consoles": []}
        record |= {"mconsole": guest.path, "answers": _ANSWERS.get(guest.state)}
    vitals = guest.vitals
    record["release"] = None if vitals is None else vitals.release
    for key in ("uptime", "load", "memory_used", "memory_total"):
        record[key] = getattr(vitals, key) if vitals is not None and vitals.is_current else None
    if vitals is not None:
        # The daemon's word comes half a minute later.
        record["answers"] = _ANSWERS.get(vitals.state, record["answers"])
    record["stopped"] = None if vitals is None else vitals.state == "stopped"
    nics = guest.nics
    return record | {"nics": None if nics is None else [dataclasses.asdict(nic) for nic in nics]}


def _row(guest: GuestStatus, name: str) -> tuple[str, ...]:
    vitals = guest.vitals
    blank = _UNKNOWN if guest.state in _ALIVE else _NONE
    release = up = load = memory = blank
    if vitals is not None and vitals.release is not None:
        release = vitals.release
    if vitals is not None and vitals.is_current:
        up = blank if vitals.uptime is None else span(vitals.uptime)
        load = blank if vitals.load is None else f"{vitals.load[0]:.2f}"
        if vitals.memory_used is not None and vitals.memory_total is not None:
            memory = f"{vitals.memory_used >> 20}/{vitals.memory_total >> 20} MiB"
    pid = blank if guest.pid is None else str(guest.pid)
    nics = blank if guest.nics is None else ", ".join(map(_nic, guest.nics)) or _NONE
    row = (name, guest.lab or _NONE, _state(guest), pid, release, up, load, memory, nics)
    return tuple(map(_text, row))


def _state(guest: GuestStatus) -> str:
    if guest.view is None:
        return guest.state
    if guest.view.status is not None:
        return f"ended ({guest.view.status})"
    from umlab.cli.guest_state import state_text

    return state_text(guest.view, guest.vitals)


def _nic(nic: GuestNic) -> str:
    where = nic.port or f"{nic.transport or _UNKNOWN} {_UNKNOWN}"
    return f"{nic.name or _UNKNOWN} {where}"


def _text(word: str) -> str:
    """Return somebody's word as one that a terminal shows as it is."""
    from umlab.cli.console_page import shown_name

    return shown_name(word) or _UNKNOWN
