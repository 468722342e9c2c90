"""What ``umlab top`` shows: the busiest first, as much of it as there is room for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from umlab.capture.talkers import Talker, TalkerPair
from umlab.cli.guest_state import state_text
from umlab.cli.page import Page, Table, span
from umlab.cli.rate import LabLook, Rate, cpu_share, guest_rate, port_rates, total
from umlab.daemon.view import GuestView, GuestVitals, PortView, SwitchView
from umlab.guest.console import escape

#: Talkers, and pairs of them, that are shown of all switches together.
SHOWN_TALKERS = 5
_RATES = (" IN/s", " OUT/s", " IN BIT/s", " OUT BIT/s", " DROPS/s")
_SWITCHES = ("SWITCH", "LAB", " PORTS", *_RATES)
_PORTS = ("PORT", "KIND", "GUEST", "STATE", *_RATES, " QUEUED")
_GUESTS = ("GUEST", "LAB", "STATE", " CPU", " LOAD", " MEMORY", " UPTIME", " IN BIT/s", " OUT BIT/s")
_TALKERS = ("FROM", "TO", "SWITCH", " FRAMES/s", " BIT/s")
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_PLAIN = (1.0, "")
#: From here on three digits round up to the unit.
_NEARLY = 0.9995
#: A row behind what it is ranked by.
_Ranked = tuple[float, tuple[str, ...]]
#: The destination of all that a station has sent.
_EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at all labs.

    Attributes:
        labs: By name.
        silent: Labs whose daemons do not answer.
    """

    labs: Mapping[str, LabLook]
    silent: tuple[str, ...] = ()


@dataclass(slots=True)
class _Rows:
    """Rows of the tables."""

    switches: list[_Ranked] = field(default_factory=list)
    ports: list[_Ranked] = field(default_factory=list)
    guests: list[_Ranked] = field(default_factory=list)
    sources: list[_Ranked] = field(default_factory=list)
    pairs: list[_Ranked] = field(default_factory=list)


def page(before: Look | None, after: Look) -> Page:
    """Return what is shown of two looks, or of a first one."""
    record: dict[str, Any] = {"at": time.time(), "switches": [], "guests": [], "silent": list(after.silent)}
    rows = _Rows()
    for lab, look in after.labs.items():
        earlier = None if before is None else before.labs.get(lab)
        for switch in look.switches:
            record["switches"].append(_add_switch(rows, lab, switch, earlier, look))
        for guest in look.guests:
            share = cpu_share(earlier, look, guest.name)
            rate = guest_rate(earlier, look, guest.name)
            vitals = look.vitals.get(guest.name)
            rows.guests.append((share or 0.0, _guest_row(lab, guest, share, vitals, rate)))
            facts = {
                "lab": lab,
                "name": guest.name,
                "state": guest.state,
                "memory": guest.memory,
                "cpu": share,
            }
            told = None if vitals is None else asdict(vitals)
            record["guests"].append({**facts, **asdict(rate), "vitals": told})
    parts: list[str | Table] = []
    if not rows.switches and not rows.guests:
        parts.append("nothing runs")
    parts += [f"{lab} does not answer" for lab in after.silent]
    tables = [
        Table(_SWITCHES, _ranked(rows.switches), ("LAB", " PORTS")),
        Table(_PORTS, _ranked(rows.ports), ("KIND", "STATE", " QUEUED")),
        Table(_GUESTS, _ranked(rows.guests), ("LAB", " UPTIME", " LOAD")),
        Table(_TALKERS, _ranked(rows.sources)[:SHOWN_TALKERS] + _ranked(rows.pairs)[:SHOWN_TALKERS]),
    ]
    for table in tables:
        if table.rows:
            parts += ["", table] if parts else [table]
    return Page([record], parts)


