"""Captures that run: into files, written by a thread of their own, or as a stream at its reader's pace.

A capture's memory in the engine is the only place where many frames wait.  Where a disk is full or a reader
stalls it runs full, and the engine counts what is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from umlab.capture.block import whole_blocks
from umlab.capture.file import CaptureFiles, write_file
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.capture.recorder import FlightRecorder, Saved
from umlab.capture.section import Section, Subject
from umlab.engine.contract import Capture
from umlab.switch.bpf import Program

#: Bytes that are written, or sent, at once.
WRITE_SIZE, SEND_SIZE = 1 << 20, 1 << 18
#: Seconds that frames wait in a capture's memory while there are few.
QUIET_TIME = 0.05
#: Seconds between two reports, and between two tries to write to a full disk.
REPORT_TIME = 1.0

#: What a session tells: pcapng, or how far it is.
Items = AsyncGenerator[bytes | CaptureProgress, None]


class Session(Protocol):
    """A capture that runs; all calls belong to one event loop's thread."""

    async def start(self) -> None:
        """Begin.

        Raises:
            CaptureError: Its file cannot be had.
        """

    def items(self) -> Items:
        """Return what it tells, as it comes, the last one ``ended``; to be called once."""

    def end(self, reason: str) -> None:
        """Have it come to its end, if it does not already; see ``CaptureProgress.reason``."""

    async def close(self) -> CaptureProgress:
        """End it, wait until nothing is left of it, and return how far it has come."""


