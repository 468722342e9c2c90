"""A guest's console without a guest: answers each request with the datagrams that a test chose."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from umlab.wire.mconsole import MAX_FRAGMENT, ReplyFragment, parse_request, serialize_reply

Answering = Callable[[bytes], Sequence[bytes]]


def answer(text: bytes, err: int = 0) -> list[bytes]:
    """Return a whole answer as the kernel cuts it, its error number on the first fragment only."""
    pieces = [text[at : at + MAX_FRAGMENT] for at in range(0, len(text), MAX_FRAGMENT)] or [b""]
    last = len(pieces) - 1
    return [
        serialize_reply(ReplyFragment(0 if at else err, at < last, piece)) for at, piece in enumerate(pieces)
    ]


class FakeConsole:
    """Listens on a socket in a thread of its own while it is entered.

    Attributes:
        requests: The text of every request, in order of arrival.

    Args:
        path: The socket to make.
        answering: Called in the thread with a request's text; returns the datagrams to send.
    """

    def __init__(self, path: Path, answering: Answering) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self._answering = answering
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FakeConsole:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.fspath(self.path))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An empty datagram from a socket without a name is the sign to end.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"", os.fspath(self.path))
        self._thread.join()
        self._socket.close()
        self.path.unlink()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not sender:
                return
            # A client that only looks whether somebody listens sends nothing, so each datagram is a request.
            text = parse_request(data)
            self.requests.append(text)
            for reply in self._answering(text):
                try:
                    self._socket.sendto(reply, sender)
                except OSError:
                    # The client is gone, as a guest finds it after the client's time limit.
                    break
