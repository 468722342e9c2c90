"""The running ``vde_switch``: directory, console, pid file, signals, standard input, the end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import signal
import socket
import stat
import syslog
from collections.abc import Callable

from umlab._line_writer import LineWriter, write_now
from umlab._notify import notify
from umlab.compat._background import continue_in_background
from umlab.compat._switch_process import OptionalTap, keep_standard_descriptors
from umlab.compat._vde_console import Console, End, Setting, power_of_two
from umlab.compat._vde_options import SYSTEM_SCRIPT, USER_SCRIPT, Options
from umlab.compat._vde_ports import VdeSwitch
from umlab.compat._vde_sessions import ConsoleSessions
from umlab.daemon.access import find_group
from umlab.errors import SocketInUse, SwitchError, TransportError
from umlab.switch.model import SECOND_NS, SwitchConfig
from umlab.transports.contract import Access
from umlab.transports.socketfile import SocketFile
from umlab.transports.vde import VdeListener
from umlab.wire.vde_console import MAX_COMMAND, PROMPT, read_command

AGEING_TIME_NS = 100 * SECOND_NS

_IGNORED = (signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
_INPUT_ENDED = 0
_SHUT_DOWN = -1
_NO_DIRECTORY = 255


class _StartError(Exception):
    """The switch cannot start; the text says why."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def run(options: Options) -> int:
    """Run a switch until a signal, the end of standard input or its console ends it.

    Returns:
        The exit status.  An interrupt is sent again when everything is cleaned up, so that the caller sees
        it in the status; this does not return then.
    """
    keep_standard_descriptors()
    # The original has no lines about requests.
    logging.getLogger("umlab.daemon.switch").setLevel(logging.ERROR)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        access = Access(options.mode, _group(options.group))
        console_access = Access(options.mgmtmode, _group(options.mgmtgroup))
        options = _absolute(options)
        ready = continue_in_background() if options.daemon else None
        cause = asyncio.run(_serve(options, access, console_access, ready))
    except _StartError as error:
        write_now(2, str(error))
        return error.status
    if cause == signal.SIGINT:
        signal.signal(cause, signal.SIG_DFL)
        os.kill(os.getpid(), cause)
    return 0


