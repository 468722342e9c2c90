"""When parts of a log were printed: bounded, in order, and there after a restart."""

from __future__ import annotations

import io

import pytest

from umlab.guest import log_times
from umlab.guest.log_times import LogTimes

MS = 1_000_000


class Clock:
    """A wall clock that is set by hand."""

    now = 1000 * MS

    def __call__(self) -> int:
        return self.now


def filled(file: io.BytesIO, clock: Clock, moments: list[int]) -> LogTimes:
    """Return the times of a log to which ten bytes were added at each moment, in milliseconds."""
    times = LogTimes(file, 0, clock)
    for number, moment in enumerate(moments):
        clock.now = moment * MS
        times.add(10 * number)
    return times


def test_each_part_has_its_time() -> None:
    file = io.BytesIO()
    times = filled(file, Clock(), [1, 5, 9])
    assert times.from_offset(0, 9) == [(0, 1 * MS), (10, 5 * MS), (20, 9 * MS)]
    assert times.from_offset(9, 1) == [(0, 1 * MS)]
    assert times.from_offset(10, 9) == times.from_offset(19, 9) == [(10, 5 * MS), (20, 9 * MS)]
    assert times.from_offset(500, 9) == [(20, 9 * MS)]
    assert times.since(0.005, 9) == [(10, 5 * MS), (20, 9 * MS)]
    assert times.since(0.006, 1) == [(20, 9 * MS)]
    assert times.since(0.01, 9) == []
    assert len(file.getvalue()) == 3 * 16


def test_one_millisecond_has_one_time_and_a_clock_may_be_set_back() -> None:
    clock = Clock()
    times = LogTimes(io.BytesIO(), 0, clock)
    for offset, now in ((0, 10 * MS), (1, 10 * MS + 999_999), (2, 11 * MS), (3, 4 * MS), (4, 4 * MS + 1)):
        clock.now = now
        times.add(offset)
    assert times.from_offset(0, 9) == [(0, 10 * MS), (2, 11 * MS), (3, 4 * MS)]


def test_next_process_goes_on_where_the_log_ends() -> None:
    file, clock = io.BytesIO(), Clock()
    filled(file, clock, [1, 5, 9])
    # Half an entry was written last, and of the log only 15 bytes.
    file.write(b"\1" * 7)
    times = LogTimes(file, 15, clock)
    assert times.from_offset(0, 9) == [(0, 1 * MS), (10, 5 * MS)]
    clock.now = 20 * MS
    times.add(15)
    assert LogTimes(file, 16, clock).from_offset(0, 9) == [(0, 1 * MS), (10, 5 * MS), (15, 20 * MS)]


@pytest.mark.parametrize("content", [b"\xff" * 160, b"\0" * 160, b"x"])
def test_file_that_is_none_has_no_times(content: bytes) -> None:
    times = LogTimes(io.BytesIO(content), 1000)
    assert len(times.from_offset(0, 100)) <= 1
    times.add(1000)
    assert times.from_offset(1000, 9)[-1][0] == 1000


def test_many_times_become_half_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_times, "MAX_ENTRIES", 8)
    file = io.BytesIO()
    times = filled(file, Clock(), list(range(1, 100)))
    kept = times.from_offset(0, 99)
    assert kept[0] == (0, 1 * MS)
    assert kept[-1][0] >= 960
    assert len(kept) < 8
    assert len(file.getvalue()) == 16 * len(kept)
    assert LogTimes(file, 990).from_offset(0, 99) == kept


def test_disk_that_is_full_costs_no_more_than_the_file(caplog: pytest.LogCaptureFixture) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    times = LogTimes(Full(), 0, Clock())
    times.add(0)
    times.add(10)
    assert times.from_offset(0, 9) == [(0, 1000 * MS)]
    assert "not written any more" in caplog.text
