"""Which labs a user has running: all their daemons are asked at the same time."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from umlab._name import MAX_NAME
from umlab.client.exchange import END, Exchange, Request, ResponseBuilder
from umlab.client.place import dial
from umlab.daemon.place import KEEPER_LOCK, runtime_base
from umlab.errors import ApiTimeout, LabError, LabNotRunning

#: Seconds in which the daemons have to answer, all of them together.
ANSWER_TIME = 0.25
#: The same where something depends on it: a daemon on a busy machine does not run at once.
BUSY_TIME = 5.0
_RECEIVE_SIZE = 64 * 1024


def labs() -> list[str]:
    """Return the names of this user's labs whose daemons answer, sorted.

    Daemons that hang cost 0.25 seconds, however many they are, and are left out.
    """
    return [name for name, answer in survey().answers.items() if answer is not None]


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is.

    Attributes:
        answers: By lab, sorted, what its daemon answers to the question what it is: JSON, a list with one
            `umlab.daemon.view.LabView`; ``None`` of one that is there and does not answer in time.
        kept: Labs whose daemon has died and whose keeper has not, sorted.
    """

    answers: dict[str, bytes | None]
    kept: list[str]


def survey(patience: float | None = None) -> Survey:
    """Ask every lab what it is, which has so many seconds for its answer, ``ANSWER_TIME`` unless given."""
    found: dict[str, bytes | None] = {}
    kept: list[str] = []
    asked = []
    try:
        for name in _candidates():
            try:
                asked.append(_Question(name))
            except ApiTimeout:
                found[name] = None
            except LabNotRunning:
                if _is_locked(runtime_base() / name / KEEPER_LOCK):
                    kept.append(name)
            except LabError:
                continue
        _gather(asked, ANSWER_TIME if patience is None else patience)
        found |= {each.name: each.answer for each in asked if not each.dead}
    finally:
        for each in asked:
            each.close()
    return Survey(dict(sorted(found.items())), sorted(kept))


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Held for an instant only, for which everybody who wants it waits.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class _Question:
    """One daemon that is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: bytes | None = None
        self.dead = False
        self._exchange = Exchange(name, Request("GET", "/v1/labs"))
        self._builder = ResponseBuilder(name)
        self.sock: socket.socket = dial(name)
        try:
            # A socket that was connected just now takes so little at once.
            self.sock.send(self._exchange.data_to_send())
        except OSError:
            self.dead = True

    def close(self) -> None:
        self.sock.close()

    def receive(self) -> bool:
        """Take what came; return whether there is more to wait for."""
        try:
            self._exchange.receive_data(self.sock.recv(_RECEIVE_SIZE))
            while (event := self._exchange.next_event()) is not None:
                if event is END:
                    self.answer = self._builder.response().body
                    return False
                self._builder.add(event)
        except (OSError, LabError):
            # It ended meanwhile, or is no daemon.
            self.dead = True
            return False
        return True


def _gather(asked: list[_Question], patience: float) -> None:
    poll = select.poll()
    waiting = {each.sock.fileno(): each for each in asked if not each.dead}
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + patience
    while waiting and (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            if not waiting[fd].receive():
                poll.unregister(fd)
                del waiting[fd]


def _candidates() -> list[str]:
    try:
        names = os.listdir(runtime_base())
    except OSError:
        return []
    return [name for name in names if len(name) <= MAX_NAME]
