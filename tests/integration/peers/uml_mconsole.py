"""Run one command in a ``uml_mconsole``, the C original or ours."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from support.deadline import scaled
from support.require import require_program


def program_path(which: str) -> Path:
    """Return the path of the ``original`` (skips where it is not installed) or of ``ours``."""
    if which == "original":
        return require_program("uml_mconsole")
    return Path(sys.executable).with_name("uml_mconsole")


async def mconsole(which: str, name: str, *command: str, home: Path | None = None) -> str:
    """Run one command, which must succeed, and return what it prints.

    Args:
        which: ``original`` or ``ours``.
        name: The guest: a umid, or its socket's path.
        command: The words of the command.
        home: Where ``.uml`` with the guests is.
    """
    process = await asyncio.create_subprocess_exec(
        program_path(which),
        name,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | ({"HOME": str(home)} if home else {}),
    )
    try:
        # The original waits for ever for a guest that does not answer.
        async with asyncio.timeout(scaled(20)):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, (name, command, output, errors)
    return output.decode()
