"""Which transports there are, and how a place to listen is written: ``KIND:PLACE``."""

from __future__ import annotations

from collections.abc import Callable

from umlab.errors import TransportError
from umlab.transports.bess import BessListener
from umlab.transports.contract import Listener
from umlab.transports.daemon import DaemonListener
from umlab.transports.tap import TapListener


def _daemon(place: str) -> Listener:
    control, _, data = place.partition(",")
    return DaemonListener(control, data or None)


#: Kind, how its place is written, and what makes a listener of it.
TRANSPORTS: dict[str, tuple[str, Callable[[str], Listener]]] = {
    "daemon": ("daemon:CTL[,DATA]", _daemon),
    "bess": ("bess:PATH", BessListener),
    "tap": ("tap:DEVICE", TapListener),
}


def parse_listen(spec: str) -> Listener:
    """Make the listener that a text such as ``daemon:/tmp/uml.ctl`` names; it is not started.

    Raises:
        TransportError: No such kind, or no place; names what would do.
    """
    kind, _, place = spec.partition(":")
    if kind not in TRANSPORTS or not place:
        forms = ", ".join(form for form, _ in TRANSPORTS.values())
        raise TransportError(f"{spec!r} is no place to listen; write one of {forms}")
    return TRANSPORTS[kind][1](place)
