"""Who starts a guest's process group and tells of its end: this process, or one that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from umlab.guest.launch import command_line
from umlab.guest.watch import WatchedGroup


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Attributes:
        words: What :mod:`umlab.guest.launch` is told behind its descriptors.
        cwd: The working directory.
        env: The whole environment.
    """

    words: tuple[str, ...]
    cwd: str
    env: dict[str, str]


class Group(Protocol):
    """A process group that is killed as a whole when its main process dies or its starter does."""

    @property
    def pid(self) -> int:
        """The main process, which is the group's number."""

    def signal(self, number: int) -> None:
        """Send a signal to the main process only; nothing happens when it is gone."""

    def kill(self) -> None:
        """Send SIGKILL to the whole group at once; nothing happens when it is gone."""

    async def gone(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until no process of it is left, ``timeout`` seconds at most, and say whether that came."""


class Starter(Protocol):
    """Starts process groups."""

    async def start(
        self, name: str, order: Order, output: int, files: Sequence[int], on_end: Callable[[int], None]
    ) -> Group:
        """Start a group.

        Args:
            name: A name that no other group has.
            order: What is to be started.
            output: Descriptor for its standard output and error; stays the caller's.
            files: Descriptors that become 3, 4, ... in it; they stay the caller's.
            on_end: Called once in the event loop's thread with the exit status, negative for a signal,
                after the last process is gone.

        Raises:
            OSError, ValueError: It cannot be started.
        """


class LocalGroup:
    """A group that this process watches; see :class:`Group`."""

    def __init__(self, watch: WatchedGroup, pid: int) -> None:
        self._watch = watch
        self.pid = pid

    def signal(self, number: int) -> None:
        """Send a signal to the main process only."""
        self._watch.signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the whole group at once."""
        self._watch.kill()

    async def gone(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until no process of it is left."""
        return await asyncio.shield(asyncio.to_thread(self._watch.join, timeout))


class LocalStarter:
    """Groups end with this process; see :class:`Starter`."""

    async def start(
        self, name: str, order: Order, output: int, files: Sequence[int], on_end: Callable[[int], None]
    ) -> LocalGroup:
        """Start a group; blocks for the milliseconds that this takes."""
        loop = asyncio.get_running_loop()

        def ended(status: int) -> None:
            # A closed loop has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(on_end, status)

        watch = WatchedGroup(
            command_line(files, order.words),
            cwd=order.cwd,
            env=order.env,
            output=output,
            pass_fds=files,
            on_end=ended,
        )
        return LocalGroup(watch, watch.start())
