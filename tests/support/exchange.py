"""Two guests that talk without loss as long as the switch between them works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.deadline import wait_until
from support.guest_end import BROADCAST, GuestEnd, frame, mac

#: Frames under way at once: fewer than an unconnected guest's socket holds.
WINDOW = 8
#: The addresses of the two.
LEFT, RIGHT = mac(0xAAAAAA), mac(0xBBBBBB)
_EXPERIMENT = b"\x88\xb6"


class Exchange:
    """Sends numbered frames both ways, ``WINDOW`` at a time; each must come, in order.

    Frames that are not part of it, such as floods, are passed over.

    Args:
        left, right: The guests.

    Attributes:
        rounds: Windows that went through both ways.
    """

    def __init__(self, left: GuestEnd, right: GuestEnd) -> None:
        self._ends = (left, LEFT), (right, RIGHT)
        self.rounds = 0

    def introduce(self) -> None:
        """Let the switch learn both, so that it floods none of their frames."""
        (left, _), (right, _) = self._ends
        for guest, other, address in ((left, right, LEFT), (right, left, RIGHT)):
            hello = frame(BROADCAST, address, payload=b"hello")
            guest.send(hello)
            while other.receive() != hello:
                pass

    def run(self, rounds: int) -> None:
        """Make so many rounds.

        Raises:
            AssertionError: A frame is missing or out of order.
            TimeoutError: Nothing comes any more.
        """
        for _ in range(rounds):
            (left, _), (right, _) = self._ends
            self._send_window(left, LEFT, right, RIGHT)
            self._send_window(right, RIGHT, left, LEFT)
            self.rounds += 1

    def _send_window(self, guest: GuestEnd, source: bytes, other: GuestEnd, destination: bytes) -> None:
        head = destination + source + _EXPERIMENT
        sent = [
            (head + (self.rounds * WINDOW + number).to_bytes(4, "big")).ljust(60 + 400 * number, b"\0")
            for number in range(WINDOW)
        ]
        for each in sent:
            guest.send(each)
        received = 0
        while received < WINDOW:
            got = other.receive()
            if got[12:14] == _EXPERIMENT:
                assert got == sent[received], "a frame was lost or overtaken"
                received += 1


@contextmanager
def running_exchange(left: GuestEnd, right: GuestEnd) -> Iterator[Exchange]:
    """Keep an exchange going in a thread during the block, and see that it goes on at its end."""
    exchange = Exchange(left, right)
    exchange.introduce()
    with background(lambda: exchange.run(1)) as failed:
        yield exchange
        goal = exchange.rounds + 20
        wait_until(lambda: exchange.rounds >= goal or failed(), 20, "the exchange goes on")


@contextmanager
def background(turn: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Call a function over and over in a thread during the block, and raise what it raised.

    Yields:
        A function that tells whether it has raised something.
    """
    ended = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not ended.is_set():
                turn()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: bool(failures)
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]
