"""The captures of a lab: begun by a caller, and ended by him, with their switch, or with the lab."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from umlab.capture.filter import compile_filter
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.capture.section import Subject
from umlab.capture.session import FileSession, Items, RecorderSession, Session, StreamSession
from umlab.daemon.event_log import EventLog
from umlab.daemon.switch import SwitchService
from umlab.daemon.switch_set import SwitchSet
from umlab.engine.contract import CaptureOrder
from umlab.errors import NoSuchPort, StateError, SwitchError
from umlab.switch.bpf import Program

#: Bytes of memory of a capture: so far may its reader be behind.
CAPACITY = 32 << 20
#: Seconds that captures have to come to their ends when the lab does.
_END_TIME = 1.0


class LabCapture:
    """One capture, from :meth:`CaptureSet.begin` to :meth:`close`.

    Args:
        session: What runs.
        closed: Is given how far it has come when nothing is left of it, ``None`` where it broke.
    """

    def __init__(
        self, session: Session, closed: Callable[[LabCapture, CaptureProgress | None], None]
    ) -> None:
        self._session = session
        self._closed = closed

    def items(self) -> Items:
        """Return what it tells, as it comes, the last one ``ended``; to be called once."""
        return self._session.items()

    def end(self, reason: str) -> None:
        """Have it come to its end, if it does not already; see ``CaptureProgress.reason``."""
        self._session.end(reason)

    async def close(self) -> None:
        """End it and wait until nothing is left of it; to be called once."""
        report: CaptureProgress | None = None
        try:
            report = await self._session.close()
        finally:
            self._closed(self, report)


class CaptureSet:
    """All captures of one daemon.

    Args:
        switches: The switches.
        events: Where beginnings and ends are told.
    """

    def __init__(self, switches: SwitchSet, events: EventLog) -> None:
        self._switches = switches
        self._events = events
        self._running: set[LabCapture] = set()
        self._all_closed = asyncio.Event()

    async def begin(self, request: CaptureRequest) -> LabCapture:
        """Begin a capture.

        Raises:
            NoSuchSwitch: There is none of this name.
            NoSuchPort: Nothing is attached there.
            CaptureError: The filter or the file is not usable.
            StateError: The switch has as many captures as it may, or no flight recorder.
            SwitchError: There is no memory or no descriptor left for it.
        """
        self._check(request)
        program = await asyncio.to_thread(compile_filter, request.filter)
        # That may have taken a while.
        service = self._check(request)
        session = self._session(service, request, program)

        def end() -> None:
            session.end("switch")

        service.before_stop.append(end)
        try:
            await session.start()
        except BaseException:
            service.before_stop.remove(end)
            session.end("asked")
            raise
        facts = {
            "switch": request.switch,
            "ports": None if request.ports is None else sorted(request.ports),
            "file": request.file,
        }
        self._events.publish({"event": "capture_started"} | facts)

        def closed(capture: LabCapture, report: CaptureProgress | None) -> None:
            service.before_stop.remove(end)
            self._running.discard(capture)
            if not self._running:
                self._all_closed.set()
            counts: dict[str, Any] = {}
            if report is not None:
                counts = {"reason": report.reason, "frames": report.frames, "lost": report.lost}
            self._events.publish({"event": "capture_ended"} | facts | counts)

        capture = LabCapture(session, closed)
        self._running.add(capture)
        return capture

    async def end_all(self) -> None:
        """Have all come to their ends, and wait for those whose readers go along."""
        for capture in self._running:
            capture.end("lab")
        if self._running:
            self._all_closed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_TIME):
                    await self._all_closed.wait()

    def _check(self, request: CaptureRequest) -> SwitchService:
        """Return the switch.  Raises NoSuchSwitch, NoSuchPort."""
        service = self._switches.service(request.switch)
        for port_no in request.ports or ():
            if service.session(port_no) is None:
                raise NoSuchPort(port_no)
        return service

    def _session(self, service: SwitchService, request: CaptureRequest, program: Program | None) -> Session:
        def subject(epoch_ns: Callable[[], int]) -> Subject:
            return Subject(
                request.switch,
                request.filter,
                request.snap_length,
                lambda port_no: self._switches.describe(service, port_no),
                epoch_ns,
            )

        if request.last is not None:
            recorder = self._switches.recorder(request.switch)
            return RecorderSession(recorder, request, program, subject(recorder.epoch_ns))
        clock = service.clock
        offset_ns = time.time_ns() - clock.now_ns()
        order = CaptureOrder(
            ports=None if request.ports is None else frozenset(request.ports),
            snap_length=request.snap_length,
            program=program,
            capacity=CAPACITY,
            epoch_offset_ns=offset_ns,
        )
        try:
            capture = service.engine.capture(order)
        except StateError as error:
            raise StateError(f"switch {request.switch}: {error}") from None
        except MemoryError:
            raise SwitchError(f"switch {request.switch}: there is no memory for a capture") from None
        whole = subject(lambda: clock.now_ns() + offset_ns)
        if request.file is None:
            return StreamSession(capture, whole)
        return FileSession(capture, request, whole)
