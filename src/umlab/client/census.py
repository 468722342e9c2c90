"""All guests of this machine that this user can see: those of labs, and those that others started.

Nothing here waits long: daemons that do not answer cost a second, and so do guests, all of them together.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from umlab.client.aio import AsyncClient
from umlab.client.find import guest_roots, lab_of
from umlab.client.nic import GuestNic, PluggedPort, match_nics, port_place
from umlab.client.survey import survey
from umlab.daemon.kernel import Kernel
from umlab.errors import LabError, MconsoleTimeout, MconsoleUnreachable, SwitchError, UmlabError
from umlab.guest.nic import CommandLineNic, nics_of, parse_nics
from umlab.mconsole.command import raw
from umlab.mconsole.discover import Found, discover
from umlab.mconsole.fleet import Fleet, Outcome
from umlab.mconsole.sync import Mconsole

if TYPE_CHECKING:
    from umlab.daemon.view import DeviceView, GuestView, GuestVitals

__all__ = ["Census", "GuestStatus", "take_census"]

#: Seconds for what a daemon knows by itself,
_LAB_TIME = 1.0
#: and for what it asks a guest, which it gives up a little earlier.
_GUEST_TIME = 1.5
#: Seconds in which a guest that no daemon speaks for has to give its first answer.
_ANSWER_TIME = 1.0
#: Guests that are asked for it at the same time, at most; each takes a descriptor.
_MOST_ASKED = 500
#: Guests that are asked for all the rest at the same time: more of them would be asked so slowly, on our
#: part, that they seemed silent.
_MOST_TOLD = 32
#: What a socket says whose guest died just now.
_GONE = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT}


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """A guest.

    Attributes:
        name: Its umid; of a guest outside labs, text that anybody may have chosen.
        lab: Its lab, ``None`` outside labs.
        state: By its lab's daemon ``booting``, ``ready`` or ``ended``.  Where no daemon speaks for it
            ``answers``, ``stopped``, ``garbled`` or ``silent``, as of `umlab.daemon.view.GuestVitals`, or
            what `umlab.mconsole.discover.Found` has; ``listening`` is left to one that cannot be asked.
        pid: Its main process, where that is known.
        path: Its console's socket.
        vitals: What its kernel says, untrusted; ``None`` where it was not, or could not be, asked.
        nics: Its NICs; ``None`` where nothing is known of them.
        view: What its lab's daemon says of it.
        found: Its run directory, where no daemon speaks for it.
    """

    name: str
    lab: str | None
    state: str
    pid: int | None
    path: str
    vitals: GuestVitals | None
    nics: tuple[GuestNic, ...] | None
    view: GuestView | None = None
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """What there is.

    Attributes:
        guests: Those for which daemons speak, by lab and name; then the others, labs' first.
        kept: Labs whose daemon has died and whose keeper has not, sorted.
        hung: Labs whose daemon does not answer, sorted.
    """

    guests: tuple[GuestStatus, ...]
    kept: tuple[str, ...]
    hung: tuple[str, ...]


async def take_census(uml_dirs: Sequence[str] = ()) -> Census:
    """Ask all labs and guests.

    Args:
        uml_dirs: Directories to look in beside those of `umlab.client.find.guest_roots`.
    """
    surveyed, found = await asyncio.gather(
        asyncio.to_thread(survey), asyncio.to_thread(lambda: discover(guest_roots(uml_dirs)))
    )
    running = [name for name, answer in surveyed.answers.items() if answer is not None]
    labs = {lab.name: lab for lab in await asyncio.gather(*map(_ask_lab, running)) if lab is not None}
    # The guests of a daemon that does not answer are asked themselves.
    others = [each for each in found if lab_of(each) not in labs]
    others.sort(key=lambda each: (lab_of(each) is None, lab_of(each) or ""))
    listening = [each for each in others if each.state == "listening"]
    states = await asyncio.to_thread(_states_of, listening)
    rounds = _Round([port for lab in labs.values() for port in lab.ports])
    guests = await asyncio.gather(
        *(rounds.member(lab.name, view) for lab in labs.values() for view in lab.guests),
        *(rounds.other(each, states.get(each.path, each.state)) for each in others),
    )
    hung = tuple(name for name in surveyed.answers if name not in labs)
    return Census(tuple(guests), tuple(surveyed.kept), hung)


@dataclass(frozen=True, slots=True)
class _Lab:
    """What a lab's daemon knows by itself."""

    name: str
    guests: list[GuestView]
    ports: list[PluggedPort]


