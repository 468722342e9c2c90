"""Captures that run: files by a thread, streams at their reader's pace; both end cleanly, and at once."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

from support.capture_file import check_counts, read_capture
from support.deadline import scaled, wait_until_async
from umlab.capture import session as capture_session
from umlab.capture.file import CaptureFiles
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.capture.session import FileSession, Session, StreamSession
from umlab.engine.contract import MIN_CAPTURE
from umlab.errors import CaptureError

from .conftest import Source


class Reader:
    """Takes all that a session tells.

    Attributes:
        data: Its bytes.
        reports: How far it was.
    """

    def __init__(self, session: Session) -> None:
        self.data = b""
        self.reports: list[CaptureProgress] = []
        self._task = asyncio.ensure_future(self._read(session))

    async def _read(self, session: Session) -> None:
        async with aclosing(session.items()) as items:
            async for item in items:
                if isinstance(item, bytes):
                    assert item
                    self.data += item
                else:
                    self.reports.append(item)

    async def until(self, event: str) -> CaptureProgress:
        """Return the latest report, once it is of an event."""
        await wait_until_async(lambda: self.reports and self.reports[-1].event == event, 10, event)
        return self.reports[-1]

    async def end(self) -> CaptureProgress:
        """Wait for the end, and return the last report."""
        async with asyncio.timeout(scaled(10)):
            await self._task
        return self.reports[-1]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_session, "REPORT_TIME", 0.05)


@pytest.fixture
def request_(tmp_path: Path) -> CaptureRequest:
    return CaptureRequest("lan", file=str(tmp_path / "a.pcapng"))


class TestFile:
    async def test_frames_are_written_until_the_end(
        self, source: Source, request_: CaptureRequest, tmp_path: Path
    ) -> None:
        session = FileSession(source.capture, request_, source.subject)
        await session.start()
        reader = Reader(session)
        source.send(5)
        await wait_until_async(lambda: reader.reports and reader.reports[-1].frames == 5, 10, "five frames")
        progress = reader.reports[-1]
        assert (progress.event, progress.seen, progress.lost, progress.reason) == ("progress", 5, 0, "")
        assert progress.file == request_.file
        source.send(2, 2)
        session.end("asked")
        session.end("switch")
        ended = await reader.end()
        assert reader.reports[0].event == "started"
        assert (ended.event, ended.reason, ended.frames, ended.files) == ("ended", "asked", 7, 1)
        interfaces = read_capture(tmp_path / "a.pcapng")
        check_counts(interfaces)
        assert [len(each.packets) for each in interfaces] == [5, 2]
        assert ended.bytes == (tmp_path / "a.pcapng").stat().st_size
        assert await session.close() == ended
        assert source.closes

    async def test_counts_stand_in_the_file_while_it_is_written(
        self, source: Source, request_: CaptureRequest, tmp_path: Path
    ) -> None:
        session = FileSession(source.capture, request_, source.subject)
        await session.start()
        source.send(3)

        def told() -> bool:
            return read_capture(tmp_path / "a.pcapng")[0].statistics == (3, 3, 0, 3)

        await wait_until_async(told, 10, "counts in the file")
        await session.close()

    async def test_full_disk_costs_frames_and_no_memory(
        self, source: Source, request_: CaptureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flush, full = CaptureFiles.retry, threading.Event()

        def retry(files: CaptureFiles) -> None:
            if full.is_set():
                files._write_problem = "No space left on device"
            else:
                flush(files)

        session = FileSession(source.capture, request_, source.subject)
        await session.start()
        reader = Reader(session)
        monkeypatch.setattr(CaptureFiles, "retry", retry)
        full.set()
        source.send(1)
        await wait_until_async(lambda: reader.reports and reader.reports[-1].problem, 10, "a full disk")
        source.send(1000)
        await wait_until_async(lambda: reader.reports[-1].lost, 10, "lost frames")
        # One in the file's hands, the others in the capture's memory.
        assert reader.reports[-1].frames <= 1 + MIN_CAPTURE // 1000
        full.clear()
        await wait_until_async(lambda: not reader.reports[-1].problem, 10, "room on the disk")
        source.send(10, first=5000)
        session.end("asked")
        ended = await reader.end()
        interfaces = read_capture(tmp_path / "a.pcapng")
        check_counts(interfaces)
        assert ended.seen == 1011 == ended.frames + ended.lost
        assert ended.lost == source.capture.counts()[1].lost > 0

    async def test_disk_that_is_full_at_the_end_is_told(
        self, source: Source, request_: CaptureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def retry(files: CaptureFiles) -> None:
            files._write_problem = "No space left on device"

        session = FileSession(source.capture, request_, source.subject)
        await session.start()
        monkeypatch.setattr(CaptureFiles, "retry", retry)
        source.send(3)
        reader = Reader(session)
        await wait_until_async(lambda: reader.reports and reader.reports[-1].problem, 10, "a full disk")
        source.send(3, 2)
        ended = await session.close()
        assert (ended.frames, ended.lost, ended.problem) == (0, 6, "No space left on device")
        interfaces = read_capture(tmp_path / "a.pcapng")
        check_counts(interfaces)
        assert [each.statistics for each in interfaces] == [(3, 3, 3, 0)] * 2
        assert await reader.end() == ended

    async def test_file_that_cannot_be_had_is_an_error(self, source: Source) -> None:
        session = FileSession(source.capture, CaptureRequest("lan", file="/dev/null/x"), source.subject)
        with pytest.raises(CaptureError, match="Not a directory"):
            await session.start()
        assert source.closes

    async def test_caller_that_is_cancelled_leaves_nothing(
        self, source: Source, request_: CaptureRequest
    ) -> None:
        session = FileSession(source.capture, request_, source.subject)
        task = asyncio.ensure_future(session.start())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        await session.close()
        assert source.closes

    async def test_bug_is_told_and_ends_it(
        self, source: Source, request_: CaptureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        session = FileSession(source.capture, request_, source.subject)
        await session.start()
        monkeypatch.setattr(CaptureFiles, "write", broken)
        reader = Reader(session)
        source.send(1)
        with pytest.raises(RuntimeError, match="a bug"):
            await reader.end()
        with pytest.raises(RuntimeError, match="a bug"):
            await session.close()
        assert source.closes
        read_capture(Path(request_.file or ""))

    async def test_reader_that_takes_nothing_finds_the_latest_report(
        self, source: Source, request_: CaptureRequest
    ) -> None:
        session = FileSession(source.capture, request_, source.subject)
        await session.start()
        source.send(3)
        await wait_until_async(lambda: session._latest and session._latest.frames == 3, 10, "a report")
        reader = Reader(session)
        session.end("asked")
        await reader.end()
        assert [each.event for each in reader.reports][-1] == "ended"
        assert len(reader.reports) <= 3


class TestStream:
    async def test_whole_capture_is_sent(self, source: Source) -> None:
        session = StreamSession(source.capture, source.subject)
        await session.start()
        reader = Reader(session)
        source.send(5)
        await wait_until_async(
            lambda: reader.data.count(b"\0\0\0\4") and len(reader.data) > 5000, 10, "5 frames"
        )
        source.capture.admit(3)
        source.send(2, 3)
        session.end("asked")
        ended = await reader.end()
        interfaces = read_capture(reader.data)
        check_counts(interfaces)
        assert [(each.name, len(each.packets)) for each in interfaces] == [
            ("lan:1", 5),
            ("lan:2", 0),
            ("lan:3", 2),
        ]
        assert (ended.reason, ended.frames, ended.lost, ended.bytes) == ("asked", 7, 0, len(reader.data))
        assert reader.reports[0].event == "started"

    async def test_progress_is_told(self, source: Source) -> None:
        session = StreamSession(source.capture, source.subject)
        reader = Reader(session)
        source.send(5)
        progress = await reader.until("progress")
        assert (progress.frames, progress.file) == (5, None)
        await session.close()
        await reader.end()

    async def test_reader_that_stalls_costs_frames_and_no_memory(self, source: Source) -> None:
        session = StreamSession(source.capture, source.subject)
        items = session.items()
        data = b""
        async with asyncio.timeout(scaled(10)):
            while b"\0\0\0\1" not in data:
                item = await anext(items)
                data += item if isinstance(item, bytes) else b""
                source.send(2)
            seen = source.capture.counts()[1].seen
            source.send(1000, first=10)
            assert len(source.capture.copy()) <= MIN_CAPTURE
            source.send(1, 2)
            session.end("asked")
            async for item in items:
                if isinstance(item, bytes):
                    data += item
                else:
                    report = item
        interfaces = read_capture(data)
        check_counts(interfaces)
        assert interfaces[0].statistics is not None
        assert interfaces[0].statistics[0] == seen + 1000
        assert interfaces[0].lost > 0
        assert report.lost == sum(each.lost for each in interfaces)

    async def test_reader_that_leaves_ends_it(self, source: Source) -> None:
        session = StreamSession(source.capture, source.subject)
        async with aclosing(session.items()) as items:
            await anext(items)
        report = await session.close()
        assert (report.event, report.reason) == ("ended", "asked")
        assert source.closes

    async def test_many_frames_leave_the_loop_to_others(
        self, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(capture_session, "SEND_SIZE", 2000)
        session = StreamSession(source.capture, source.subject)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.ensure_future(count_turns())
        source.send(100)
        items = session.items()
        taken = 0
        while taken < 90_000:
            item = await anext(items)
            taken += len(item) if isinstance(item, bytes) else 0
        counter.cancel()
        assert turns > 50
        await items.aclose()
        await session.close()
