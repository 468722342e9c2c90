"""Files of captures: whole blocks and exact counts, on disks that are full and on those that are not."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.capture_file import Interface, check_counts, read_capture
from support.pcapng_blocks import read_blocks
from umlab.capture.file import CaptureFiles, write_file
from umlab.capture.order import MIN_ROTATE_SIZE, CaptureRequest
from umlab.errors import CaptureError

from .conftest import Source

ALL = 1 << 30


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class Disk:
    """Stands between the files and the real disk, which never fails in time.

    Attributes:
        room: Bytes that can still be written; ``None`` for any number.
        error: What is said when there is no more.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.error = errno.ENOSPC
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        # What is written over needs no room.
        new = max(offset + len(data) - os.fstat(fd).st_size, 0)
        if self.room is None or new == 0:
            return self._pwrite(fd, data, offset)
        if self.room == 0:
            raise OSError(self.error, os.strerror(self.error))
        written = self._pwrite(fd, memoryview(data)[: len(data) - new + min(new, self.room)], offset)
        self.room -= min(new, self.room)
        return written


def open_files(source: Source, path: Path, **fields: object) -> CaptureFiles:
    request = CaptureRequest("lan", file=str(path), **fields)  # type: ignore[arg-type]
    return CaptureFiles(request, source.subject, source.capture.interfaces, source.capture.counts)


def move(source: Source, files: CaptureFiles) -> None:
    """Write what the capture holds, as a session does."""
    while not files.is_blocked and (packets := source.capture.read(files.room(ALL))):
        files.write(packets)


def numbers(interface: Interface) -> list[int]:
    return [int.from_bytes(packet.data[:4], "big") for packet in interface.packets]