async def _serve(
    options: Options, access: Access, console_access: Access, ready: Callable[[], None] | None
) -> int:
    """Run the switch; return the number of the signal that ended it, or another cause."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(cause: int) -> None:
        if not ended.done():
            ended.set_result(cause)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    async with contextlib.AsyncExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Once everything is cleaned up a second signal ends the process at once.
            stack.callback(signal.signal, number, signal.SIG_DFL)
            stack.callback(loop.remove_signal_handler, number)
        out, err = LineWriter(1, loop), LineWriter(2, loop)
        stack.callback(out.close)
        stack.callback(err.close)

        def log(text: str) -> None:
            if options.daemon:
                syslog.syslog(text)
            else:
                err.write(f"{options.program}: {text}")

        if options.daemon:
            syslog.openlog(options.program, syslog.LOG_PID, syslog.LOG_DAEMON)
        switch = await _start(options, access, log, stack)
        _set_directory_mode(options.program, options.directory, options.dirmode)
        if options.pidfile is not None:
            _write_pid(options.program, options.pidfile)
            stack.callback(_remove, options.pidfile)
        hash_size = power_of_two(options.hash_size)
        if hash_size != options.hash_size:
            log(f"Hash size must be a power of 2. {options.hash_size} rounded to {hash_size}")
        if options.fstp:
            log("there is no spanning tree here: no two switches may have two ways to each other")
        setting = Setting(
            options.directory, options.mode, options.mac, options.mgmt, options.mgmtmode, hash_size
        )
        console = Console(switch, setting)
        _begin(console, options.rcfile, log)
        if options.mgmt is not None:
            _open_console(options.program, options.mgmt, console_access, console, end, stack)
        if ready is not None:
            _leave_terminal()
            ready()
        else:
            stack.callback(StandardInput(console, out, end).close)
        notify("READY=1")
        cause = await ended
        notify("STOPPING=1")
        log(_farewell(cause))
    return cause


async def _start(
    options: Options,
    access: Access,
    log: Callable[[str], None],
    stack: contextlib.AsyncExitStack,
) -> VdeSwitch:
    """Start the switch itself, tap devices first, which get the first ports."""
    taps = [OptionalTap(device) for device in options.taps]
    try:
        config = SwitchConfig(hub=options.hub, ageing_time_ns=AGEING_TIME_NS)
        switch = VdeSwitch(config, [*taps, VdeListener(options.directory, access)], options.ports)
        await switch.start()
    except SocketInUse as error:
        text = f"{options.program}: Could not bind to socket '{error.path}': Address already in use"
        raise _StartError(text, _NO_DIRECTORY) from None
    except (TransportError, SwitchError) as error:
        raise _StartError(f"{options.program}: {error}", _NO_DIRECTORY) from None
    stack.push_async_callback(switch.stop)
    for tap in taps:
        if tap.error is not None:
            log(str(tap.error))
    return switch


def _absolute(options: Options) -> Options:
    """Make the paths absolute: they are shown, and the background is in another directory."""
    if not options.directory:
        raise _StartError("Cannot create ctl directory '': No such file or directory", _NO_DIRECTORY)
    return dataclasses.replace(
        options,
        directory=os.path.realpath(options.directory),
        pidfile=None if options.pidfile is None else os.path.abspath(options.pidfile),
        mgmt=None if options.mgmt is None else os.path.abspath(options.mgmt),
    )


def _group(name: str | None) -> int | None:
    try:
        return None if name is None else find_group(name)
    except ValueError:
        raise _StartError(f"No such group '{name}'") from None


def _set_directory_mode(program: str, directory: str, mode: int | None) -> None:
    """Give it the permissions that are asked for; otherwise clients' sockets there get its group.

    As in the original it is not sticky unless that is asked for.
    """
    try:
        # Somebody who may write above it could have put a link to another directory of ours there.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "another directory has taken its place")
            if mode is None:
                mode = stat.S_IMODE(status.st_mode) & ~stat.S_ISVTX | stat.S_ISGID
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)
    except OSError as error:
        raise _StartError(f"{program}: {directory}: {error.strerror}", _NO_DIRECTORY) from None


def _write_pid(program: str, path: str) -> None:
    """Write our process number to a new file."""
    try:
        with open(path, "x") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise _StartError(f"{program}: Error in pidfile creation: {error.strerror}") from None


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _begin(console: Console, path: str | None, log: Callable[[str], None]) -> None:
    """Execute the script that is named, or else the user's, or else the system's; tell what fails."""
    own = os.path.join(os.path.expanduser("~"), USER_SCRIPT)
    for script in (own, SYSTEM_SCRIPT) if path is None else (path,):
        try:
            for line, outcome in console.script(script):
                if outcome.code:
                    log(f"{script}: {line}: {os.strerror(outcome.code)}")
            return
        except OSError as error:
            if path is not None:
                log(f"{script}: {error.strerror}")


def _open_console(
    program: str,
    path: str,
    access: Access,
    console: Console,
    end: Callable[[int], None],
    stack: contextlib.AsyncExitStack,
) -> None:
    try:
        file = SocketFile(path, socket.SOCK_STREAM, access)
    except TransportError as error:
        raise _StartError(f"{program}: {error}") from None
    stack.callback(file.close)
    stack.callback(ConsoleSessions(file, console, lambda: end(_SHUT_DOWN)).close)


def _leave_terminal() -> None:
    """Let go of the caller's files and terminal; the system's log has our lines."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _farewell(cause: int) -> str:
    if cause == _SHUT_DOWN:
        return "Shutdown from mgmt command"
    what = "EOF on stdin" if cause == _INPUT_ENDED else f"Caught signal {cause}"
    return f"{what}, cleaning up and exiting"


class StandardInput:
    """The console on standard input; its end is the end of the switch.

    Args:
        console: What commands are given to.
        out: Takes the replies.
        end: Ends the switch for a cause.
    """

    def __init__(self, console: Console, out: LineWriter, end: Callable[[int], None]) -> None:
        self._console = console
        self._out = out
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._terminal = os.isatty(0) and os.isatty(1)
        self._open = True
        try:
            self._loop.add_reader(0, self._read)
        except PermissionError:
            # A file, or a device such as /dev/null, is always readable.
            self._loop.call_soon(self._read_on)

    def close(self) -> None:
        """Read no more."""
        self._open = False
        self._loop.remove_reader(0)

    def _read_on(self) -> None:
        if self._open:
            self._read()
            self._loop.call_soon(self._read_on)

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(0, MAX_COMMAND)
        if not data:
            self.close()
            self._end(_INPUT_ENDED)
            return
        outcome = self._console.execute(read_command(os.fsdecode(data)))
        if outcome.reply:
            self._out.write_bytes(outcome.reply)
        if outcome.end is End.SWITCH:
            self.close()
            self._end(_SHUT_DOWN)
        elif self._terminal:
            self._out.write_bytes(PROMPT)
