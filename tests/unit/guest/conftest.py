"""Guests whose agent a test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.deadline import scaled
from support.scripted_agent import FILE, LINE, ScriptedAgent

_LONG = scaled(10)


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[ScriptedAgent]:
    """A guest that has said nothing yet."""
    share = tmp_path / "share"
    share.mkdir()
    scripted = ScriptedAgent(share)
    await scripted.connect()
    yield scripted
    await scripted.close()


@pytest.fixture(params=[LINE, FILE], ids=["line", "file"])
async def greeted(guest: ScriptedAgent, request: pytest.FixtureRequest) -> ScriptedAgent:
    """A guest that has greeted, with and without the folder in common."""
    guest.say(request.param)
    await guest.agent.ready(_LONG)
    return guest


@pytest.fixture
async def by_line(guest: ScriptedAgent) -> ScriptedAgent:
    """A guest that takes all over its lines."""
    guest.say(LINE)
    await guest.agent.ready(_LONG)
    return guest


@pytest.fixture
async def by_file(guest: ScriptedAgent) -> ScriptedAgent:
    """A guest that takes what is large through the folder in common."""
    guest.say(FILE)
    await guest.agent.ready(_LONG)
    return guest