def test_file_has_its_ports_before_the_first_frame(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    files = open_files(source, path)
    first, second = read_capture(path)
    assert (first.name, first.description, first.snap_length) == ("lan:1", "guest 1", 65_535)
    assert second.name == "lan:2"
    assert first.statistics == second.statistics == (0, 0, 0, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    files.close(b"")


def test_frames_and_counts_are_written(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    files = open_files(source, path)
    source.send(3, 1)
    source.send(2, 2, drop="tail")
    move(source, files)
    files.write_statistics()
    before = read_capture(path)
    check_counts(before)
    assert [len(each.packets) for each in before] == [3, 2]
    source.capture.admit(7)
    source.send(1, 7)
    move(source, files)
    files.close(b"")
    after = read_capture(path)
    check_counts(after)
    assert [(each.name, len(each.packets)) for each in after] == [("lan:1", 3), ("lan:2", 2), ("lan:7", 1)]
    assert (files.size, files.number, files.unwritten) == (path.stat().st_size, 1, 0)


def test_what_was_there_is_overwritten(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"x" * 100_000)
    open_files(source, path).close(b"")
    assert len(read_capture(path)) == 2


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG])
def test_full_disk_leaves_whole_blocks_and_goes_on_when_there_is_room(
    source: Source, tmp_path: Path, disk: Disk, problem: int
) -> None:
    path = tmp_path / "a.pcapng"
    files = open_files(source, path)
    disk.room, disk.error = 2500, problem
    source.send(5)
    move(source, files)
    assert (files.is_blocked, files.problem) == (True, os.strerror(problem))
    # Two frames of a little over 1000 bytes fit, and half of another.
    assert numbers(read_capture(path)[0]) == [0, 1]
    files.retry()
    assert files.is_blocked
    files.write_statistics()
    disk.room = None
    files.retry()
    assert (files.is_blocked, files.problem) == (False, "")
    source.send(1, first=5)
    move(source, files)
    files.close(b"")
    interfaces = read_capture(path)
    check_counts(interfaces)
    assert numbers(interfaces[0]) == [0, 1, 2, 3, 4, 5]
    assert files.unwritten == 0


def test_disk_that_stays_full_has_the_loss_in_its_counts(source: Source, tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "a.pcapng"
    files = open_files(source, path)
    disk.room = 2500
    source.send(5)
    move(source, files)
    source.send(400, 2)  # more than the capture's memory has room for
    rest = source.capture.read(ALL)
    assert source.capture.counts()[2].lost
    files.close(rest)
    interfaces = read_capture(path)
    check_counts(interfaces)
    assert interfaces[0].statistics == (5, 5, 3, 2)
    assert interfaces[1].statistics == (400, 400, 400, 0)
    assert files.unwritten + source.capture.counts()[2].lost == 403


def test_port_that_comes_on_a_full_disk_is_there_when_there_is_room(
    source: Source, tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "a.pcapng"
    files = open_files(source, path)
    source.capture.admit(9)
    source.send(2, 9)
    # Into the middle of what describes it, and then behind that.
    for room in (10, 100, 200):
        disk.room = room
        (files.retry if files.is_blocked else lambda: move(source, files))()
        assert files.is_blocked
        read_blocks(path.read_bytes())
        files.write_statistics()
        read_blocks(path.read_bytes())
    disk.room = None
    files.retry()
    files.close(b"")
    interfaces = read_capture(path)
    check_counts(interfaces)
    assert interfaces[2].statistics == (2, 2, 0, 2)


def test_quota_of_the_process_is_a_full_disk(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    files = open_files(source, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (files.size + 2500, before[1]))
    try:
        source.send(5)
        move(source, files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files.problem == os.strerror(errno.EFBIG)
    assert numbers(read_capture(path)[0]) == [0, 1]
    files.close(b"")
    assert read_capture(path)[0].statistics == (5, 5, 3, 2)


class TestRotation:
    def test_by_size(self, source: Source, tmp_path: Path) -> None:
        files = open_files(source, tmp_path / "a.pcapng", rotate_size=MIN_ROTATE_SIZE)
        for first in range(0, 300, 10):
            source.send(10, first=first)
            move(source, files)
        files.close(b"")
        paths = sorted(tmp_path.iterdir())
        assert [path.name for path in paths] == [f"a_{each:05}.pcapng" for each in range(1, files.number + 1)]
        assert files.number == 5
        assert all(path.stat().st_size <= MIN_ROTATE_SIZE for path in paths)
        captures = [read_capture(path) for path in paths]
        for each in captures:
            check_counts(each)
        assert [number for each in captures for number in numbers(each[0])] == list(range(300))
        assert files.size == sum(path.stat().st_size for path in paths)

    def test_frame_that_is_larger_than_a_file_has_one_for_itself(
        self, source: Source, tmp_path: Path
    ) -> None:
        files = open_files(source, tmp_path / "a.pcapng", rotate_size=MIN_ROTATE_SIZE)
        for first in range(3):
            source.send(1, first=first, size=65_535)
            move(source, files)
        files.close(b"")
        assert [numbers(read_capture(path)[0]) for path in sorted(tmp_path.iterdir())] == [[0], [1], [2]]

    def test_by_time_from_each_first_frame_on(
        self, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        files = open_files(source, tmp_path / "a.pcapng", rotate_time=60.0)
        for first, now in enumerate((1000.0, 1059.0, 1060.0, 1119.0, 5000.0)):  # noqa: B007
            source.send(1, first=first)
            move(source, files)
        files.close(b"")
        found = [numbers(read_capture(path)[0]) for path in sorted(tmp_path.iterdir())]
        assert found == [[0, 1], [2, 3], [4]]

    def test_only_the_newest_files_stay(self, source: Source, tmp_path: Path) -> None:
        other = tmp_path / "a_00000.pcapng"
        other.write_text("not ours")
        files = open_files(source, tmp_path / "a.pcapng", rotate_size=MIN_ROTATE_SIZE, files=2)
        for first in range(0, 300, 10):
            source.send(10, first=first)
            move(source, files)
        files.close(b"")
        names = [path.name for path in sorted(tmp_path.iterdir())]
        assert names == ["a_00000.pcapng", "a_00004.pcapng", "a_00005.pcapng"]

    def test_counts_of_all_files_are_those_of_the_capture(self, tmp_path: Path, disk: Disk) -> None:
        source = Source(filtered=True)
        files = open_files(source, tmp_path / "a.pcapng", rotate_size=MIN_ROTATE_SIZE)
        for turn in range(40):
            # The filter accepts none of the small numbers, and all of the great.
            source.send(3, 1)
            source.send(5 if turn % 10 else 150, 1, first=1 << 24)
            source.send(1, 2, first=1 << 24)
            if turn % 7 == 6:
                disk.room = 3000
            move(source, files)
            files.write_statistics()
            if files.is_blocked and turn % 3:
                disk.room = None
                files.retry()
        files.close(source.capture.read(ALL))
        captures = [read_capture(path) for path in sorted(tmp_path.iterdir())]
        assert len(captures) > 3
        for each in captures:
            check_counts(each)
        told_lost = 0
        for number, port_no in enumerate((1, 2)):
            whole = source.capture.counts()[port_no]
            told = [each[number].statistics or () for each in captures]
            sums = [sum(column) for column in zip(*told, strict=True)]
            assert sums[:2] == [whole.seen, whole.accepted]
            told_lost += sums[2]
            assert sums[3] == sum(len(each[number].packets) for each in captures)
        lost = sum(each.lost for each in source.capture.counts().values())
        assert lost > 0
        assert told_lost == lost + files.unwritten

    def test_next_file_that_cannot_be_had_keeps_the_present_one(self, source: Source, tmp_path: Path) -> None:
        files = open_files(source, tmp_path / "a.pcapng", rotate_size=MIN_ROTATE_SIZE)
        (tmp_path / "a_00002.pcapng").mkdir()
        for first in range(0, 100, 10):
            source.send(10, first=first)
            move(source, files)
        assert "a_00002.pcapng" in files.problem
        assert not files.is_blocked
        assert len(read_capture(tmp_path / "a_00001.pcapng")[0].packets) == 100
        (tmp_path / "a_00002.pcapng").rmdir()
        source.send(1, first=100)
        move(source, files)
        assert files.problem == ""
        files.close(b"")
        assert numbers(read_capture(tmp_path / "a_00002.pcapng")[0]) == [100]
        check_counts(read_capture(tmp_path / "a_00001.pcapng"))


class TestPlaces:
    @pytest.fixture(params=["capture", "whole"])
    def write(self, request: pytest.FixtureRequest, source: Source) -> Callable[[Path], None]:
        """Return what writes a file, by a capture or at once."""
        if request.param == "capture":
            return lambda path: open_files(source, path).close(b"")
        return lambda path: write_file(str(path), b"all of it")

    @pytest.fixture
    def places(self, tmp_path: Path) -> Iterator[dict[str, Path]]:
        pipe, link = tmp_path / "pipe", tmp_path / "link"
        os.mkfifo(pipe)
        link.symlink_to(tmp_path / "none" / "x")
        name = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(name))
            yield {
                "No such file or directory": tmp_path / "none" / "a.pcapng",
                "Not a directory": Path("/dev/null/a"),
                "Is a directory": tmp_path,
                "is not a file": pipe,
                "is not a file ": Path("/dev/null"),
                "No such file": link,
                "No such device": name,
                "File name too long": tmp_path / ("x" * 300),
            }

    def test_place_that_takes_no_file_is_an_error(
        self, write: Callable[[Path], None], places: dict[str, Path]
    ) -> None:
        for reason, path in places.items():
            with pytest.raises(CaptureError, match=f"cannot write to .*{path.name[:20]}.*: ") as caught:
                write(path)
            assert reason.strip() in str(caught.value) or path.name == "s"

    def test_file_of_another_capture_is_left_alone(
        self, write: Callable[[Path], None], source: Source, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.pcapng"
        files = open_files(source, path)
        source.send(1)
        move(source, files)
        with pytest.raises(CaptureError, match="another capture does"):
            write(path)
        files.close(b"")
        assert len(read_capture(path)[0].packets) == 1

    def test_disk_that_is_full_at_the_start_is_an_error_and_leaves_nothing(
        self, write: Callable[[Path], None], tmp_path: Path
    ) -> None:
        path = tmp_path / "a.pcapng"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
        try:
            with pytest.raises(CaptureError, match=os.strerror(errno.EFBIG)):
                write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not path.exists()

    def test_file_systems_without_locks_are_written_all_the_same(
        self, write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_locks(*_: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        write(tmp_path / "a.pcapng")
        assert (tmp_path / "a.pcapng").stat().st_size
