"""Every kind of event that a lab has, as records name it."""

from __future__ import annotations

from typing import get_args

from umlab.daemon.hook import GUEST_EVENTS
from umlab.daemon.record import kind_of
from umlab.daemon.switch import ServiceEvent
from umlab.switch.control.lldp import NeighbourEvent

#: Those of switches and their ports' neighbours, of guests, hooks and captures, and that of events that a
#: listener has missed.
EVENT_KINDS = (
    *map(kind_of, (*get_args(ServiceEvent), *get_args(NeighbourEvent))),
    *GUEST_EVENTS,
    *("hook_ran", "hook_failed", "hook_dropped", "capture_started", "capture_ended", "lost"),
)
