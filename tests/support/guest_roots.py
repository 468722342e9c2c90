"""Labs and guests of this test only: nothing is looked for where others of this machine are.

Fixtures, for a conftest to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from umlab.testing import SimulatedGuests


@pytest.fixture
def runtime(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the labs' directories are; there are no guests outside them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    _look_in(short_dir / "nowhere", monkeypatch)
    return short_dir


@pytest.fixture
def guests(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedGuests]:
    """Yield the guests outside labs."""
    directory = runtime / "uml"
    directory.mkdir()
    _look_in(directory, monkeypatch)
    with SimulatedGuests(directory) as guests:
        yield guests


def _look_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one directory in the place of the usual ones, and of those that running kernels tell."""
    monkeypatch.setattr("umlab.client.find.usual_roots", lambda: [str(directory)])
    monkeypatch.setattr("umlab.client.find.process_roots", list)
