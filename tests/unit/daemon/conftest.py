"""A keeper's process, ended whatever the test does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.kept_lab import KeptLab
from support.real_keeper import RealKeeper


@pytest.fixture
async def keeper(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RealKeeper]:
    """Yield a keeper that holds nothing; what a guest that is killed leaves goes with the directory."""
    monkeypatch.setenv("TMPDIR", str(short_dir))
    made = RealKeeper(short_dir)
    yield made
    await made.end()


@pytest.fixture
async def kept(keeper: RealKeeper, short_dir: Path) -> AsyncIterator[KeptLab]:
    """Yield a lab without anything in it, whose daemon runs."""
    lab = KeptLab(keeper, short_dir)
    await lab.start()
    yield lab
    await lab.crash()
