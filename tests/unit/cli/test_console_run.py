"""Lines of the console whose guests' daemon hangs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled
from umlab.cli import console_state
from umlab.cli.console_guest import Guests
from umlab.cli.console_run import Manner, Runner
from umlab.cli.console_state import GuestState, look
from umlab.client.console import GuestConsole


@pytest.fixture
def hung(runtime: Path) -> Iterator[GuestConsole]:
    """A guest whose lab has a daemon that takes every connection and says nothing."""
    (runtime / "umlab/ring").mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / "umlab/ring/api.sock"))
        listener.listen()
        yield GuestConsole("left", lab="ring")


@pytest.mark.parametrize("line", ["switch ring/left", "version"])
async def test_nobody_has_to_wait_for_a_daemon(
    hung: GuestConsole, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(Guests([hung] if line == "version" else []), Manner())
    running = asyncio.create_task(runner.run(line))
    async with asyncio.timeout(scaled(8)):
        while not running.done():
            await asyncio.sleep(0.01)
            runner.interrupt()
    assert not running.result()
    assert "not waited for" in capsys.readouterr().err


async def test_guest_of_a_daemon_that_hangs_is_silent(
    hung: GuestConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_state, "_TOLD_TIME", 0.2)
    assert await look(hung) == GuestState("silent")
