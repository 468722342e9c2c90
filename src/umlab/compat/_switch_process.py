"""The running ``uml_switch``: sockets and the tap device, signals, the terminal, the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Callable, Mapping

from umlab._line_writer import LineWriter, write_now
from umlab._notify import activation_fds, notify, take_listener
from umlab.compat._background import continue_in_background
from umlab.compat._switch_log import EventLog
from umlab.compat._switch_options import Options
from umlab.daemon.switch import SwitchService
from umlab.errors import SocketInUse, SwitchError, TransportError, UmlabError
from umlab.switch.model import SECOND_NS, SwitchConfig
from umlab.transports.contract import Access, Listener, SessionSink
from umlab.transports.daemon import DaemonListener
from umlab.transports.socketfile import SocketFile
from umlab.transports.tap import TapListener

#: The original numbers a port after its descriptor, and the first one that a guest gets is 5.
FIRST_PORT = 5
AGEING_TIME_NS = 100 * SECOND_NS

_DEBIAN_CONTROL = "/var/run/uml-utilities/uml_switch.ctl"
_INPUT_ENDED = 0


class OptionalTap(TapListener):
    """A tap device without which the switch runs all the same, as the original does.

    Args:
        device: Its name.

    Attributes:
        error: Why it is missing, if it is.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device, solicitations=True)
        self.error: TransportError | None = None

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Plug the device in, if it can be had."""
        try:
            await super().start(sink, kept)
        except TransportError as error:
            self.error = error


def run(options: Options) -> int:
    """Run a switch until a signal or the end of input on a terminal ends it.

    Returns:
        The exit status.  A signal that ends the switch is sent again when everything is cleaned up, so
        that the caller sees it in the status; this does not return then.
    """
    keep_standard_descriptors()
    # The lines about refused requests are this program's own.
    logging.getLogger("umlab.daemon.switch").setLevel(logging.ERROR)
    control = given_control_socket(options.control)
    ready = continue_in_background() if options.daemon else None
    try:
        cause = asyncio.run(_serve(options, control, ready))
    except (TransportError, SwitchError) as error:
        write_now(2, explain(error, options))
        return 1
    if cause != _INPUT_ENDED:
        signal.signal(cause, signal.SIG_DFL)
        os.kill(os.getpid(), cause)
    return 0


def given_control_socket(path: str) -> SocketFile | None:
    """Return the control socket if the service manager has opened it, whose file then stays at the end.

    Sockets of its that are not ours are closed, and said to be: a guest would wait there for ever.
    """
    fds = activation_fds()
    sock = take_listener(fds, path)
    for fd in itertools.chain.from_iterable(fds.values()):
        write_now(
            2, f"The service manager's descriptor {fd} does not listen at '{path}', so it is not served"
        )
        os.close(fd)
    return None if sock is None else SocketFile.adopt(path, sock, remove=False)


def explain(error: UmlabError, options: Options) -> str:
    """Say why the switch cannot start, a socket that is in use in the original's words."""
    if not isinstance(error, SocketInUse):
        return str(error)
    kind = "control" if error.path == options.control else "data"
    return (
        f"The {kind} socket '{error.path}' has another server attached to it\n"
        f"End that one, or take another path: {options.program} -unix <control>"
    )


def attached_line(options: Options, tap: OptionalTap | None) -> str:
    """Return the line that says where guests find the switch."""
    line = f"{options.program} attached to unix socket '{options.control}'"
    if options.compat:
        line = f"{options.program} attached to unix sockets '{options.control}' and '{options.data}'"
    return line if tap is None or tap.error else f"{line} tap device '{tap.where}'"


async def _serve(options: Options, control: SocketFile | None, ready: Callable[[], None] | None) -> int:
    """Run the switch; return the number of the signal that ended it, or 0 at the end of input."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    numbers = _signals_that_end()
    for number in numbers:
        loop.add_signal_handler(number, _end, ended, number)
    out, err = LineWriter(1, loop), LineWriter(2, loop)
    log = EventLog(out.write, err.write)
    tap = None if options.tap is None else OptionalTap(options.tap)
    # As the original's: what the umask leaves.
    daemon = DaemonListener(options.control, options.data, control, Access(mode=None))
    listeners: list[Listener] = [daemon, *([tap] if tap else [])]
    config = SwitchConfig(hub=options.hub, ageing_time_ns=AGEING_TIME_NS, first_port_no=FIRST_PORT)
    service = SwitchService("uml_switch", config, listeners)
    service.subscribe(log.report)
    await service.start()
    try:
        if tap is not None and tap.error:
            err.write(str(tap.error))
        out.write(attached_line(options, tap))
        if options.control_is_default:
            err.write(f"(a Debian kernel's plain eth0=daemon looks for {_DEBIAN_CONTROL} instead)")
        log.release()
        notify("READY=1")
        if ready is not None:
            ready()
        elif os.isatty(0):
            loop.add_reader(0, _read_terminal, ended)
        cause = await ended
        notify("STOPPING=1")
        what = f"Caught signal {cause}" if cause != _INPUT_ENDED else "EOF on stdin"
        out.write(f"{what}, cleaning up and exiting")
    finally:
        loop.remove_reader(0)
        await service.stop()
        out.close()
        err.close()
        for number in numbers:
            # From here on a second signal ends the process at once.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
    return cause


def _signals_that_end() -> list[signal.Signals]:
    """Return the signals after which to clean up; nohup's SIGHUP, for one, stays ignored."""
    polite = (signal.SIGTERM, signal.SIGHUP)
    return [signal.SIGINT, *(number for number in polite if signal.getsignal(number) is not signal.SIG_IGN)]


def _end(ended: asyncio.Future[int], cause: int) -> None:
    if not ended.done():
        ended.set_result(cause)


def _read_terminal(ended: asyncio.Future[int]) -> None:
    """Throw away what is typed; the end of input, or of the terminal, ends the switch."""
    with contextlib.suppress(OSError):
        if os.read(0, 4096):
            return
    asyncio.get_running_loop().remove_reader(0)
    _end(ended, _INPUT_ENDED)


def keep_standard_descriptors() -> None:
    """Open what is closed of 0, 1 and 2, so that no guest's socket gets such a number and then our lines."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
