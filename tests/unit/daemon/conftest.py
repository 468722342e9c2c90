"""A keeper's process, ended whatever the test does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.real_keeper import RealKeeper


@pytest.fixture
async def keeper(short_dir: Path) -> AsyncIterator[RealKeeper]:
    """Yield a keeper that holds nothing."""
    made = RealKeeper(short_dir)
    yield made
    await made.end()
