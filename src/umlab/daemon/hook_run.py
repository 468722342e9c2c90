"""One run of a hook's command: a process group of its own that has a time limit and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umlab._readable import readable
from umlab.errors import CommandTimeout
from umlab.keeper.link import KeeperLink, Thing
from umlab.keeper.message import close_all

#: Seconds that a killed process has to be gone.
_KILL_TIME = 5.0
#: What the keeper has under this name is what a killed daemon has left running.
_KEY = "hook-run/"


@dataclass(frozen=True, slots=True)
class HookCommand:
    """What is run, without a shell.

    Attributes:
        words: A program, by path or as ``PATH`` has it, and its arguments.
        environment: Its whole environment.
        directory: Where it runs.
        data: What it reads on its standard input: less than a pipe holds.
        log: The descriptor of a file for all that it prints; stays the caller's.
    """

    words: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    data: bytes
    log: int


async def run_command(guest: str, command: HookCommand, limit: float, keeper: KeeperLink) -> int:
    """Run a command to its end and return its exit status, negative for a signal.

    Whatever has stayed in its process group is killed then, also when it is cancelled.

    Args:
        guest: The guest that it runs for, for the error.
        command: The command.
        limit: Seconds that it has.
        keeper: Is told of it, for a daemon that comes after a killed one.

    Raises:
        OSError, ValueError: It cannot be started.
        CommandTimeout: It did not end in time.
    """
    process = _start(command)
    key = f"{_KEY}{process.pid}"
    pidfd = -1
    try:
        pidfd = os.pidfd_open(process.pid)
        keeper.put(key, {}, (pidfd,))
        async with asyncio.timeout(limit):
            await readable(pidfd)
    except TimeoutError:
        raise CommandTimeout(guest, " ".join(command.words), limit) from None
    finally:
        # Before it is waited for: until then nobody else's group has its number.
        _kill(process.pid)
        if pidfd >= 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_TIME):
                    await readable(pidfd)
            os.close(pidfd)
            keeper.drop(key)
        status = process.poll()
    return -signal.SIGKILL if status is None else status


def end_left(keeper: KeeperLink) -> None:
    """Kill what a killed daemon has left running."""
    for key in [key for key in keeper.things if key.startswith(_KEY)]:
        thing = keeper.things.pop(key)
        if _lives(thing):
            _kill(int(key.removeprefix(_KEY)))
        close_all(thing.fds)
        keeper.drop(key)


def _start(command: HookCommand) -> subprocess.Popen[bytes]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        with open(writer, "wb", buffering=0) as pipe:
            pipe.write(command.data)
        return subprocess.Popen(
            command.words,
            stdin=reader,
            stdout=command.log,
            stderr=command.log,
            cwd=command.directory,
            env=command.environment,
            start_new_session=True,
        )
    finally:
        os.close(reader)


def _lives(thing: Thing) -> bool:
    try:
        signal.pidfd_send_signal(thing.fds[0], 0)
    except (OSError, IndexError):
        return False
    return True


def _kill(group: int) -> None:
    # Nobody is left, or it has become somebody else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
