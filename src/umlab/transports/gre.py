"""The ``gre`` transport of UML's vector drivers: frames in GRE messages between two hosts, without UDP.

A place is written with the UML kernel's own names, as the switch's end has them.

Source: Linux arch/um/drivers/vector_transports.c and vector_user.c; RFC 2784; RFC 2890.
"""

from __future__ import annotations

import socket

from umlab.switch.model import Encapsulation
from umlab.transports.contract import Access, Argument, Transport
from umlab.transports.option_list import OptionList
from umlab.transports.tunnel import Socket, TunnelListener
from umlab.wire import gre as wire

KIND = "gre"
_OPTIONS = ("src", "dst", "rx_key", "tx_key", "sequence", "pin_sequence", "v6")


def _make(place: str, access: Access) -> TunnelListener:
    """Make the listener of a place; who was named needs no leave."""
    options = OptionList(KIND, place, _OPTIONS)
    family = socket.AF_INET6 if options.flag("v6") else socket.AF_INET
    sort = Socket(family, socket.SOCK_RAW, wire.IP_PROTOCOL)
    keys = options.pair("rx_key", "tx_key", 32)
    sequence, pinned = options.flag("sequence"), options.flag("pin_sequence")
    if pinned and not sequence:
        raise options.error("pin_sequence needs sequence=1")
    rx, tx = (wire.serialize_header(key, sequence=sequence) for key in keys or (None, None))
    encapsulation = Encapsulation(
        rx,
        tx + (bytes(wire.SEQUENCE_SIZE) if pinned else b""),
        rx_skip=wire.SEQUENCE_SIZE if sequence else 0,
        tx_counter=1 if sequence and not pinned else None,
        ip_header=sort.ip_header,
    )
    address = sort.address(options, "src", "")
    peer = sort.address(options, "dst", "")
    guest = [f"vec0:transport=gre,src={peer[0]},dst={address[0]}"]
    if keys is not None:
        # The UML kernel reads a key as a signed number of 32 bits, and goes without one that is larger.
        rx_key, tx_key = (key - (key >> 31 << 32) for key in reversed(keys))
        guest += [f"rx_key={rx_key}", f"tx_key={tx_key}"]
    guest += [f"{name}=1" for name in ("sequence", "pin_sequence", "v6") if options.flag(name)]
    argument = Argument("uml", ",".join(guest), KIND)
    return TunnelListener(KIND, place, sort, address, peer, encapsulation, (argument,))


TRANSPORT = Transport(KIND, "gre:src=IP,dst=IP[,OPTION=N,...]", _make)
