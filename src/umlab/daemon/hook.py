"""Commands that are run when something happens to a guest.

The keeper has under ``hook/NAME`` what a hook is told to be, and under ``hook-run/PID`` a pidfd of each run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
import logging
import os
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from umlab._name import check_name
from umlab.daemon.event_log import EventLog
from umlab.daemon.hook_run import HookCommand, end_left, run_command
from umlab.daemon.journal import UNUSABLE
from umlab.daemon.view import HookView
from umlab.errors import CommandTimeout, LabError, LimitReached, NoSuchHook, UmlabError
from umlab.guest.console import escape
from umlab.keeper.link import KeeperLink

_log = logging.getLogger(__name__)

#: Hooks of a lab.
MAX_HOOKS = 32
#: Runs of one hook at a time, and events that wait for their turn.
MAX_RUNNING = 4
MAX_WAITING = 64
#: Seconds that a run has.
TIME_LIMIT = 60.0
#: Bytes of a hook's words, and of its log before a new one is begun.
MAX_WORDS = 16 * 1024
LOG_LIMIT = 1 << 20
#: Seconds in which events that found no place are counted before it is told.
_TELL_TIME = 1.0
#: What is meant for the daemon alone.
_NOT_PASSED_ON = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

#: What happens to guests.
GuestEvent = Literal[
    "guest_started",
    "guest_resumed",
    "guest_console",
    "guest_ready",
    "guest_rebooted",
    "guest_message",
    "guest_notify_dropped",
    "guest_silent",
    "guest_answers",
    "guest_hung",
    "guest_panicked",
    "guest_ended",
    "guest_removed",
]
GUEST_EVENTS: tuple[str, ...] = get_args(GuestEvent)


@dataclass(frozen=True, slots=True)
class Hook:
    """A command for events of guests.

    Attributes:
        name: Its name.
        on: The kinds of events, such as ``guest_panicked``.
        run: A program, by path or as the daemon's ``PATH`` has it, and its arguments.
        guests: A pattern of guests' names, with ``*``, ``?`` and ``[...]``; ``None`` for all.

    Raises:
        LabError: It has no event or no command, or one that cannot be.
    """

    name: str
    on: tuple[GuestEvent, ...]
    run: tuple[str, ...]
    guests: str | None = None

    def __post_init__(self) -> None:
        check_name("hook", self.name)
        for kind in self.on:
            if kind not in GUEST_EVENTS:
                raise LabError(f"hook {self.name}: {kind[:64]!r} is no event of a guest")
        size = sum(len(os.fsencode(word)) + 1 for word in self.run)
        if not self.on or not self.run or not self.run[0]:
            raise LabError(f"hook {self.name}: an event and a command are needed")
        if size > MAX_WORDS or any("\0" in word for word in self.run):
            raise LabError(f"hook {self.name}: the command has over {MAX_WORDS} bytes, or a NUL")
        if self.guests is not None and not 0 < len(self.guests) <= 64:
            raise LabError(f"hook {self.name}: a pattern of guests has 1 to 64 characters")

    def matches(self, record: dict[str, Any]) -> bool:
        """Say whether an event is one for it."""
        if record["event"] not in self.on:
            return False
        return self.guests is None or fnmatch.fnmatchcase(record["guest"], self.guests)


class HookSet:
    """The hooks of a lab.

    Args:
        lab: The lab's name.
        state: Its directory for logs.
        keeper: Who holds what they are told to be.
        events: What they wait for, and where their runs are published.
    """

    def __init__(self, lab: str, state: Path, keeper: KeeperLink, events: EventLog) -> None:
        self._lab = lab
        self._state = state
        self._keeper = keeper
        self._events = events
        self._queues: dict[str, _Queue] = {}
        events.subscribers.append(self._take)

    def resume(self) -> None:
        """Go on with the hooks that an earlier daemon has left, and end what runs of them.

        What cannot be understood stays among the keeper's things.
        """
        end_left(self._keeper)
        for key in [key for key in self._keeper.things if key.startswith("hook/")]:
            try:
                hook: Hook = TypeAdapter(Hook).validate_python(self._keeper.things[key].meta)
            except (UmlabError, *UNUSABLE) as error:
                _log.error("%s cannot be taken over: %r", key, error)
                continue
            del self._keeper.things[key]
            self._queues[hook.name] = self._queue(hook)

    def views(self) -> list[HookView]:
        """Return every hook, by name."""
        return [self.view(name) for name in sorted(self._queues)]

    def view(self, name: str) -> HookView:
        """Return a hook.  Raises NoSuchHook."""
        if name not in self._queues:
            raise NoSuchHook(name)
        queue = self._queues[name]
        hook = queue.hook
        return HookView(hook.name, hook.on, hook.guests, hook.run, str(queue.log))

    async def put(self, hook: Hook) -> bool:
        """Have a hook of this description from now on, and say whether that is a change.

        Raises:
            LimitReached: The lab has too many.
        """
        known = self._queues.get(hook.name)
        if known is not None and known.hook == hook:
            return False
        if known is None and len(self._queues) >= MAX_HOOKS:
            raise LimitReached(f"a lab has {MAX_HOOKS} hooks at most")
        self._keeper.put(f"hook/{hook.name}", asdict(hook), ())
        self._queues[hook.name] = self._queue(hook)
        if known is not None:
            await known.close()
        return True

    async def remove(self, name: str) -> bool:
        """Have a hook no more, end its runs, and say whether there was one."""
        queue = self._queues.pop(name, None)
        if queue is None:
            return False
        self._keeper.drop(f"hook/{name}")
        await queue.close()
        return True

    async def close(self) -> None:
        """End every run, and begin none any more.  Idempotent."""
        with contextlib.suppress(ValueError):
            self._events.subscribers.remove(self._take)
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))

    def _queue(self, hook: Hook) -> _Queue:
        return _Queue(hook, self._lab, self._state, self._keeper, self._events)

    def _take(self, record: dict[str, Any]) -> None:
        # Frames make events too, many more.
        if record["event"].startswith("guest_"):
            for queue in self._queues.values():
                if queue.hook.matches(record):
                    queue.take(record)


class _Queue:
    """The runs of one hook, and the events that wait for theirs."""

    def __init__(self, hook: Hook, lab: str, state: Path, keeper: KeeperLink, events: EventLog) -> None:
        self.hook = hook
        self.log = state / f"hook-{hook.name}.log"
        self._lab = lab
        self._keeper = keeper
        self._events = events
        self._waiting: deque[dict[str, Any]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._dropped = 0
        self._tell: asyncio.TimerHandle | None = None

    def take(self, record: dict[str, Any]) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(record)
            self._run_next()
            return
        self._dropped += 1
        if self._tell is None:
            self._tell = asyncio.get_running_loop().call_later(_TELL_TIME, self._tell_dropped)

    async def close(self) -> None:
        self._waiting.clear()
        if self._tell is not None:
            self._tell.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _run_next(self) -> None:
        while self._waiting and len(self._running) < MAX_RUNNING:
            task = asyncio.create_task(self._run(self._waiting.popleft()))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._run_next()

    async def _run(self, record: dict[str, Any]) -> None:
        facts = {"hook": self.hook.name, "guest": record["guest"], "on": record["event"]}
        began_at = time.monotonic()
        try:
            log = _open_log(self.log, record)
            try:
                words, environment, data = self.hook.run, self._environment(record), self._data(record)
                command = HookCommand(words, environment, str(self.log.parent), data, log)
                status = await run_command(record["guest"], command, TIME_LIMIT, self._keeper)
            finally:
                os.close(log)
        except CommandTimeout:
            reason = f"it did not end within {TIME_LIMIT:g} seconds and was killed"
            self._events.publish({"event": "hook_failed", **facts, "reason": reason})
        except (OSError, ValueError) as error:
            self._events.publish({"event": "hook_failed", **facts, "reason": str(error)})
        else:
            seconds = round(time.monotonic() - began_at, 3)
            self._events.publish({"event": "hook_ran", **facts, "status": status, "seconds": seconds})

    def _facts(self, record: dict[str, Any]) -> dict[str, Any]:
        return {"lab": self._lab, "hook": self.hook.name, **record}

    def _data(self, record: dict[str, Any]) -> bytes:
        return json.dumps(self._facts(record)).encode() + b"\n"

    def _environment(self, record: dict[str, Any]) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
        return environment | {
            f"UMLAB_{key.upper()}": _one_line(value) for key, value in self._facts(record).items()
        }

    def _tell_dropped(self) -> None:
        self._tell, count, self._dropped = None, self._dropped, 0
        self._events.publish({"event": "hook_dropped", "hook": self.hook.name, "count": count})


def _one_line(value: Any) -> str:
    return escape(str(value).encode()).replace("\n", "\\n").replace("\t", "\\t")


def _open_log(path: Path, record: dict[str, Any]) -> int:
    """Open a hook's log, or a new one where it has become long, and say what comes.  Raises OSError."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(f"{path}.1")
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["at"]))
    # A full disk is no reason not to run.
    with contextlib.suppress(OSError):
        os.write(log, f"--- {at} {record['event']} {record['guest']}\n".encode())
    return log