def cut(parts: Sequence[str | Table], height: int) -> list[str | Table]:
    """Return what of a page fits a height, every table with as fair a share of it as can be.

    Args:
        parts: Lines and tables.
        height: Lines.
    """
    tables = [part for part in parts if isinstance(part, Table)]
    room = height - len(parts)
    shares: dict[int, int] = {}
    # The shortest one takes what it needs, and leaves more for the others.
    for left, table in zip(
        range(len(tables), 0, -1), sorted(tables, key=lambda each: len(each.rows)), strict=True
    ):
        shares[id(table)] = max(0, min(len(table.rows), room // left))
        room -= shares[id(table)]
    return [
        part if isinstance(part, str) else Table(part.headings, part.rows[: shares[id(part)]], part.spare)
        for part in parts
    ]


def quantity(number: float | None) -> str:
    """Return a number in four characters or so, such as ``12.3k``; ``-`` for one that is not known."""
    if number is None:
        return "-"
    size, unit = next((each for each in _UNITS if number >= _NEARLY * each[0]), _PLAIN)
    return f"{number / size:.3g}{unit}"


def _add_switch(
    rows: _Rows, lab: str, switch: SwitchView, earlier: LabLook | None, look: LabLook
) -> dict[str, Any]:
    """Add the rows of a switch, its ports and its talkers; return its record."""
    name = switch.name if switch.name == lab else f"{lab}/{switch.name}"
    rates = port_rates(earlier, look, switch.name)
    whole = total(rates)
    rows.switches.append((_rank(whole), (switch.name, lab, str(switch.ports), *_texts(whole))))
    ports = []
    for port in look.ports[switch.name]:
        rate = rates[port.port_no]
        rows.ports.append((_rank(rate), _port_row(name, port, rate)))
        facts = {"port_no": port.port_no, "kind": port.kind, "guest": port.guest, "state": port.state}
        ports.append({**facts, **asdict(rate), "queued": port.queued})
    talkers = look.talkers.get(switch.name)
    if talkers is not None and talkers.seconds:
        rows.sources += _talker_rows(name, talkers.sources, talkers.seconds)
        rows.pairs += _talker_rows(name, talkers.pairs, talkers.seconds)
    shown = None if talkers is None else asdict(talkers)
    return {"lab": lab, "name": switch.name, **asdict(whole), "ports": ports, "talkers": shown}


def _port_row(switch: str, port: PortView, rate: Rate) -> tuple[str, ...]:
    # What a process elsewhere calls itself may be the name of a guest of the lab.
    guest = port.guest or (f"({escape(port.umid.encode())})" if port.umid else "-")
    return (f"{switch}:{port.port_no}", port.kind, guest, port.state, *_texts(rate), str(port.queued))


def _guest_row(
    lab: str, guest: GuestView, share: float | None, vitals: GuestVitals | None, rate: Rate
) -> tuple[str, ...]:
    load, used, total, uptime = "-", "-", guest.memory, "-"
    if vitals is not None and vitals.is_current:
        load = "-" if vitals.load is None else f"{vitals.load[0]:.2f}"
        uptime = "-" if vitals.uptime is None else span(vitals.uptime)
        if vitals.memory_used is not None and vitals.memory_total is not None:
            used, total = str(vitals.memory_used >> 20), vitals.memory_total
    cpu = "-" if share is None else f"{share:.0%}"
    memory = f"{used}/{total >> 20} MiB"
    bits = quantity(rate.rx_bits), quantity(rate.tx_bits)
    return (guest.name, lab, state_text(guest, vitals), cpu, load, memory, uptime, *bits)


def _talker_rows(switch: str, talkers: Iterable[Talker | TalkerPair], seconds: float) -> list[_Ranked]:
    rows: list[_Ranked] = []
    for each in talkers:
        destination = each.destination if isinstance(each, TalkerPair) else _EVERYBODY
        bits = each.bytes * 8 / seconds
        counts = (quantity(each.frames / seconds), quantity(bits))
        rows.append((bits, (each.source, destination, switch, *counts)))
    return rows


def _texts(rate: Rate) -> tuple[str, ...]:
    numbers = (rate.rx_frames, rate.tx_frames, rate.rx_bits, rate.tx_bits, rate.drops)
    return tuple(map(quantity, numbers))


def _rank(rate: Rate) -> float:
    return (rate.rx_bits or 0) + (rate.tx_bits or 0)


def _ranked(rows: list[_Ranked]) -> list[tuple[str, ...]]:
    """Return rows, the largest first; equals stay in their order."""
    return [row for _, row in sorted(rows, key=lambda each: -each[0])]
