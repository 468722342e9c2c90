"""Captures that are written to a pipe: whole, by whoever reads, and for as long as he does."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.fake_captures import FakeCaptures
from support.guest_end import is_open
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.cli import recording
from umlab.cli.recording import Job, Recording
from umlab.errors import LabError
from umlab.wire.pcapng import INBOUND, serialize_interface, serialize_packet, serialize_section

STARTED, ENDED = CaptureProgress("started"), CaptureProgress("ended")
JOB = Job("lan", CaptureRequest("lan"))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        # The reader of some tests has left.
        if is_open(fd):
            os.close(fd)


def test_all_is_written_and_all_steps_are_told(runtime: Path, pipe: tuple[int, int]) -> None:
    steps: list[CaptureProgress] = []
    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED, b"one", b"two", ENDED)):
        Recording([JOB], lambda _, step: steps.append(step), fd=pipe[1]).run()
    assert os.read(pipe[0], 100) == b"onetwo"
    assert steps == [STARTED, ENDED]


def test_last_words_are_written(runtime: Path, pipe: tuple[int, int]) -> None:
    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED, b"one"), lambda _: (b"two", ENDED)):
        Recording([JOB], fd=pipe[1]).run(0.05)
    assert os.read(pipe[0], 100) == b"onetwo"


def test_several_captures_are_one_section(runtime: Path, pipe: tuple[int, int]) -> None:
    def begin(order: dict[str, Any]) -> tuple[CaptureProgress | bytes, ...]:
        interface = serialize_interface(f"{order['switch']}:1", "", 65_535)
        packet = serialize_packet(0, 7, b"\0" * 60, 60, INBOUND)
        return (STARTED, serialize_section("umlab"), interface + packet, ENDED)

    jobs = [Job("lan", CaptureRequest(switch)) for switch in ("a", "b")]
    with FakeCaptures(runtime, "lan", {}, begin):
        Recording(jobs, fd=pipe[1]).run()
    written = os.read(pipe[0], 4096)
    assert written.startswith(serialize_section("umlab"))
    assert written.count(serialize_section("umlab")) == 1
    numbers = {serialize_packet(number, 7, b"\0" * 60, 60, INBOUND) for number in (0, 1)}
    assert all(written.count(packet) == 1 for packet in numbers)


def test_reader_that_leaves_ends_it(runtime: Path, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    steps: list[CaptureProgress] = []
    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED, b"one")):
        Recording([JOB], lambda _, step: steps.append(step), fd=pipe[1]).run()
    assert steps[-1].reason == "asked"


def test_reader_that_leaves_ends_it_while_nothing_comes(runtime: Path, pipe: tuple[int, int]) -> None:
    steps: list[CaptureProgress] = []

    def leave(_: int, step: CaptureProgress) -> None:
        steps.append(step)
        if step == STARTED:
            os.close(pipe[0])

    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED,)):
        Recording([JOB], leave, fd=pipe[1]).run()
    assert steps[-1].reason == "asked"


@pytest.mark.parametrize("signal_first", [True, False])
def test_reader_that_leaves_at_a_signal_does_not_cut_the_end_short(
    runtime: Path, pipe: tuple[int, int], *, signal_first: bool
) -> None:
    """As Ctrl-C ends both sides of a pipe, and as Wireshark ends its plug-ins."""
    steps: list[CaptureProgress] = []

    def leave(_: int, step: CaptureProgress) -> None:
        steps.append(step)
        if step == STARTED:
            if signal_first:
                os.kill(os.getpid(), signal.SIGTERM)
            os.close(pipe[0])
            if not signal_first:
                os.kill(os.getpid(), signal.SIGTERM)

    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED,)):
        Recording([JOB], leave, fd=pipe[1]).run()
    assert steps[-1].reason == "asked"


def test_end_in_haste_says_nothing(
    runtime: Path, pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED,), lambda _: ()):
        Recording([JOB], interrupt, fd=pipe[1]).run()
    gc.collect()
    assert not caplog.records


def test_end_that_a_reader_holds_up_is_an_error(
    runtime: Path, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_LAST_WORDS", 0.05)
    with (
        FakeCaptures(runtime, "lan", {}, lambda _: (STARTED, bytes(1 << 20)), lambda _: (ENDED,)),
        pytest.raises(LabError, match=r"no end for 0\.05 seconds; the last counts are missing"),
    ):
        Recording([JOB], fd=pipe[1]).run(0.05)
    _end_writer(pipe[0])


def test_reader_that_stalls_holds_up_nothing_but_the_writing(runtime: Path, pipe: tuple[int, int]) -> None:
    """The first signal asks for the end, for which the reader would have to read; the second one leaves."""
    thread = threading.Thread(target=_interrupt_twice, args=(pipe[0],))
    with FakeCaptures(runtime, "lan", {}, lambda _: (STARTED, bytes(1 << 20)), lambda _: (ENDED,)):
        thread.start()
        Recording([JOB], fd=pipe[1]).run()
        thread.join()
    _end_writer(pipe[0])


def _end_writer(reader: int) -> None:
    """Close the pipe, with which the writer's thread ends."""
    os.close(reader)
    wait_until(lambda: all(each.name != "pipe" for each in threading.enumerate()), 10, "the writer")


def _interrupt_twice(fd: int) -> None:
    import array
    import fcntl
    import termios

    def filled() -> bool:
        size = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, size)
        return size[0] == fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)

    wait_until(filled, 10, "a full pipe")
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_cannot_be_written_is_an_error(runtime: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with (
            FakeCaptures(runtime, "lan", {}, lambda _: (STARTED, b"one")),
            pytest.raises(LabError, match="cannot write to the disk: No space left on device"),
        ):
            Recording([JOB], fd=fd, name="the disk").run()
    finally:
        os.close(fd)


def test_daemon_that_ends_is_an_error(runtime: Path, pipe: tuple[int, int]) -> None:
    error = {"error": {"class": "LabError", "message": "no memory", "fields": {}}}
    with FakeCaptures(runtime, "lan", {}, lambda _: (error,)), pytest.raises(LabError, match="no memory"):
        Recording([JOB], fd=pipe[1]).run()
