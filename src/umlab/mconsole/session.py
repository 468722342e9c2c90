"""One conversation with a guest's console, without sockets and clocks.

::

            request()                    last fragment
    IDLE ───────────────▶ WAITING ───────────────────────▶ IDLE, event Answer
                             │  handle_timer() at the limit
                             ├───────────────────────────▶ IDLE, event Silence
                             │  bad or endless bytes
                             └───────────────────────────▶ IDLE, RemoteProtocolError raised

The protocol has no request numbers: a late fragment of an abandoned request looks like one of the
next.  So an answer must arrive on a socket that served no other request; the clients open a new
socket for each.

Source: Linux arch/um/drivers/mconsole_kern.c.
"""

from __future__ import annotations

from umlab.errors import OversizeMessage, RemoteProtocolError, StateError
from umlab.wire.mconsole import parse_reply, serialize_request

__all__ = ["MAX_ANSWER", "Answer", "MconsoleSession", "Silence"]

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of one whole answer; a guest that says more is hostile or broken, and many may be asked at once."""


class Answer:
    """A guest's whole answer to one command.

    Attributes:
        err: 0, or the first error number of any fragment: 1, or a negative errno.
        text: All fragments' text.
    """

    __slots__ = ("err", "text")

    def __init__(self, err: int, text: bytes) -> None:
        self.err = err
        self.text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        return (self.err, self.text) == (other.err, other.text)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Answer(err={self.err!r}, text={self.text!r})"


class Silence:
    """The time limit passed before the last fragment came.

    Attributes:
        text: What came until then.
    """

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Silence):
            return NotImplemented
        return self.text == other.text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Silence(text={self.text!r})"


class MconsoleSession:
    """The client's side of the protocol; pure, one request at a time.

    Args:
        max_answer: Bytes of text at which an answer is refused.
    """

    __slots__ = ("_deadline_ns", "_err", "_event", "_max_answer", "_outgoing", "_text")

    def __init__(self, max_answer: int = MAX_ANSWER) -> None:
        self._max_answer = max_answer
        self._outgoing: list[bytes] = []
        self._deadline_ns: int | None = None
        self._event: Answer | Silence | None = None
        self._err = 0
        self._text = bytearray()

    def request(self, text: bytes, now_ns: int, timeout_ns: int) -> None:
        """Ask the guest to run a command.

        Args:
            text: The command, up to 511 bytes without NUL.
            now_ns: The present instant, in nanoseconds.
            timeout_ns: The span in which the whole answer must arrive.

        Raises:
            LocalProtocolError: The text cannot be sent.
            StateError: A request is waiting for its answer, or its event was not taken.
        """
        if self._deadline_ns is not None or self._event is not None:
            raise StateError("the console serves one request at a time")
        self._outgoing.append(serialize_request(text))
        self._deadline_ns = now_ns + timeout_ns
        self._err = 0
        self._text.clear()

    def data_to_send(self) -> list[bytes]:
        """Return the datagrams to send, each once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive_datagram(self, data: bytes, now_ns: int) -> None:
        """Take one datagram from the guest.

        A datagram that nobody waits for is ignored.  The kernel marks an error on the first fragment
        only, so the first one counts.

        Args:
            data: The datagram.
            now_ns: The present instant; a fragment at or after the limit is too late.

        Raises:
            RemoteProtocolError: It is no reply, or the answer grew over ``max_answer``; the request is
                given up.
        """
        if self._deadline_ns is None:
            return
        if now_ns >= self._deadline_ns:
            self.handle_timer(now_ns)
            return
        try:
            fragment = parse_reply(data)
            size = len(self._text) + len(fragment.text)
            if size > self._max_answer:
                raise OversizeMessage(size, self._max_answer)
        except RemoteProtocolError:
            self._deadline_ns = None
            raise
        self._text += fragment.text
        self._err = self._err or fragment.err
        if not fragment.more:
            self._deadline_ns = None
            self._event = Answer(self._err, bytes(self._text))

    def next_event(self) -> Answer | Silence | None:
        """Return the outcome of the request, once, or ``None`` while there is none."""
        event, self._event = self._event, None
        return event

    @property
    def received(self) -> bytes:
        """The text that has come of the latest request's answer."""
        return bytes(self._text)

    def get_timer(self) -> int | None:
        """Return the instant at which `handle_timer` wants to be called, or ``None``."""
        return self._deadline_ns

    def handle_timer(self, now_ns: int) -> None:
        """Give the request up if its limit has passed; harmless too early or without a request."""
        if self._deadline_ns is not None and now_ns >= self._deadline_ns:
            self._deadline_ns = None
            self._event = Silence(bytes(self._text))
