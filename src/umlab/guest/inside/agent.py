"""The agent in a guest: it runs commands there, several at once, on serial lines.

The control line has short lines of text in both directions; what the agent says there is in
:mod:`umlab.guest.inside.agent_line`, what the host says are ``begin BOOT PID`` (the greeting has been
heard; what comes before this was for an earlier kernel), ``open N SERIAL`` (begin session N, for commands
from SERIAL on; the agent answers with its end), ``signal N NAME SERIAL``, ``size N ROWS COLUMNS``, ``cut N
SERIAL`` (wait no longer for output of session N, whose command has ended) and ``reset NUMBER`` (end all
sessions; an agent that has not been told to begin greets again).  SERIAL is a higher one for each command,
so that what comes too late does nothing to the next one.  What a session's lines carry is in
:mod:`umlab.guest.inside.session`.  All that the guest sends is untrusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from umlab.errors import CommandTimeout, GuestFailed, RemoteProtocolError, StateError, UmlabError
from umlab.guest.inside.agent_line import (
    SESSIONS,
    End,
    Exit,
    Greeting,
    Heard,
    Line,
    More,
    Reset,
    Settled,
    parse_line,
)
from umlab.guest.inside.session import Request, Session
from umlab.guest.inside.share import Share
from umlab.guest.inside.stream import take_all

#: Bytes of output that :meth:`Agent.run` takes from one command.
MAX_OUTPUT = 64 << 20
#: Seconds that a dead guest's exit status takes at most to arrive after the end of its serial line.
_STATUS_TIMEOUT = 2.0
#: Seconds that an agent has to end what an earlier owner of the lines has left running.
_RESET_TIMEOUT = 30.0
#: Bytes that a line of the agent's can have.
_LINE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a guest ended.

    Attributes:
        status: Its exit status, 128 + n when signal n ended it.
        stdout: Its standard output, raw and untrusted.
        stderr: The same of its standard error.
    """

    status: int
    stdout: bytes
    stderr: bytes


