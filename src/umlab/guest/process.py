"""One guest as a process of ours: start, console, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from umlab._boot import Boot, boot_of
from umlab.errors import GuestFailed, LabError, UmlabError
from umlab.guest.cmdline import FdNic, GuestSpec, HostRoot, kernel_arguments
from umlab.guest.console import Console
from umlab.guest.containment import check_containment, restrictions
from umlab.guest.group import Group, LocalStarter, Order, Starter
from umlab.guest.inside.agent import Agent
from umlab.guest.inside.agent_line import SESSIONS
from umlab.guest.inside.root import OVERLAY, build_initramfs
from umlab.guest.kernel.answer import kernel_release
from umlab.guest.kernel.store import modules_directory
from umlab.guest.rundir import RunDirectory

_log = logging.getLogger(__name__)

#: Seconds that a guest's kernel has to end itself after SIGTERM.
TERM_TIMEOUT = 5.0
#: How a kernel ends that was told to halt: when everything is done it lets signals that wait be handled, in
#: what is no kernel any more, and rarely aborts of one.
#: Source: Linux arch/um/os-Linux/main.c ``unblock_signals``.
HALT_STATUSES = frozenset({0, -signal.SIGABRT})
#: Seconds after which processes that were killed are given up (:mod:`umlab.guest.watch` waits 10).
_KILL_TIMEOUT = 15.0
_READ_SIZE = 64 * 1024
#: Reads of the console pipe after the guest's end: a process that has left the group may fill it for ever.
_LAST_READS = 16
#: What the descriptors of its agent's lines are called.
_LINES = ("channel", *(f"line{number}" for number in range(1, 2 * SESSIONS + 1)))


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a stop ladder.

    Attributes:
        name: What is reported if it ends the guest.
        action: Asks the guest to end.  An UmlabError or OSError from it means that this rung does not
            hold, and the next one is taken at once.
        timeout: Seconds for the action and the guest's end together.
        until: Waits for a sign that this rung has done all that it can though the guest has not ended;
            then the next one is taken.
    """

    name: str
    action: Callable[[], Awaitable[object]]
    timeout: float
    until: Callable[[], Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a guest ended.

    Attributes:
        rung: The rung that ended it; ``ended`` when it had ended before.
        status: Exit status of its main process, negative for a signal.
    """

    rung: str
    status: int


@dataclass(frozen=True, slots=True)
class GuestHandle:
    """All that another process needs to take over a running guest.

    Attributes:
        memory_path: Where its memory file is.
        started_at: When it was started, seconds since 1970.
        fds: By name: ``lock`` of the run directory, ``output``, the reading end of its console, ``terminal``,
            where it has one, the master side of it, ``channel``, our end of its agent's control line, and
            ``line1``, ``line2``, ..., those of its sessions' lines.
    """

    memory_path: str
    started_at: float
    fds: Mapping[str, int]


class Guest:
    """A running guest, made by :meth:`start`; an async context manager that ends it.

    Its main process leads a process group of its own.  As soon as that process is dead, by whatever
    cause, the whole group is killed, because the guest's programs would run on as host processes.

    Attributes:
        spec: What it was started from.
        run: Its run directory, until the end of :meth:`stop`.
        console: What it prints.
        agent: Its command channel, where its root runs our agent.
        pid: Its main process and process group.
        started_at: When it was started, seconds since 1970.
        terminal: Master side of its terminal, -1 where it has none; whoever uses it duplicates it.
    """

    def __init__(
        self,
        spec: GuestSpec,
        run: RunDirectory,
        console: Console,
        *,
        started_at: float,
        output: int,
        lines: Sequence[socket.socket],
        terminal: int,
    ) -> None:
        """Use :meth:`start` or :meth:`adopt`."""
        self.spec = spec
        self.run = run
        self.console = console
        self.pid = 0
        self.started_at = started_at
        self.terminal = terminal
        self.agent = Agent(
            spec.umid, lines[0], lines[1:], run.share, ended=self.wait, console_text=lambda: console.text
        )
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._output = output
        self._group: Group
        self._closed = False

    @classmethod
    async def start(
        cls,
        spec: GuestSpec,
        base: str,
        *,
        console: Console | None = None,
        starter: Starter | None = None,
        terminal: bool = False,
        nic_fds: Sequence[int] = (),
        notify: str | None = None,
    ) -> Guest:
        """Start a guest; returns when its process runs, long before it has booted.

        Args:
            spec: The guest.
            base: An existing directory in which its run directory is made.
            console: Takes what it prints; a new one that has no file unless given.
            starter: Who holds its processes; they end with this process unless given.
            terminal: Give its second console, ``con1``, a terminal.
            nic_fds: The descriptors that its ``fd`` NICs inherit, in order; they stay the caller's.
            notify: The socket on which its kernel says what nobody has asked for.

        Raises:
            LabError: Something that it needs is missing or not usable, its name is in use, or it cannot
                be contained, unless ``spec.landlock`` gives that up.
        """
        assert len(nic_fds) == sum(isinstance(nic, FdNic) for nic in spec.nics)
        check_containment(spec)
        _check_kernel(spec)
        run = RunDirectory(base, spec.umid)
        try:
            os.mkdir(run.share, 0o700)
            told, initrd = await asyncio.to_thread(_build_root, spec, run)
            arguments = kernel_arguments(
                told, uml_dir=run.path, initrd=initrd, share=run.share, terminal=terminal, notify=notify
            )
            return await cls._spawn(
                spec, run, arguments, console or Console(), starter or LocalStarter(), terminal, nic_fds
            )
        except (OSError, ValueError) as error:
            run.remove()
            raise LabError(f"guest {spec.umid}: cannot be started: {error}") from None
        except BaseException:
            run.remove()
            raise

    @classmethod
    def adopt(
        cls, spec: GuestSpec, base: str, handle: GuestHandle, console: Console, group: Group, *, ready: bool
    ) -> Guest:
        """Take over a running guest that an earlier process of ours has started.

        Whoever watches its processes has to tell :meth:`ended` of their end.

        Args:
            spec: As it was given then.
            base: As it was given then.
            handle: What :meth:`handle` returned then, with descriptors of this process, which belong to
                the guest from now on, on an error to the caller.
            console: What it prints goes on there.
            group: Its processes.
            ready: Its agent has greeted.

        Raises:
            LookupError, OSError, ValueError: The descriptors are not what they should be.
        """
        fds = handle.fds
        output, lines = fds["output"], [fds[name] for name in _LINES]
        run = RunDirectory.adopt(base, spec.umid, handle.memory_path, fds["lock"])
        socks: list[socket.socket] = []
        try:
            socks += (socket.socket(fileno=line) for line in lines)
            guest = cls(
                spec,
                run,
                console,
                started_at=handle.started_at,
                output=output,
                lines=socks,
                terminal=fds.get("terminal", -1),
            )
            guest._watch(group)
        except BaseException:
            for sock in socks:
                sock.detach()
            raise
        if ready:
            guest.agent.assume_ready()
        return guest

    def _watch(self, group: Group) -> None:
        self._group = group
        self.pid = group.pid
        self._loop.add_reader(self._output, self._read_console)

    def handle(self) -> GuestHandle:
        """Return what another process needs to take this guest over; the descriptors stay ours."""
        fds = {
            "lock": self.run.lock,
            "output": self._output,
            **dict(zip(_LINES, self.agent.fds, strict=True)),
        }
        if self.terminal >= 0:
            fds["terminal"] = self.terminal
        return GuestHandle(self.run.memory_path, self.started_at, fds)

    @property
    def status(self) -> int | None:
        """Exit status of the main process, negative for a signal, ``None`` while it runs."""
        return self._ended.result() if self._ended.done() else None

    @property
    def boot(self) -> Boot | None:
        """The present boot, ``None`` before the kernel has made its memory file and after its end."""
        return boot_of(self.pid) if self.status is None else None

    async def wait(self) -> int:
        """Wait for the guest's end and return its exit status; its group is gone then."""
        return await asyncio.shield(self._ended)

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until its agent answers.

        Args:
            timeout: Seconds.

        Raises:
            GuestFailed: It ended, or was not ready in time; with the console's tail.
            LabError: Its kernel found its name in use and boots under another one.
        """
        await self.agent.ready(timeout)
        name = self.run.umid_of(self.pid)
        if name is not None and name != self.spec.umid:
            raise LabError(f"guest {self.spec.umid}: its name was in use, the kernel booted as {name}")

    async def stop(self, rungs: Sequence[Rung] = (), *, term_timeout: float = TERM_TIMEOUT) -> StopReport:
        """End the guest and remove all that it used.

        Takes the rungs in turn, then SIGTERM to the main process, then SIGKILL to the group.  Cancelled,
        it kills the group at once.

        Args:
            rungs: Softer steps that come first.
            term_timeout: Seconds for SIGTERM; 0 leaves that rung out.

        Raises:
            GuestFailed: Even after SIGKILL there is no end: a process hangs in the host's kernel.
        """
        try:
            report = await self._climb(rungs, term_timeout)
        except BaseException:
            self._group.kill()
            raise
        finally:
            await self._close()
        return report

    async def let_go(self) -> None:
        """Close what this process has of the guest, which its starter goes on holding.  Idempotent."""
        if not self._closed:
            self._closed = True
            self._close_descriptors()
            self.run.let_go()
            await self.agent.close()

    async def __aenter__(self) -> Guest:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @classmethod
    async def _spawn(
        cls,
        spec: GuestSpec,
        run: RunDirectory,
        arguments: Sequence[str],
        console: Console,
        starter: Starter,
        terminal: bool,
        nic_fds: Sequence[int],
    ) -> Guest:
        order = Order((*restrictions(spec, run), spec.kernel, *arguments), run.path, _environment(run))
        with contextlib.ExitStack() as on_error, contextlib.ExitStack() as theirs:
            pairs = []
            for _ in _LINES:
                ours, their_line = pair = socket.socketpair()
                on_error.enter_context(ours)
                theirs.enter_context(their_line)
                pairs.append(pair)
            output, their_output = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, their_output)
            on_error.callback(os.close, output)
            os.set_blocking(output, False)
            master, files = -1, [their_line.fileno() for _, their_line in pairs]
            if terminal:
                master, slave = os.openpty()
                theirs.callback(os.close, slave)
                on_error.callback(os.close, master)
                files.append(slave)
            files += nic_fds
            guest = cls(
                spec,
                run,
                console,
                started_at=time.time(),
                output=output,
                lines=[ours for ours, _ in pairs],
                terminal=master,
            )
            guest._watch(await starter.start(spec.umid, order, their_output, files, guest.ended))
            on_error.pop_all()
        return guest

    def ended(self, status: int) -> None:
        """Take note of the end of its last process; called by whoever started them."""
        for _ in range(_LAST_READS):
            if not self._read_console():
                break
        if not self._ended.done():
            self._ended.set_result(status)

    def _read_console(self) -> bool:
        """Take what the console's pipe has; say whether there may be more."""
        if self._output < 0:
            return False
        try:
            data = os.read(self._output, _READ_SIZE)
        except BlockingIOError:
            return False
        if data:
            self.console.feed(data)
        else:
            self._loop.remove_reader(self._output)
        return bool(data)

    async def _climb(self, rungs: Sequence[Rung], term_timeout: float) -> StopReport:
        if self.status is not None:
            return StopReport("ended", self.status)
        ladder = list(rungs)
        if term_timeout > 0:
            ladder.append(Rung("term", self._terminate, term_timeout))
        for rung in ladder:
            await self._take_rung(rung)
            if self.status is not None:
                return StopReport(rung.name, self.status)
            _log.info("guest %s: %s did not end it", self.spec.umid, rung.name)
        self._group.kill()
        try:
            status = await asyncio.wait_for(self.wait(), _KILL_TIMEOUT)
        except TimeoutError:
            raise GuestFailed(self.spec.umid, None, self.console.text) from None
        return StopReport("kill", status)

    async def _take_rung(self, rung: Rung) -> None:
        """Do what a rung does and wait for the guest's end, the rung's sign, or its time limit."""
        waiting: list[asyncio.Future[object]] = [asyncio.ensure_future(self.wait())]
        if rung.until is not None:
            waiting.append(asyncio.ensure_future(rung.until()))
        try:
            async with asyncio.timeout(rung.timeout):
                # Let the sign's waiter begin before the guest is asked.
                await asyncio.sleep(0)
                await rung.action()
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return
        except (UmlabError, OSError) as error:
            _log.info("guest %s: %s: %s", self.spec.umid, rung.name, error)
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _terminate(self) -> None:
        self._group.signal(signal.SIGTERM)

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._group.gone(_KILL_TIMEOUT)
        self._close_descriptors()
        # A hostile guest may have left very many files.
        await asyncio.to_thread(self.run.remove)
        await self.agent.close()

    def _close_descriptors(self) -> None:
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._output = -1
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


def _check_kernel(spec: GuestSpec) -> None:
    if not os.access(spec.kernel, os.X_OK) or not os.path.isfile(spec.kernel):
        raise LabError(
            f"guest {spec.umid}: there is no kernel {spec.kernel}; install the package user-mode-linux "
            "or name another kernel"
        )


def _build_root(spec: GuestSpec, run: RunDirectory) -> tuple[GuestSpec, str]:
    """Make the initramfs; return the guest as its kernel is told of it, with its modules, and the file."""
    root = spec.root
    optional = (OVERLAY,) if isinstance(root, HostRoot) else ()
    release = kernel_release(spec.kernel) if root.modules or optional else ""
    if release and spec.modules_directory is None:
        spec = replace(spec, modules_directory=modules_directory(Path(spec.kernel), release))
    path = os.path.join(run.path, "root.cpio")
    with open(path, "wb") as file:
        file.write(
            build_initramfs(
                root.modules, optional=optional, release=release, modules_directory=spec.modules_directory
            )
        )
    return spec, path


def _environment(run: RunDirectory) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("TMP", "TEMP")}
    environment["TMPDIR"] = run.memory_path
    return environment
