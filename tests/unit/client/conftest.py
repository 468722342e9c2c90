"""Both clients, driven by the same tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.both_clients import Shell
from support.guest_roots import only_guests_in


@pytest.fixture(params=["sync", "aio"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return Shell(request.param)


@pytest.fixture
def runtime(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    # No guest of another test is to be found.
    only_guests_in(short_dir / "nowhere", monkeypatch)
    return short_dir