class Agent:
    """The host's end of the lines.

    Args:
        umid: The guest.
        channel: Our end of the control line.
        lines: Our ends of the sessions' lines, two for each session.  All belong to the agent from now on.
        share: The path of the folder that the guest may have in common with us.
        ended: Waits for the guest's end and returns its exit status.
        console_text: Returns the escaped tail of its console.
    """

    def __init__(
        self,
        umid: str,
        channel: socket.socket,
        lines: Sequence[socket.socket],
        share: str,
        *,
        ended: Callable[[], Awaitable[int]],
        console_text: Callable[[], str],
    ) -> None:
        assert len(lines) == 2 * SESSIONS
        for sock in (channel, *lines):
            sock.setblocking(False)
        self._umid = umid
        self._channel = channel
        self._lines = lines
        self._share_path = share
        self._share: Share | None = None
        self._ended = ended
        self._console_text = console_text
        self._listening: asyncio.Task[None] | None = None
        # Set when it has greeted or will never do so.
        self._greeted = asyncio.Event()
        self._failure: UmlabError | None = None
        self._begun: Greeting | None = None
        # An earlier owner of this end may have left something running.
        self._is_stale = False
        self._resets = 0
        self._reset = asyncio.Event()
        self._resetting = asyncio.Lock()
        # Sessions that the agent has begun, and those of them that wait for a command.
        self._opened: set[int] = set()
        self._idle: list[int] = []
        self._changed = asyncio.Condition()
        self._waiting = 0
        self._running: dict[int, Session] = {}
        self._serial = 0
        self._draining: dict[Session, asyncio.Task[None]] = {}

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors of our ends: the control line, and the sessions' lines."""
        return (self._channel.fileno(), *(line.fileno() for line in self._lines))

    def assume_ready(self) -> None:
        """Take it that the agent has greeted an earlier owner, which may have left things running."""
        self._is_stale = True
        self._greeted.set()

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until the agent has greeted.

        Args:
            timeout: Seconds.

        Raises:
            GuestFailed: The guest ended, or did not greet in time.
            RemoteProtocolError: Something else greeted.
            StateError: The lines are closed.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._greet()
        except TimeoutError:
            raise GuestFailed(self._umid, None, self._console_text()) from None

    async def open(self, request: Request) -> Session:
        """Begin a command in the guest, as its root; waits while as many as can run at once are running.

        Raises:
            GuestFailed: The guest ended.
            LocalProtocolError: The script has more than 1 MiB, or is no text.
            RemoteProtocolError: The agent makes no sense.
            StateError: The lines are closed.
        """
        request.script_bytes()
        await self._greet()
        if self._is_stale:
            await self._start_anew()
        number = await self._take()
        self._serial += 1
        session = Session(number, self._serial, self._session_lines(number), self._share, self._tell)
        self._running[number] = session
        try:
            await session.start(request)
        except BaseException:
            self.release(session)
            raise
        return session

    def release(self, session: Session) -> None:
        """Give up a session: what runs in it is killed, and what it writes goes to nobody.  Idempotent."""
        if session in self._draining:
            return
        if self._running.get(session.number) is not session:
            session.forget()
            return
        with contextlib.suppress(RemoteProtocolError):
            session.signal("KILL")
        self._draining[session] = asyncio.create_task(self._drain(session))

    async def run(self, command: str, timeout: float) -> ExecResult:  # noqa: ASYNC109
        """Run a shell script in the guest, as its root, with empty standard input.

        A command that outlives its time limit is killed.

        Args:
            command: The script.
            timeout: Seconds from the call on, waiting for other callers included.

        Raises:
            CommandTimeout: The time limit came first.
            GuestFailed: The guest ended.
            LocalProtocolError: The command has more than 1 MiB, or is no text.
            RemoteProtocolError: The guest makes no sense, or the command wrote more than 64 MiB.
            StateError: The lines are closed.
        """
        try:
            async with asyncio.timeout(timeout):
                session = await self.open(Request(command))
                try:
                    stdout, stderr = await session.output(MAX_OUTPUT)
                    return ExecResult(await session.wait(), stdout, stderr)
                finally:
                    self.release(session)
        except TimeoutError:
            raise CommandTimeout(self._umid, command, timeout) from None

    async def reboot(self, reboot: Callable[[], Awaitable[object]], timeout: float) -> None:  # noqa: ASYNC109
        """Reboot the guest and wait until its agent has greeted again; what runs in it ends.

        Args:
            reboot: Makes the guest reboot.
            timeout: Seconds for all of it.

        Raises:
            GuestFailed: The guest ended, or did not greet in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._greet()
                self._greeted.clear()
                await reboot()
                await self._greet()
        except TimeoutError:
            raise GuestFailed(self._umid, None, self._console_text()) from None

    async def close(self) -> None:
        """Close the lines; commands that wait fail.  Idempotent."""
        if self._channel.fileno() < 0:
            return
        await self._fail(StateError(f"guest {self._umid}: the lines to its agent were closed"))
        tasks = [*self._draining.values(), *([self._listening] if self._listening is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening = None
        for line in self._lines:
            asyncio.get_running_loop().remove_reader(line)
            line.close()
        self._channel.close()
        if self._share is not None:
            self._share.close()

    async def _greet(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        await self._greeted.wait()
        if self._failure is not None:
            raise self._failure

    async def _listen(self) -> None:
        """Read the control line to its end."""
        loop, rest = asyncio.get_running_loop(), b""
        try:
            while data := await loop.sock_recv(self._channel, _LINE_SIZE):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LINE_SIZE:
                    raise RemoteProtocolError(f"the guest's agent said {rest[:80]!r}")
                for line in lines:
                    await self._take_line(parse_line(line))
                # Others have their turn however much it says.
                await asyncio.sleep(0)
        except RemoteProtocolError as error:
            await self._fail(error)
        except ConnectionError:
            await self._fail(await self._death())
        else:
            await self._fail(await self._death())

    async def _take_line(self, line: Line) -> None:
        match line:
            case Greeting() if line != self._begun:
                await self._begin(line)
            case Reset(number, has_files) if number == self._resets:
                self._use_share(has_files)
                self._reset.set()
            case More(number) if number in self._running:
                self._running[number].took()
            case Heard(number) if number in self._running:
                self._running[number].hearing.heard()
            case Exit(number, status) if number in self._running:
                self._running[number].exited(status)
            case End(number) if number in self._running:
                self._running[number].ended()
            case Settled(number) if number in self._running:
                self._running[number].settled()
            case End(number) if number in self._opened and number not in self._idle:
                # What its line has echoed of an earlier command's.
                for sock in self._session_lines(number):
                    take_all(sock)
                await self._give(number)
            case _:
                # Of a session that has been ended meanwhile, an echo, or a greeting that has been answered.
                pass

    async def _begin(self, greeting: Greeting) -> None:
        """Take note that the agent has begun, perhaps anew."""
        if self._begun is None:
            # An earlier owner of the lines heard the last greeting.
            what = f"guest {self._umid} has rebooted, or its agent was killed"
        elif self._begun.boot == greeting.boot:
            what = f"the agent in guest {self._umid} was killed"
        else:
            what = f"guest {self._umid} has rebooted"
        self._begun = greeting
        self._tell(f"begin {greeting.boot} {greeting.pid}")
        await self._forget_sessions(StateError(f"{what}, what ran in it is lost"))
        self._use_share(greeting.has_files)
        # What an earlier owner of the lines has left running has ended.
        self._is_stale = False
        self._reset.set()
        # The first command shall not wait for its session.
        self._open_session(1)
        self._greeted.set()

    async def _start_anew(self) -> None:
        """Have everything end that an earlier owner of the lines has left running."""
        async with self._resetting:
            if not self._is_stale:
                return
            self._resets += 1
            self._reset.clear()
            self._tell(f"reset {self._resets}")
            try:
                async with asyncio.timeout(_RESET_TIMEOUT):
                    await self._reset.wait()
            except TimeoutError:
                raise RemoteProtocolError("the guest's agent does not answer") from None
            if self._failure is not None:
                raise self._failure
            if self._is_stale:
                await self._forget_sessions(StateError("the session was ended"))
                self._is_stale = False

    async def _forget_sessions(self, error: UmlabError) -> None:
        for session in self._running.values():
            session.fail(error)
        self._running.clear()
        self._opened.clear()
        self._idle.clear()
        for line in self._lines:
            take_all(line)
        async with self._changed:
            self._changed.notify_all()

    def _use_share(self, has_files: bool) -> None:
        if has_files and self._share is None:
            # A folder that the guest has made unusable is its own loss.
            with contextlib.suppress(OSError):
                self._share = Share(self._share_path)

    async def _take(self) -> int:
        """Return the number of a session that waits for a command."""
        async with self._changed:
            self._waiting += 1
            try:
                while True:
                    if self._failure is not None:
                        raise self._failure
                    if self._idle:
                        return self._idle.pop()
                    self._free_one()
                    await self._changed.wait()
            finally:
                self._waiting -= 1

    def _open_session(self, number: int) -> None:
        self._opened.add(number)
        # What a kernel before a reboot has not read is still in the line; it was for an earlier command.
        self._tell(f"open {number} {self._serial + 1}")

    def _free_one(self) -> None:
        """Open a session, or free one that waits for what its command, which has ended, has left behind."""
        unopened = set(range(1, SESSIONS + 1)) - self._opened
        opening = self._opened - self._running.keys()
        coming = len(opening) + sum(session.is_free for session in self._draining)
        if coming >= self._waiting:
            return
        if unopened:
            self._open_session(min(unopened))
            return
        for session in self._draining:
            if session.has_exited:
                session.cut()
                return

    def _session_lines(self, number: int) -> Sequence[socket.socket]:
        return self._lines[2 * number - 2 : 2 * number]

    async def _give(self, number: int) -> None:
        async with self._changed:
            self._idle.append(number)
            self._changed.notify_all()

    async def _drain(self, session: Session) -> None:
        try:
            with contextlib.suppress(UmlabError):
                await session.drain()
        finally:
            session.forget()
            del self._draining[session]
        # One that the guest has stopped reading stays taken.
        if session.is_free and self._running.get(session.number) is session and self._failure is None:
            del self._running[session.number]
            await self._give(session.number)

    def _tell(self, line: str) -> None:
        try:
            self._channel.send(f"{line}\n".encode())
        except BlockingIOError:
            raise RemoteProtocolError("the guest's agent does not read") from None
        except ConnectionError:
            # Its end is told by whoever reads.
            pass

    async def _death(self) -> UmlabError:
        """Return how the guest has ended, which the end of its serial line tells as a rule."""
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT):
                status: int | None = await self._ended()
        except TimeoutError:
            status = None
        return GuestFailed(self._umid, status, self._console_text())

    async def _fail(self, error: UmlabError) -> None:
        self._failure = self._failure or error
        self._greeted.set()
        self._reset.set()
        await self._forget_sessions(self._failure)
