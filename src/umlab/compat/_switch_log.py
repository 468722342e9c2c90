"""What ``uml_switch`` prints about its ports: the events of a switch in the original's words."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from umlab.daemon.switch import ServiceEvent, SessionClosed, SessionOpened, SessionRefused
from umlab.errors import (
    BadMagic,
    OversizeMessage,
    TruncatedMessage,
    UmlabError,
    UnsupportedType,
    UnsupportedVersion,
)
from umlab.switch.events import EventsLost, FdbFull, MacLearned, StationMoved, UnknownUnicast
from umlab.wire.ethernet import format_mac

Say = Callable[[str], None]


class EventLog:
    """Prints events.

    Args:
        out: Takes a line for standard output.
        err: Takes a line for standard error.
    """

    def __init__(self, out: Say, err: Say) -> None:
        self._out = out
        self._err = err
        self._held: list[ServiceEvent] | None = []

    def release(self) -> None:
        """Print what has happened so far, and from now on everything as it happens.

        Before, events are held: the line that says where the switch is attached comes first.
        """
        held, self._held = self._held, None
        for event in held or ():
            self.report(event)

    def report(self, event: ServiceEvent) -> None:
        """Print an event, if the original has a line for it or it tells of something lost."""
        if self._held is not None:
            self._held.append(event)
            return
        match event:
            case SessionOpened():
                self._out("New connection")
            case SessionClosed():
                self._out("Disconnect")
            case SessionRefused(error=error):
                self._refused(error)
            case MacLearned(mac=mac, port_no=port_no):
                self._out(f" Addr: {format_mac(mac)} New port {port_no}")
            case StationMoved(mac=mac, port_no=port_no, old_port_no=old):
                self._out(f" Addr: {format_mac(mac)} New port {port_no} old port {old}")
            case UnknownUnicast(source=source, port_no=port_no):
                self._out(f"unknown Addr: {format_mac(source)} from port {port_no}")
            case FdbFull(capacity=capacity):
                self._err(f"{capacity} addresses are learnt; more are not, frames to them go to every port")
            case EventsLost(count=count):
                self._err(f"{count} events were lost")
            case _:
                pass

    def _refused(self, error: UmlabError) -> None:
        match error:
            case UnsupportedVersion(version=2):
                self._err("Version 2 is not supported")
            case UnsupportedVersion(version=version):
                self._err(f"Request for a version {version} port, which this uml_switch doesn't support")
            case UnsupportedType(request_type=request_type):
                self._out(f"Bad request type : {ctypes.c_int32(request_type).value}")
            case BadMagic(magic=0):
                self._err("Request for a version 0 port, which takes the option -compat-v0")
            case BadMagic(magic=magic):
                # The original reads the first word as the type of a version 0 request.
                self._out(f"Bad request type : {ctypes.c_int32(magic).value}")
            case TruncatedMessage(got=0):
                self._out("EOF from new port")
            case OversizeMessage():
                self._out("Bad request")
            case _:
                self._out(f"Bad request: {error}")