class FileSession:
    """A capture into files.

    Args:
        capture: What is written; closed at the end.
        request: What was asked for; has ``file``.
        subject: What is captured.
    """

    def __init__(self, capture: Capture, request: CaptureRequest, subject: Subject) -> None:
        self._capture = capture
        self._request = request
        self._subject = subject
        self._reason = ""
        self._ending = threading.Event()
        # What follows is the loop's alone.
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[CaptureProgress]
        self._latest: CaptureProgress | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Open the first file and begin to write; see `Session`."""
        pool = ThreadPoolExecutor(1, "umlab-capture")
        self._ended = self._loop.run_in_executor(pool, self._run)
        # Its thread ends with what it does.
        pool.shutdown(wait=False)
        self._ended.add_done_callback(lambda _: self._news.set())
        await self._news.wait()
        if self._latest is None:
            # There is no report: it has not begun.
            try:
                self._ended.result()
            finally:
                # The error refers to us: the capture's memory would stay until garbage is looked for.
                del self._ended

    async def items(self) -> Items:
        """Return how far it is; see `Session`.  Of reports that nobody has taken the latest remains."""
        while True:
            await self._news.wait()
            self._news.clear()
            latest, self._latest = self._latest, None
            if latest is not None:
                yield latest
            if self._ended.done():
                yield self._ended.result()
                return

    def end(self, reason: str) -> None:
        """See `Session`."""
        if not self._ending.is_set():
            self._reason = reason
            self._ending.set()
            # It also makes the thread look.
            self._capture.close()

    async def close(self) -> CaptureProgress:
        """See `Session`."""
        self.end("asked")
        return await asyncio.shield(self._ended)

    def _take(self, report: CaptureProgress) -> None:
        self._latest = report
        self._news.set()

    # The thread.

    def _run(self) -> CaptureProgress:
        """Write until the end comes, and return the last report."""
        try:
            files = CaptureFiles(self._request, self._subject, self._capture.interfaces, self._capture.counts)
            rest = b""
            try:
                self._write(files)
            finally:
                self._capture.close()
                rest = b"".join(iter(lambda: self._capture.read(WRITE_SIZE), b""))
                files.close(rest)
            return self._report("ended", files)
        finally:
            self._capture.close()

    def _write(self, files: CaptureFiles) -> None:
        poll = select.poll()
        poll.register(self._capture.ready_fd(), select.POLLIN)
        self._post(self._report("started", files))
        while not self._ending.is_set():
            report_at = time.monotonic() + REPORT_TIME
            while not self._ending.is_set() and time.monotonic() < report_at:
                if files.is_blocked:
                    self._ending.wait(max(report_at - time.monotonic(), 0))
                    files.retry()
                else:
                    poll.poll(QUIET_TIME * 1000)
                    self._move(files, report_at)
            files.write_statistics()
            self._post(self._report("progress", files))
        self._capture.close()
        files.retry()
        if not files.is_blocked:
            self._move(files, math.inf)

    def _move(self, files: CaptureFiles, until: float) -> None:
        """Write what waits, as far as it can be, and for so long."""
        while True:
            with self._capture.lend(files.room(WRITE_SIZE)) as packets:
                if not packets:
                    return
                files.write(packets)
            if files.is_blocked or time.monotonic() >= until:
                return

    def _post(self, report: CaptureProgress) -> None:
        # A loop that is closed has nobody left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, report)

    def _report(self, event: str, files: CaptureFiles) -> CaptureProgress:
        return _progress(
            self._capture,
            event,
            unwritten=files.unwritten,
            bytes=files.size,
            file=files.path,
            files=files.number,
            problem=files.problem,
            reason=self._reason if event == "ended" else "",
        )


class StreamSession:
    """A capture whose bytes are sent; what its reader does not take waits in the capture's memory.

    Args:
        capture: What is sent; closed at the end.
        subject: What is captured.
    """

    def __init__(self, capture: Capture, subject: Subject) -> None:
        self._capture = capture
        self._subject = subject
        self._reason = ""
        self._bytes = 0
        self._news = asyncio.Event()

    async def start(self) -> None:
        """See `Session`."""

    async def items(self) -> Items:
        """See `Session`."""
        section = Section(self._subject)
        yield self._report("started")
        yield self._sent(section.header())
        report_at = time.monotonic() + REPORT_TIME
        while not self._reason:
            if data := self._packets(section):
                yield data
            if len(data) < SEND_SIZE // 2:
                await self._wait()
            else:
                # Whoever takes everything at once would have the loop for himself.
                await asyncio.sleep(0)
            if time.monotonic() >= report_at:
                yield self._report("progress")
                report_at = time.monotonic() + REPORT_TIME
        while data := self._packets(section):
            yield data
        counts = self._capture.counts()
        statistics = [section.statistics(each, counts[port]) for each, port in enumerate(section.ports)]
        if statistics:
            yield self._sent(b"".join(statistics))
        yield self._report("ended")

    def end(self, reason: str) -> None:
        """See `Session`."""
        if not self._reason:
            self._reason = reason
            self._capture.close()
            self._news.set()

    async def close(self) -> CaptureProgress:
        """See `Session`."""
        self.end("asked")
        return self._report("ended")

    def _packets(self, section: Section) -> bytes:
        """Return what comes next; nothing where nothing waits."""
        packets = self._capture.read(SEND_SIZE)
        return self._sent(b"".join([*section.describe(self._capture.interfaces()), packets]))

    def _sent(self, data: bytes) -> bytes:
        self._bytes += len(data)
        return data

    def _report(self, event: str) -> CaptureProgress:
        return _progress(
            self._capture, event, bytes=self._bytes, reason=self._reason if event == "ended" else ""
        )

    async def _wait(self) -> None:
        """Wait a little, less where much has come meanwhile."""
        loop = asyncio.get_running_loop()
        fd = self._capture.ready_fd()
        loop.add_reader(fd, self._news.set)
        try:
            async with asyncio.timeout(QUIET_TIME):
                await self._news.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(fd)
            self._news.clear()


class RecorderSession:
    """What a flight recorder holds: nothing comes after it.

    Args:
        recorder: Whose.
        request: What was asked for; has ``last``.
        program: Its filter's.
        subject: What is captured.
    """

    def __init__(
        self, recorder: FlightRecorder, request: CaptureRequest, program: Program | None, subject: Subject
    ) -> None:
        self._recorder = recorder
        self._request, self._program, self._subject = request, program, subject
        self._saved: Saved

    async def start(self) -> None:
        """Find what was asked for, and write the file, if one was; see `Session`."""
        self._saved = await asyncio.to_thread(self._save)

    async def items(self) -> Items:
        """See `Session`."""
        report = self._saved.report
        yield replace(report, event="started", reason="")
        if self._request.file is None:
            data = memoryview(self._saved.data)
            while data:
                size = whole_blocks(data, SEND_SIZE)
                yield bytes(data[:size])
                data = data[size:]
                await asyncio.sleep(0)
        yield report

    def end(self, reason: str) -> None:
        """See `Session`: what is saved is saved."""

    async def close(self) -> CaptureProgress:
        """See `Session`."""
        return self._saved.report

    def _save(self) -> Saved:
        saved = self._recorder.save(self._request, self._program, self._subject)
        if self._request.file is None:
            return saved
        write_file(self._request.file, saved.data)
        return replace(saved, report=replace(saved.report, file=self._request.file, files=1))


def _progress(capture: Capture, event: str, *, unwritten: int = 0, **facts: Any) -> CaptureProgress:
    counts = capture.counts().values()
    lost = sum(count.lost for count in counts) + unwritten
    return CaptureProgress(
        event,
        seen=sum(count.seen for count in counts),
        frames=sum(count.accepted for count in counts) - lost,
        lost=lost,
        **facts,
    )
