"""A simulated guest whose every answer a test chooses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from umlab.testing import SimulatedGuest, SimulatedGuests
from umlab.testing.fault import answer

Answering = Callable[[bytes], Sequence[bytes]]


@contextlib.contextmanager
def answering_guest(path: Path, answering: Answering = answer) -> Iterator[SimulatedGuest]:
    """Run a guest whose console is at a path, which ends with its name and ``mconsole``.

    Args:
        path: The socket to make.  The directory that it is in goes away with the guest.
        answering: Called with a request's text; returns the datagrams to send; by default, that text.
    """
    with SimulatedGuests(path.parents[1]) as guests:
        yield guests.add(path.parent.name, fault=lambda request, _: answering(request))
