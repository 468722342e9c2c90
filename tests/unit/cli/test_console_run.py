"""Lines of the console whose guests' daemon hangs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled
from umlab.cli.console_guest import Guests
from umlab.cli.console_run import Manner, Runner
from umlab.client import console
from umlab.client.console import GuestConsole
from umlab.daemon.view import GuestVitals
from umlab.errors import ApiTimeout
from umlab.mconsole.command import Command


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
    monkeypatch.setattr(console, "ANSWER_TIME", 0.0)
    monkeypatch.setattr(console, "_GRACE", 0.2)
    assert await hung.vitals() == GuestVitals("left", "silent")


async def test_daemon_that_hangs_takes_no_more_than_the_commands_time(hung: GuestConsole) -> None:
    began = time.monotonic()
    with pytest.raises(ApiTimeout, match="may be hung"):
        await hung.run(Command("version", 0.1))
    assert time.monotonic() - began < scaled(5)
