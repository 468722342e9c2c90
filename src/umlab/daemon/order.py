"""What a daemon is told to run, also as JSON for a daemon that is started in the background."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from umlab.daemon.spec import SwitchSpec
from umlab.guest.cmdline import GuestSpec


@dataclass(frozen=True, slots=True)
class LabOrder:
    """What a daemon is to run.

    Attributes:
        name: The lab.
        switches: Its switches.
        guests: Its guests, started in this order.
        alone: Whether the switch stands alone, and is none of a lab that is there already with others.
    """

    name: str
    switches: tuple[SwitchSpec, ...] = ()
    guests: tuple[GuestSpec, ...] = ()
    alone: bool = False


def order_to_json(order: LabOrder) -> bytes:
    """Write an order down."""
    return TypeAdapter(LabOrder).dump_json(order)


def order_from_json(text: str) -> LabOrder:
    """Read an order that :func:`order_to_json` wrote."""
    return TypeAdapter(LabOrder).validate_json(text)