async def _ask_lab(name: str) -> _Lab | None:
    try:
        async with asyncio.timeout(_LAB_TIME), AsyncClient(name) as client:
            guests, switches = await asyncio.gather(client.guests(), client.switches())
            ports = await asyncio.gather(*(client.ports(each.name) for each in switches))
    except (TimeoutError, LabError, SwitchError):
        # It hangs, ends, or is changed right now.
        return None
    plugged = [
        PluggedPort(name, switch.name, port, frozenset((each.kind, each.where) for each in switch.listeners))
        for switch, ports_of_one in zip(switches, ports, strict=True)
        for port in ports_of_one
    ]
    return _Lab(name, guests, plugged)


def _states_of(listening: Iterable[Found]) -> dict[str, str]:
    """Ask guests for their first answer, and return their states by their sockets."""
    consoles = {each.path: Mconsole(each.path, each.umid) for each in listening}
    outcomes = Fleet(consoles, _MOST_ASKED).run(raw("version", _ANSWER_TIME))
    return {path: _state_of(outcome) for path, outcome in outcomes.items()}


def _state_of(outcome: Outcome) -> str:
    match outcome.error:
        case MconsoleTimeout():
            return "silent"
        case MconsoleUnreachable(__cause__=OSError(errno=number)) if number in _GONE:
            return "dead"
        case MconsoleUnreachable():
            # We cannot ask: its socket's path is too long, or we have too few descriptors.
            return "listening"
    # A refusal, and even nonsense, is an answer.
    return "answers"


class _Round:
    """One round from guest to guest.

    Args:
        ports: All ports of all switches.
    """

    def __init__(self, ports: list[PluggedPort]) -> None:
        self._ports = ports
        self._turns = asyncio.Semaphore(_MOST_TOLD)

    async def member(self, lab: str, view: GuestView) -> GuestStatus:
        """Return what there is to say of a guest for which a daemon speaks."""
        if view.status is not None:
            return GuestStatus(view.name, lab, view.state, None, view.mconsole, None, None, view)
        # Of one that is silent the daemon knows it already.
        async with contextlib.nullcontext() if view.answers is False else self._turns:
            vitals, devices = await _ask_member(lab, view.name)
        nics = nics_of(view.pid) if devices is None else parse_nics(map(_word, devices))
        ports = [each for each in self._ports if each.is_of(lab, view.name, view.pid)]
        told = {
            each.name: port_place(lab, each.switch, each.port_no)
            for each in devices or ()
            if each.switch is not None and each.port_no is not None
        }
        return GuestStatus(
            view.name, lab, view.state, view.pid, view.mconsole, vitals, _match(nics, ports, told), view
        )

    async def other(self, found: Found, state: str) -> GuestStatus:
        """Return what there is to say of a guest for which none does, and which is in a state."""
        vitals = None
        if state == "answers":
            async with self._turns:
                vitals = await _ask_other(found)
            # It has answered once, whatever became of the rest.
            if vitals.state in ("stopped", "garbled"):
                state = vitals.state
        nics, ports = None, []
        if found.pid is not None:
            nics = nics_of(found.pid)
            ports = [each for each in self._ports if each.is_of(None, found.umid, found.pid)]
        return GuestStatus(
            found.umid,
            lab_of(found),
            state,
            found.pid,
            found.path,
            vitals,
            _match(nics, ports, {}),
            found=found,
        )


async def _ask_member(lab: str, guest: str) -> tuple[GuestVitals | None, list[DeviceView] | None]:
    vitals, devices = None, None
    # What an older daemon does not know, or one that is hung, stays unknown.
    with contextlib.suppress(UmlabError, TimeoutError):
        async with asyncio.timeout(_GUEST_TIME), AsyncClient(lab) as client:
            vitals = await client.vitals(guest)
            if vitals.is_current:
                devices = await client.devices(guest)
    return vitals, devices


async def _ask_other(found: Found) -> GuestVitals:
    kernel = Kernel(found.path, found.umid)
    try:
        return await kernel.vitals()
    finally:
        await kernel.close()


def _word(device: DeviceView) -> str:
    """Return a device as it would stand on the command line."""
    return f"{device.name}{':' if device.name.startswith('vec') else '='}{device.setting}"


def _match(
    nics: Iterable[CommandLineNic] | None, ports: Sequence[PluggedPort], told: Mapping[str, str]
) -> tuple[GuestNic, ...] | None:
    return match_nics(list(nics or ()), ports, told) if nics is not None or ports else None
