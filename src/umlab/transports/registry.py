"""Which transports there are, and how a place to listen is written: ``KIND:PLACE``."""

from __future__ import annotations

from umlab.errors import TransportError
from umlab.transports import bess, daemon, dgram, gre, l2tpv3, mcast, qemu, raw, tap, vde
from umlab.transports.contract import PRIVATE, Access, Listener

#: By kind, in the order in which they are shown.
TRANSPORTS = {
    each.kind: each
    for each in (
        daemon.TRANSPORT,
        bess.TRANSPORT,
        vde.TRANSPORT,
        l2tpv3.TRANSPORT,
        gre.TRANSPORT,
        tap.TRANSPORT,
        raw.TRANSPORT,
        qemu.TRANSPORT,
        dgram.TRANSPORT,
        mcast.TRANSPORT,
    )
}


def parse_listen(spec: str, access: Access = PRIVATE) -> Listener:
    """Make the listener that a text such as ``daemon:/tmp/uml.ctl`` names; it is not started.

    Raises:
        TransportError: No such kind, or no place; names what would do.
    """
    kind, _, place = spec.partition(":")
    if kind not in TRANSPORTS or not place:
        forms = ", ".join(each.form for each in TRANSPORTS.values())
        raise TransportError(f"{spec!r} is no place to listen; write one of {forms}")
    return TRANSPORTS[kind].make(place, access)
