"""The processes of guests whose agent answers."""

from __future__ import annotations

import re

from umlab.daemon.guest_set import GuestSet
from umlab.daemon.view import ProcessView
from umlab.errors import StateError

#: Seconds that the agent has.
TIMEOUT = 5.0
#: Prints a line for each process; one that ends meanwhile is left out.
_SCRIPT = 'for each in /proc/[0-9]*; do read -r name <$each/comm && echo "${each#/proc/} $name"; done 2>&-'
_LINE = re.compile(rb"^([1-9][0-9]{0,9}) (.*)$", re.MULTILINE)
_MAX_NAME = 64


class GuestProcesses:
    """The processes of all guests.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    async def views(self, name: str) -> list[ProcessView]:
        """Return the processes of a guest, by pid.

        Raises:
            NoSuchGuest: There is no such guest.
            StateError: No agent of it has answered.
            CommandTimeout: It did not answer in time.
            GuestFailed: The guest ended.
            RemoteProtocolError: Its agent makes no sense.
        """
        service = self._guests.find(name).service
        if not service.is_ready:
            raise StateError(f"guest {name} has no agent that answers")
        return parse_processes((await service.run(_SCRIPT, TIMEOUT)).stdout)


def parse_processes(output: bytes) -> list[ProcessView]:
    """Return the processes in lines of pid and name, by pid; lines that make no sense are left out."""
    names = {int(pid): name[:_MAX_NAME] for pid, name in _LINE.findall(output)}
    return [ProcessView(pid, name.decode("utf-8", "backslashreplace")) for pid, name in sorted(names.items())]
