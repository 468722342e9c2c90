"""The API of a fake lab for every test here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.api_lab import ApiLab, serve


@pytest.fixture
async def api(short_dir: Path) -> AsyncIterator[ApiLab]:
    async with serve(short_dir) as served:
        yield served
