"""Guests of this test only: nothing is looked for where other guests of this machine are."""

from __future__ import annotations

from pathlib import Path

import pytest


def only_guests_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one directory in the place of the usual ones, and of those that running kernels tell."""
    monkeypatch.setattr("umlab.client.find.usual_roots", lambda: [str(directory)])
    monkeypatch.setattr("umlab.client.find.process_roots", list)
