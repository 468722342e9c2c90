"""Guests of this test only: nothing is looked for where other guests of this machine are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from umlab.testing import SimulatedGuests


def only_guests_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one directory in the place of the usual ones, and of those that running kernels tell."""
    monkeypatch.setattr("umlab.client.find.usual_roots", lambda: [str(directory)])
    monkeypatch.setattr("umlab.client.find.process_roots", list)


@contextmanager
def guests_outside_labs(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedGuests]:
    """Simulate guests that no lab has, the only ones that are found.

    Args:
        runtime: Where the labs' directories are.
        monkeypatch: Undoes it.
    """
    directory = runtime / "uml"
    directory.mkdir()
    only_guests_in(directory, monkeypatch)
    with SimulatedGuests(directory) as guests:
        yield guests
