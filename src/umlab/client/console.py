"""The management console of any guest of this user, by its lab's daemon where there is one.

::

    guests = labelled(await running_guests())
    for outcome in (await AsyncFleet(guests).run(version())).values():
        print(outcome.umid, outcome.output or outcome.error)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from umlab.client.aio import AsyncClient
from umlab.client.find import Lookup, guest_roots, lab_of, short_names
from umlab.client.survey import labs
from umlab.daemon.kernel import Kernel
from umlab.daemon.view import GuestVitals
from umlab.errors import ApiTimeout, LabError, LabNotRunning, LocalProtocolError, NoSuchGuest
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.discover import discover
from umlab.mconsole.endpoint import check_listening
from umlab.wire.mconsole import serialize_request

if TYPE_CHECKING:
    from umlab.daemon.view import DeviceView, ProcessView
    from umlab.mconsole.command import Command

__all__ = ["GuestConsole", "find_console", "labelled", "running_guests"]

#: Seconds in which a guest has to give each answer to count as one that does,
ANSWER_TIME = 2.0
#: and in which its lab's daemon has to pass on what it answered, or that it did not.
_GRACE = 1.0


class GuestConsole:
    """One guest; tasks may share it.

    Args:
        name: Its umid; of a guest outside labs, text that anybody may have chosen.
        lab: The lab whose daemon speaks for it.
        path: Its console's socket, of a guest that no daemon speaks for; one of the two is given.

    Attributes:
        name: See above.
        lab: See above.
        path: See above.
    """

    def __init__(self, name: str, lab: str | None = None, path: str | None = None) -> None:
        self.name = name
        self.lab = lab
        self.path = path

    @property
    def place(self) -> str:
        """A name that no other guest has: ``LAB/NAME``, or the socket's path."""
        return f"{self.lab}/{self.name}" if self.lab is not None else str(self.path)

    async def run(self, command: Command) -> str:
        """Run one command and return its answer's text, untrusted.

        Raises:
            MconsoleError: And those below it: the guest refuses, is silent, does not run, or talks nonsense.
            LocalProtocolError: The command cannot be sent.
            LabError: And those below it: its lab's daemon cannot be asked.
        """
        if self.lab is None:
            return await AsyncMconsole(str(self.path), self.name).run(command)
        # It is refused in the same words whoever speaks for the guest.
        serialize_request(command.text)
        try:
            text = command.text.decode()
        except UnicodeDecodeError:
            raise LocalProtocolError(
                f"'{command.display}' is not UTF-8, which a lab's guest is sent"
            ) from None
        try:
            async with asyncio.timeout(command.timeout + _GRACE):
                answer = await AsyncClient(self.lab).mconsole(self.name, text, command.timeout)
        except TimeoutError:
            raise ApiTimeout(self.lab, "the daemon did not answer in time; it may be hung") from None
        return answer.removeprefix(command.prefix)

    async def vitals(self) -> GuestVitals:
        """Return how it is, as its kernel tells; silent where its lab's daemon hangs.

        Raises:
            LabError: Its lab's daemon cannot be asked for another reason.
        """
        if self.lab is None:
            return await Kernel(str(self.path), self.name).look(ANSWER_TIME)
        try:
            async with asyncio.timeout(ANSWER_TIME + _GRACE):
                return await AsyncClient(self.lab).vitals(self.name)
        except (NoSuchGuest, LabNotRunning):
            return GuestVitals(self.name, "unreachable")
        except (ApiTimeout, TimeoutError):
            return GuestVitals(self.name, "silent")

    async def check(self) -> None:
        """Return if there is such a guest; whether it answers is another question.

        Raises what `run` raises.
        """
        if self.lab is None:
            check_listening(str(self.path), self.name, "")
        else:
            await AsyncClient(self.lab).guest(self.name)

    async def devices(self) -> list[DeviceView]:
        """Return the devices that its kernel has, as its lab's daemon knows them; none outside labs.

        Raises what `run` raises.
        """
        return [] if self.lab is None else await AsyncClient(self.lab).devices(self.name)

    async def processes(self) -> list[ProcessView]:
        """Return its processes, as its agent tells them to its lab's daemon; none outside labs.

        Raises what `umlab.client.aio.AsyncClient.processes` raises.
        """
        return [] if self.lab is None else await AsyncClient(self.lab).processes(self.name)


def find_console(name: str, lookup: Lookup | None = None) -> GuestConsole:
    """Return the guest of a name; raises what `umlab.client.find.find_guest` does.

    Args:
        name: As `umlab.client.find.find_guest` takes it.
        lookup: What has looked, or will look, for several; by default the usual places are looked at now.
    """
    place = (lookup or Lookup()).find(name)
    return GuestConsole(place.umid, place.lab, place.path)


async def running_guests(uml_dirs: Sequence[str] = ()) -> list[GuestConsole]:
    """Return every guest that this user can reach: those of labs, then those that are found elsewhere.

    Args:
        uml_dirs: Directories to look in beside the usual ones.
    """
    names, found = await asyncio.gather(
        asyncio.to_thread(labs), asyncio.to_thread(lambda: discover(guest_roots(uml_dirs)))
    )
    answers = await asyncio.gather(*map(_guests_of, names))
    speaking = {name for name, guests in zip(names, answers, strict=True) if guests is not None}
    guests = [each for answer in answers if answer is not None for each in answer]
    guests += [
        GuestConsole(each.umid, path=each.path)
        for each in found
        if each.state == "listening" and lab_of(each) not in speaking
    ]
    return guests


async def _guests_of(lab: str) -> list[GuestConsole] | None:
    try:
        guests = await AsyncClient(lab).guests()
    except LabError:
        # It ended since it was asked, or hangs: its guests are reached directly.
        return None
    return [GuestConsole(each.name, lab) for each in guests if each.status is None]


def labelled(guests: Iterable[GuestConsole]) -> dict[str, GuestConsole]:
    """Return guests, each once, by the shortest name that none of the others has."""
    each_once = {guest.place: guest for guest in guests}.values()
    names = short_names([(guest.name, guest.place) for guest in each_once])
    return dict(zip(names, each_once, strict=True))
