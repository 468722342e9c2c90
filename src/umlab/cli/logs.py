"""``umlab guest logs``: what a guest's consoles have printed, and when."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli.option import AsJson, GuestName
from umlab.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umlab.client.sync import Client
    from umlab.daemon.view import LogTime

EPILOG = """
Examples:

  umlab guest logs left

  umlab guest logs ring/left --follow --timestamps

  umlab guest logs left --since 10min

  umlab guest logs left --console con1 --tail 20

  umlab guest logs left --raw > left.log
"""

#: Bytes after which a line is taken for whole.
_MAX_LINE = 64 * 1024
#: Bytes in which the last lines are looked for at first, and by what they grow.
_FIRST_LOOK, _GROWTH = 64 * 1024, 8
_NO_TIME = " " * 23


def logs(
    name: GuestName,
    console: Annotated[
        str, typer.Option("--console", help="con0, where its kernel logs, or con1, its terminal.")
    ] = "con0",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until the guest ends.")
    ] = False,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Say when each line was printed.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only the last such time: 90s, 10min.", show_default=False
        ),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", metavar="LINES", min=1, help="Only so many lines at its end.", show_default=False
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print bytes as they are; not to a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a guest has printed on a console, control characters shown as text."""
    if raw and (as_json or timestamps):
        raise typer.BadParameter("--raw and --json or --timestamps exclude each other")
    if raw and sys.stdout.isatty():
        raise typer.BadParameter("--raw is not for a terminal, which would obey what the guest says")
    span = None if since is None else _span(since)
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        log = _Log(client, guest, console)
        start = max(log.since(span) if span is not None else 0, log.tail(tail) if tail is not None else 0)
        pieces = log.pieces(start, follow=follow)
        if not raw:
            _print_lines(pieces, log if timestamps else None, Output(as_json=as_json))
            return
        for _, piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _span(text: str) -> float:
    from umlab.cli.setting import parse_time

    try:
        return parse_time(text) / 1e9
    except ValueError as error:
        raise typer.BadParameter(f"--since {text}: {error}") from None


class _Log:
    """One console's output, and when each part of it was printed."""

    def __init__(self, client: Client, guest: str, console: str) -> None:
        self._client = client
        self._guest = guest
        self._console = console
        self._times: deque[LogTime] = deque()
        #: Offset up to which every time is known, and up to which output has come.
        self._known = self._end = 0

    def since(self, span: float) -> int:
        """Return where the output of the last so many seconds begins."""
        moment = max(0.0, time.time() - span)
        times = self._client.log_times(self._guest, 0, moment, 1, self._console)
        return times[0].offset if times else self._client.log(self._guest, 1 << 53, 1, self._console).end

    def tail(self, lines: int) -> int:
        """Return where the last lines begin."""
        size = _FIRST_LOOK
        while True:
            begin = self._client.log(self._guest, -size, console=self._console)
            data = begin.data + b"".join(piece for _, piece in self.pieces(begin.end))
            parts = data.removesuffix(b"\n").split(b"\n")
            if len(parts) > lines:
                return begin.start + sum(len(part) + 1 for part in parts[:-lines])
            if len(data) < size:
                return begin.start
            size *= _GROWTH

    def pieces(self, start: int, *, follow: bool = False) -> Iterator[tuple[int, bytes]]:
        """Yield output from an offset on, with the offset of each piece."""
        if follow:
            # It says no offsets, and leaves nothing out but what is kept no more.
            start = self._client.log(self._guest, start, 1, self._console).start
            for data in self._client.follow_log(self._guest, start, self._console):
                self._end = start + len(data)
                yield start, data
                start = self._end
            return
        while (piece := self._client.log(self._guest, start, console=self._console)).data:
            start = self._end = piece.end
            yield piece.start, piece.data

    def time_of(self, offset: int) -> float | None:
        """Return when what stands at an offset was printed; offsets only grow from call to call."""
        if offset >= self._known:
            limit = 10_000
            self._times = deque(self._client.log_times(self._guest, offset, None, limit, self._console))
            self._known = self._times[-1].offset if len(self._times) == limit else self._end
        while len(self._times) > 1 and self._times[1].offset <= offset:
            self._times.popleft()
        return self._times[0].at if self._times and self._times[0].offset <= offset else None


def _print_lines(pieces: Iterator[tuple[int, bytes]], times: _Log | None, output: Output) -> None:
    """Print whole lines, escaped; what the guest has begun is printed with what ends it, or at the end."""
    from umlab.guest.console import escape

    def show(offset: int, data: bytes) -> None:
        line = escape(data.removesuffix(b"\r"))
        if times is None:
            output.record({"line": line}, line)
            return
        at = times.time_of(offset)
        output.record({"at": at, "line": line}, f"{_clock(at)}  {line}")

    begin, rest = 0, b""
    for offset, piece in pieces:
        if begin + len(rest) != offset:
            begin, rest = offset, b""
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            show(begin, line)
            begin += len(line) + 1
        while len(rest) > _MAX_LINE:
            show(begin, rest[:_MAX_LINE])
            begin, rest = begin + _MAX_LINE, rest[_MAX_LINE:]
    if rest:
        show(begin, rest)


def _clock(at: float | None) -> str:
    from datetime import datetime

    return _NO_TIME if at is None else datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
