"""The flight recorder: what has already happened, as it was asked for."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.capture_file import Interface, check_counts, read_capture
from umlab._clock import ManualClock
from umlab.capture import session as capture_session
from umlab.capture.filter import compile_filter
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.capture.recorder import SNAP_LENGTH, FlightRecorder
from umlab.capture.session import RecorderSession
from umlab.engine._pycapture import PyCapture
from umlab.engine.contract import MIN_CAPTURE, CaptureOrder
from umlab.errors import CaptureError

from .conftest import SECOND, Source


class Past:
    """A recorder of ports 1 and 2, whose frames the test makes up."""

    def __init__(self) -> None:
        self.clock = ManualClock(50 * SECOND)
        self.source = Source()
        self.recorder = FlightRecorder(self, MIN_CAPTURE, self.clock)  # type: ignore[arg-type]
        self.subject = dataclasses.replace(self.source.subject, epoch_ns=self.recorder.epoch_ns)

    def capture(self, order: CaptureOrder) -> PyCapture:
        """Stand in for the engine's method."""
        assert order.overwrite
        assert order.ports is None
        assert order.program is None
        self.source.capture = PyCapture(order, lambda _: None)
        for port_no in (1, 2):
            self.source.capture.admit(port_no)
        return self.source.capture

    def send(self, ago: float, port_no: int = 1, **fields: Any) -> None:
        """Have a frame happen some seconds ago."""
        # The capture adds the offset by itself.
        self.source.now_ns = self.clock.now_ns() - int(ago * SECOND)
        self.source.send(1, port_no, **fields)

    def save(
        self, last: float = 1e6, program: str = "", **fields: Any
    ) -> tuple[list[Interface], CaptureProgress]:
        """Return what is saved."""
        request = CaptureRequest("lan", last=last, filter=program, **fields)
        saved = self.recorder.save(request, compile_filter(program), self.subject)
        assert saved.report.bytes == len(saved.data)
        interfaces = read_capture(saved.data)
        check_counts(interfaces)
        return interfaces, saved.report


@pytest.fixture
def past() -> Iterator[Past]:
    made = Past()
    yield made
    made.source.release()
    del made.recorder, made.subject


def numbers(interface: Interface) -> list[int]:
    return [int.from_bytes(packet.data[:4], "big") for packet in interface.packets]


def test_last_seconds_are_saved(past: Past) -> None:
    past.clock.advance(100 * SECOND)
    for number, ago in enumerate((30.5, 10.5, 9.5, 0)):
        past.send(ago, 1 + number % 2, first=number, drop="tail" if number == 2 else "")
    (first, second), report = past.save(10)
    assert (first.name, numbers(first), second.name, numbers(second)) == ("lan:1", [2], "lan:2", [3])
    assert first.packets[0].comment == "drop: tail"
    assert (report.event, report.reason, report.frames, report.seen, report.lost) == (
        "ended",
        "saved",
        2,
        2,
        0,
    )
    assert report.covered == 10


def test_only_ports_with_frames_are_described_unless_they_are_asked_for(past: Past) -> None:
    past.send(0, 2)
    assert [each.name for each in past.save()[0]] == ["lan:2"]
    assert [(each.name, len(each.packets)) for each in past.save(ports=(1, 2))[0]] == [
        ("lan:1", 0),
        ("lan:2", 1),
    ]
    past.send(0, 1)
    assert [(each.name, len(each.packets)) for each in past.save(ports=(2,))[0]] == [("lan:2", 1)]


def test_of_a_long_frame_the_beginning_is_kept(past: Past) -> None:
    for size in (SNAP_LENGTH, SNAP_LENGTH + 1, 1500):
        past.send(0, size=size)
    (interface,), _ = past.save()
    assert [(len(packet.data), packet.length) for packet in interface.packets] == [
        (SNAP_LENGTH, SNAP_LENGTH),
        (SNAP_LENGTH, SNAP_LENGTH + 1),
        (SNAP_LENGTH, 1500),
    ]


def test_filter_and_snap_length(past: Past) -> None:
    for size in (60, 500, 1500):
        past.send(0, size=size)
    (interface,), report = past.save(program="len > 100", snap_length=80)
    assert [(len(packet.data), packet.length) for packet in interface.packets] == [(80, 500), (80, 1500)]
    assert interface.filter == ""  # the subject's, which the caller makes
    assert interface.statistics == (3, 2, 0, 2)
    assert (report.seen, report.frames) == (3, 2)


def test_recorder_that_is_not_full_reaches_back_to_its_beginning(past: Past) -> None:
    past.clock.advance(20 * SECOND)
    past.send(1)
    assert past.save(300)[1].covered == pytest.approx(20)
    assert past.save(5)[1].covered == 5


def test_recorder_that_is_full_reaches_back_to_its_oldest_frame(past: Past) -> None:
    past.clock.advance(1000 * SECOND)
    for number in range(500):
        past.send(500 - number, first=number)
    (interface,), report = past.save(900)
    held = numbers(interface)
    assert 0 < len(held) * SNAP_LENGTH <= MIN_CAPTURE
    assert held == list(range(held[0], 500))
    assert report.covered == 500 - held[0]
    assert past.save(3)[1].covered == 3


def test_closed_recorder_still_has_what_it_had(past: Past) -> None:
    past.send(0)
    past.recorder.close()
    before = past.recorder.blocks()
    assert len(before) > SNAP_LENGTH
    assert past.save()[1].frames == 1


class TestSession:
    async def items(self, past: Past, **fields: Any) -> tuple[bytes, list[CaptureProgress]]:
        request = CaptureRequest("lan", last=10, **fields)
        session = RecorderSession(past.recorder, request, None, past.subject)
        await session.start()
        items = [item async for item in session.items()]
        session.end("asked")
        assert await session.close() == items[-1]
        return (
            b"".join(item for item in items if isinstance(item, bytes)),
            [item for item in items if isinstance(item, CaptureProgress)],
        )

    async def test_sent(self, past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capture_session, "SEND_SIZE", 3000)
        for number in range(10):
            past.send(0, first=number)
        data, (started, ended) = await self.items(past)
        assert numbers(read_capture(data)[0]) == list(range(10))
        assert (started.event, started.reason, ended.event, ended.bytes) == (
            "started",
            "",
            "ended",
            len(data),
        )

    async def test_written(self, past: Past, tmp_path: Path) -> None:
        path = tmp_path / "a.pcapng"
        past.send(0)
        data, (_, ended) = await self.items(past, file=str(path))
        assert not data
        assert len(read_capture(path)[0].packets) == 1
        assert (ended.file, ended.files, ended.bytes) == (str(path), 1, path.stat().st_size)

    async def test_file_that_cannot_be_written_is_an_error_and_leaves_nothing(
        self, past: Past, tmp_path: Path
    ) -> None:
        with pytest.raises(CaptureError, match="No such file"):
            await self.items(past, file=str(tmp_path / "none" / "a"))
        for _ in range(20):
            past.send(0)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        try:
            with pytest.raises(CaptureError, match=os.strerror(errno.EFBIG)):
                await self.items(past, file=str(tmp_path / "a.pcapng"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())
