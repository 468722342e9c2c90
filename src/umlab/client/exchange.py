"""One HTTP request and its response, without sockets and clocks.

::

    exchange = Exchange("lan", request)
    send(exchange.data_to_send())
    exchange.receive_data(b"...")        empty at the end of the connection
    exchange.next_event()                Head, then bytes of the body, then END; None: feed more;
                                         raises what the daemon refuses with

A connection serves one exchange: connecting to a unix socket costs next to nothing, and no request
can meet a connection that the daemon has just given up.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

import h11

from umlab.client.decode import refusal
from umlab.errors import ApiError, ConnectionLost

#: Bytes of a whole response that is not a stream; a daemon that says more is broken.
MAX_BODY = 64 << 20
#: Bytes of a refusal that are looked at.
MAX_REFUSAL = 1 << 20


class End(enum.Enum):
    """The last event of an exchange."""

    END = "end"


END: Final = End.END


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        method: Such as ``GET``.
        target: Path and query, encoded.
        body: JSON, or nothing.
        headers: More headers, by name in lower case.
    """

    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of the response.

    Attributes:
        status: Such as 200.
        headers: By name in lower case.
    """

    status: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response of status 2xx.

    Attributes:
        headers: By name in lower case.
        body: All of it.
    """

    headers: dict[str, str]
    body: bytes


class Exchange:
    """The client's side of one request; pure.

    Args:
        lab: Whom it goes to, for errors.
        request: What is asked.
    """

    def __init__(self, lab: str, request: Request) -> None:
        self._lab = lab
        self._http = h11.Connection(h11.CLIENT)
        self._eof = False
        self._refused: int | None = None
        self._refusal = bytearray()
        headers = {"host": "umlab", "connection": "close", **request.headers}
        if request.body:
            headers |= {"content-type": "application/json", "content-length": str(len(request.body))}
        head = h11.Request(method=request.method, target=request.target, headers=list(headers.items()))
        messages = [head, h11.Data(data=request.body), h11.EndOfMessage()]
        self._outgoing = b"".join(self._http.send(message) or b"" for message in messages)

    def data_to_send(self) -> bytes:
        """Return the request's bytes, once."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def receive_data(self, data: bytes) -> None:
        """Take what arrived; empty when the daemon has ended the connection."""
        if not self._eof:
            self._eof = not data
            self._http.receive_data(data)

    def next_event(self) -> Head | bytes | End | None:
        """Return what comes next in the response, or ``None`` while more data is needed.

        Raises:
            UmlabError: The daemon refused; the error is the one that it names.
            ConnectionLost: The connection ended too early.
            ApiError: What came is not HTTP.
        """
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._eof:
                    raise lost(self._lab) from None
                raise ApiError(self._lab, f"the daemon's answer is not HTTP: {error}") from None
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                if 200 <= event.status_code < 300:
                    return Head(event.status_code, _texts(event))
                self._refused = event.status_code
            elif isinstance(event, h11.Data):
                if self._refused is None:
                    return bytes(event.data)
                self._refusal += event.data[: MAX_REFUSAL - len(self._refusal)]
            elif isinstance(event, h11.EndOfMessage):
                if self._refused is None:
                    return END
                raise refusal(self._lab, self._refused, bytes(self._refusal))
            elif not isinstance(event, h11.InformationalResponse):
                # The connection ended before the response began.
                raise lost(self._lab)


class ResponseBuilder:
    """Gathers a response that is no stream."""

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._head = Head(0, {})
        self._body = bytearray()

    def add(self, event: Head | bytes) -> None:
        """Take an event of the exchange.

        Raises:
            ApiError: The response grew over ``MAX_BODY``.
        """
        if isinstance(event, Head):
            self._head = event
            return
        self._body += event
        if len(self._body) > MAX_BODY:
            raise ApiError(self._lab, f"the daemon's answer has over {MAX_BODY} bytes")

    def response(self) -> Response:
        """Return the whole response."""
        return Response(self._head.headers, bytes(self._body))


def lost(lab: str) -> ConnectionLost:
    """Return the error for a connection that ended too early."""
    return ConnectionLost(lab, "the daemon ended before it had answered; ask again")


def _texts(event: h11.Response) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
