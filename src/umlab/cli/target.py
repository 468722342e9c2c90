"""What a name on the command line stands for: a switch or a guest, and its lab."""

from __future__ import annotations

from umlab.client.find import find_guest
from umlab.client.sync import Client
from umlab.errors import LabError, NoSuchSwitch, SwitchError


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
    """Return lab and guest, for what only a lab's daemon can do.

    Raises what `umlab.client.find.find_guest` does; its LabError, too, where the guest is outside labs.
    """
    place = find_guest(name)
    if place.lab is None:
        raise LabError(
            f"no lab's daemon speaks for the guest {name}, only its management console: umlab console {name}"
        )
    return place.lab, place.umid
