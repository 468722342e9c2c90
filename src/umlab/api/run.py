"""A lab's daemon as a process: what it is put together from, how it begins and every way in which it ends.

``python -m umlab.api.run LAB READY``, with an order as JSON on standard input, is the daemon in the
background; ``READY`` is a descriptor on which it says once that it is ready, or why it will not be.  With
``LAB`` alone it goes on with what the keeper has.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from umlab._notify import activation_fds, notify, pass_on, take_listener
from umlab.daemon.claim import Claim
from umlab.daemon.lab import LabService
from umlab.daemon.order import LabOrder, order_from_json
from umlab.daemon.place import API_SOCKET, runtime_directory, state_directory
from umlab.errors import LabError, UmlabError
from umlab.transports.socketfile import SocketFile

_log = logging.getLogger(__name__)

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Daemon:
    """One daemon, from :meth:`run` to its end.

    Args:
        order: What to run.  What an earlier daemon has left at the keeper goes on first, as it was.
        prepare: Is given the lab before anything in it begins.
        on_ready: Is called when everything runs and the API answers.
        on_end: Is called before everything ends, not where it is left to the keeper.
    """

    def __init__(
        self,
        order: LabOrder,
        *,
        prepare: Callable[[LabService], None] = lambda _: None,
        on_ready: Callable[[LabService], None] = lambda _: None,
        on_end: Callable[[LabService], None] = lambda _: None,
    ) -> None:
        self._order = order
        self._prepare, self._on_ready, self._on_end = prepare, on_ready, on_end
        #: How to end: ``stop`` everything, ``leave`` all to the keeper, leave for an ``upgrade``, or that the
        #: keeper is ``dead``, or ``lost`` and goes on without us.
        self._end: asyncio.Future[str]

    async def run(self) -> bool:
        """Run until a signal or a caller ends it, and say whether it is to be executed anew.

        SIGINT, SIGTERM and SIGHUP end everything; SIGUSR2 makes way for another version of this program.

        Raises:
            UmlabError: It cannot begin; what it made is gone then, what it found is left to the keeper.
            LabError: The keeper died, and all guests with it; or it does not answer, then they go on.
        """
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        for number in _ENDS:
            loop.add_signal_handler(number, self._ask, "stop")
        loop.add_signal_handler(signal.SIGUSR2, self._ask, "upgrade")
        name = self._order.name
        runtime, state = runtime_directory(name), state_directory(name)
        claim = Claim(name, runtime)
        how = "leave"
        try:
            keeper = await claim.keeper(state / "keeper.log")
            keeper.lost.add_done_callback(lambda lost: self._ask("dead" if lost.result() else "lost"))
            lab = LabService(name, runtime, state, keeper)
            # What was there before is not ours to end when something goes wrong.
            how = "leave" if keeper.things or keeper.groups else "stop"
            try:
                how = await self._serve(lab)
            finally:
                await (lab.stop() if how in ("stop", "dead") else lab.leave())
        finally:
            if how in ("stop", "dead"):
                claim.remove()
            else:
                claim.close()
        if how == "dead":
            raise LabError(f"the keeper of {name} is gone, and its guests with it")
        if how == "lost":
            raise LabError(
                f"the keeper of {name}, process {keeper.pid}, does not answer; it goes on with the guests"
            )
        return how == "upgrade"

    def _ask(self, how: str) -> None:
        if not self._end.done():
            self._end.set_result(how)

    async def _serve(self, lab: LabService) -> str:
        """Serve until somebody asks for the end, and return which."""
        self._prepare(lab)
        # Before anything that takes time: frames move again from here on.
        await lab.resume()
        path = lab.runtime / API_SOCKET
        given = take_listener(activation_fds(), str(path))
        api = _bind_api(path) if given is None else SocketFile.adopt(path, given, remove=False)
        try:
            # Imported only now because that takes several times as long as all the rest.
            from umlab.api.app import create_app
            from umlab.api.server import ApiServer

            server = ApiServer(create_app(lab, self._ask), api.socket.dup())
            await server.start()
            # What is here now stays: looking at it again stops everything, frames too, for 50 ms each time.
            gc.freeze()
            try:
                await self._begin(lab)
                how = await self._end
                notify(
                    f"RELOADING=1\nMONOTONIC_USEC={_now_us()}"
                    if how in ("leave", "upgrade")
                    else "STOPPING=1"
                )
                if how == "stop":
                    self._on_end(lab)
                if how == "upgrade" and given is not None:
                    pass_on(given)
            finally:
                await lab.captures.end_all()
                lab.events.close()
                await server.stop()
        finally:
            api.close()
        return how

    async def _begin(self, lab: LabService) -> None:
        """Start what was ordered, unless the end comes first, and tell everybody that it runs."""
        order = self._order
        starting = asyncio.ensure_future(lab.start(order.switches, order.guests, alone=order.alone))
        await asyncio.wait((starting, self._end), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        starting.result()
        notify("READY=1")
        self._on_ready(lab)


def run_in_front(daemon: Daemon) -> None:
    """Run a daemon in this process, and this program anew where it makes way for another version."""
    if asyncio.run(daemon.run()):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _bind_api(path: Path) -> SocketFile:
    # For us alone from its first instant.
    mask = os.umask(0o177)
    try:
        return SocketFile(path, socket.SOCK_STREAM)
    finally:
        os.umask(mask)


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def main(argv: list[str]) -> None:
    """Be the daemon in the background."""
    name, ready = argv[0], int(argv[1]) if len(argv) > 1 else -1
    order = LabOrder(name)
    if ready >= 0:
        order = order_from_json(sys.stdin.read())
        # No child of whoever starts us, who may run on for long.
        if os.fork():
            os._exit(0)

    def report(error: str) -> None:
        nonlocal ready
        if ready >= 0:
            # Who started us may have gone.
            with contextlib.suppress(OSError):
                os.write(ready, json.dumps({"error": error}).encode())
            os.close(ready)
            ready = -1

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    daemon = Daemon(order, on_ready=lambda _: report(""))
    try:
        again = asyncio.run(daemon.run())
    except UmlabError as error:
        _log.error("%s", error)
        report(str(error))
        sys.exit(1)
    if again:
        os.execv(sys.executable, [sys.executable, "-m", "umlab.api.run", name])


if __name__ == "__main__":
    main(sys.argv[1:])
