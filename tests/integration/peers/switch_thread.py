"""A switch of ours in a thread of its own, and two well-behaved guests that talk all the time.

The test attacks the switch with blocking calls and may ask it for everything that it counts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from integration.peers.fake_guest import FakeGuest, frame, mac
from support.deadline import scaled, wait_until
from umlab.daemon.switch import PortInfo, ServiceEvent, SessionRefused, SwitchService
from umlab.engine.contract import SwitchSnapshot
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.contract import Listener
from umlab.transports.daemon import DaemonListener

T = TypeVar("T")
LEFT, RIGHT = mac(1), mac(2)


class SwitchThread:
    """A running switch with all its listeners in one directory, and others if there are.

    Attributes:
        control, data, bess: Its sockets.
        service: The service; its methods belong to the thread, see `call`.
        events: What it has published.
    """

    def __init__(self, folder: Path, config: SwitchConfig, others: Iterable[Listener] = ()) -> None:
        self.control, self.data, self.bess = folder / "ctl", folder / "data", folder / "bess"
        listeners = [DaemonListener(self.control, self.data), BessListener(self.bess), *others]
        self.service = SwitchService("attacked", config, listeners)
        self.events: list[ServiceEvent] = []
        self.service.subscribe(self.events.append)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="switch-under-attack")

    def start(self) -> None:
        """Start the thread and the switch in it."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.service.start(), self._loop).result(scaled(10))

    def stop(self) -> None:
        """Stop the switch and the thread."""
        try:
            asyncio.run_coroutine_threadsafe(self.service.stop(), self._loop).result(scaled(10))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def call(self, function: Callable[[], T]) -> T:
        """Return what a function returns in the switch's thread."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return result.result(scaled(20))

    def snapshot(self) -> SwitchSnapshot:
        """Return all counters."""
        return self.call(self.service.snapshot)

    def ports(self) -> list[PortInfo]:
        """Return the ports."""
        return self.call(self.service.ports)

    def refusals(self) -> list[str]:
        """Return the reasons of all refused requests so far."""
        return [str(event.error) for event in self.events if isinstance(event, SessionRefused)]

    def wait_ports(self, count: int) -> list[PortInfo]:
        """Wait until there are so many ports, and return them."""
        wait_until(lambda: len(self.ports()) == count, 20, f"{count} ports")
        return self.ports()

    def wait_refusals(self, count: int) -> list[str]:
        """Wait until so many requests were refused, and return the reasons."""
        wait_until(lambda: len(self.refusals()) >= count, 20, f"{count} refusals")
        return self.refusals()


class BessGuest:
    """A guest of the bess transport."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Waits while the backlog is full, as a guest does; with a time limit it would fail at once.
        self.sock.connect(os.fspath(path))
        self.sock.settimeout(scaled(10))
        self.send = self.sock.send

    def receive(self) -> bytes:
        """Return the next frame; empty at the end of the connection."""
        return self.sock.recv(65_536)

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def __enter__(self) -> BessGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Conversation:
    """Two guests, one on the daemon protocol and one on bess, that answer each other without a pause.

    Args:
        switch: What they are attached to.

    Attributes:
        exchanges: Questions that were answered so far.
        lost: Questions that had to be asked again.
    """

    #: Seconds to wait for an answer, and for any answer at all.
    _PATIENCE, _LIMIT = 10.0, 30.0

    def __init__(self, switch: SwitchThread) -> None:
        self.exchanges = 0
        self.lost = 0
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._left = FakeGuest(switch.control).attach(3)
        self._right = BessGuest(switch.bess)
        switch.wait_ports(2)
        self._left.datagrams.settimeout(scaled(self._PATIENCE))
        self._right.sock.settimeout(scaled(self._PATIENCE))
        self._thread = threading.Thread(target=self._talk, name="conversation")
        self._thread.start()
        self.goes_on()

    def goes_on(self) -> None:
        """Wait until twenty questions have been asked and answered from now on."""
        goal = self.exchanges + 21
        wait_until(lambda: self.exchanges >= goal or self._failure, self._LIMIT, "the guests still talk")
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """End it; raises what went wrong."""
        self._ended.set()
        self._thread.join()
        self._left.close()
        self._right.close()
        if self._failure is not None:
            raise self._failure

    def _talk(self) -> None:
        try:
            while not self._ended.is_set():
                self._ask()
                self.exchanges += 1
        except BaseException as error:
            self._failure = error

    def _ask(self) -> None:
        number = struct.pack("=I", self.exchanges)
        limit = time.monotonic() + scaled(self._LIMIT)
        while True:
            try:
                self._left.send(frame(RIGHT, LEFT, b"question" + number))
                _wait_for(self._right.receive, b"question" + number)
                self._right.send(frame(LEFT, RIGHT, b"answer" + number))
                _wait_for(self._left.receive, b"answer" + number)
            except TimeoutError:
                self.lost += 1
                if time.monotonic() > limit:
                    raise
            else:
                return


def _wait_for(receive: Callable[[], bytes], payload: bytes) -> None:
    while not receive()[14:].startswith(payload):
        pass


@contextlib.contextmanager
def switch_with_conversation(
    folder: Path, config: SwitchConfig, others: Iterable[Listener] = ()
) -> Iterator[tuple[SwitchThread, Conversation]]:
    """Run a switch whose two guests talk before, during and after the block; nothing is left afterwards."""
    switch = SwitchThread(folder, config, others)
    switch.start()
    try:
        conversation = Conversation(switch)
        try:
            yield switch, conversation
            conversation.goes_on()
        finally:
            conversation.end()
        switch.wait_ports(0)
    finally:
        switch.stop()
    assert list(folder.iterdir()) == []
    assert set(switch.service.engine.debug_counts().values()) == {0}
