"""What a name on the command line stands for: a switch or a guest, and its lab."""

from __future__ import annotations

from umlab.client import labs
from umlab.client.sync import Client
from umlab.errors import ApiError, LabError, LabNotRunning, NoSuchGuest, NoSuchSwitch, SwitchError


def split(name: str) -> tuple[str | None, str]:
    """Return the lab of ``LAB/NAME``, or ``None``, and the name."""
    lab, sign, own = name.rpartition("/")
    return (lab if sign else None), own


def switch_place(name: str) -> tuple[str, str]:
    """Return lab and switch: a switch that stands alone is a lab of the same name."""
    lab, switch = split(name)
    return (switch if lab is None else lab), switch


def missing_switch(client: Client, error: NoSuchSwitch) -> LabError | SwitchError | NoSuchSwitch:
    """Return the error for a switch that a running lab does not have; it says what the lab has."""
    names = [f"{client.name}/{switch}" for switch in client.lab().switches]
    if not names:
        return error
    return SwitchError(f"{error} in lab {client.name}; write {' or '.join(names)}")


def guest_place(name: str) -> tuple[str, str]:
    """Return lab and guest; a guest without its lab is looked for in all labs that run.

    Raises:
        NoSuchGuest: No lab has it.
        LabError: Several have.
    """
    lab, guest = split(name)
    if lab is not None:
        return lab, guest
    found = [each for each in labs() if guest in _guests(each)]
    if not found:
        raise NoSuchGuest(guest)
    if len(found) > 1:
        names = " or ".join(f"{each}/{guest}" for each in found)
        raise LabError(f"{guest}: several labs have a guest of that name; write {names}")
    return found[0], guest


def _guests(lab: str) -> tuple[str, ...]:
    try:
        with Client(lab) as client:
            return client.lab().guests
    except (LabNotRunning, ApiError):
        # It has ended since it was listed, or hangs.
        return ()
