"""A lab's guest in a word or two: what its daemon says, and what its kernel does where that is not well."""

from __future__ import annotations

from umlab.daemon.view import GuestView, GuestVitals

#: What a kernel is in that needs somebody.
_UNWELL = frozenset({"stopped", "silent", "garbled"})


def state_text(guest: GuestView, vitals: GuestVitals | None) -> str:
    """Return how a guest is.

    Args:
        guest: What its lab's daemon says.
        vitals: What its kernel says, if it could be asked.
    """
    state = "?" if vitals is None else vitals.state
    # What it has said before that is no better.
    if guest.answers is False and (vitals is None or not vitals.is_current):
        state = "silent"
    return f"{guest.state}, {state}" if state in _UNWELL else guest.state
