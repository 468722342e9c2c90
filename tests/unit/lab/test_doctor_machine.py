"""What doctor says of places, memory, limits and the engine.  Sick machines are integration tests."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from umlab.engine import select
from umlab.engine._py import PyEngine
from umlab.lab.doctor import capture, engine, limit, memory, place
from umlab.lab.doctor.finding import Status, Subject, Verdict

ANY = Subject("/kernel", "/runtime", "/state")


class FakeNative(PyEngine):
    """Stands for the native engine."""

    kind = "native"


def subject(directory: Path) -> Subject:
    return Subject("/kernel", str(directory / "run"), str(directory / "state"))


def test_directories_that_can_be_made_are_ok_and_nothing_is_left(short_dir: Path) -> None:
    assert place.check_runtime(subject(short_dir)) == Verdict(Status.OK, f"{short_dir}/run")
    state = place.check_state(subject(short_dir))
    assert state.detail.startswith(f"{short_dir}/state, ")
    assert os.listdir(short_dir) == []


def test_directories_that_exist_are_ok_and_stay_empty(short_dir: Path) -> None:
    for name in ("run", "state"):
        (short_dir / name).mkdir(mode=0o700)
    assert place.check_runtime(subject(short_dir)).status is Status.OK
    assert place.check_state(subject(short_dir)).status is not Status.FAIL
    assert [each.name for each in short_dir.rglob("*") if each.parent != short_dir] == []


def test_runtime_directory_open_to_others_fails(short_dir: Path) -> None:
    (short_dir / "run").mkdir()
    (short_dir / "run").chmod(0o750)
    verdict = place.check_runtime(subject(short_dir))
    assert verdict == Verdict(
        Status.FAIL, f"{short_dir}/run is open to other users", f"chmod 700 {short_dir}/run"
    )


@pytest.mark.parametrize("what", ["link", "file"])
def test_runtime_directory_that_is_none_fails(short_dir: Path, what: str) -> None:
    if what == "link":
        (short_dir / "run").symlink_to(short_dir)
    else:
        (short_dir / "run").touch()
    verdict = place.check_runtime(subject(short_dir))
    assert (verdict.status, verdict.fix) == (Status.FAIL, "remove it")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_runtime_directory_of_somebody_else_fails(short_dir: Path) -> None:
    (short_dir / "run").mkdir(mode=0o700)
    os.chown(short_dir / "run", 12345, 12345)
    verdict = place.check_runtime(subject(short_dir))
    assert verdict.status is Status.FAIL
    assert "user 12345" in verdict.detail


@pytest.mark.parametrize(
    ("size", "status"), [(69, Status.OK), (70, Status.WARN), (90, Status.WARN), (91, Status.FAIL)]
)
def test_runtime_directory_with_a_long_path_leaves_little_for_names(
    short_dir: Path, size: int, status: Status
) -> None:
    path = f"{short_dir}/{'x' * (size - len(str(short_dir)) - 1)}"
    verdict = place.check_runtime(Subject("/kernel", path, "/state"))
    assert verdict.status is status
    assert bool(verdict.fix) is (status is not Status.OK)


def test_place_where_nothing_can_be_made_fails_and_names_the_variable() -> None:
    # Not even root can make a directory there.
    nowhere = Subject("/kernel", "/proc/umlab", "/proc/umlab")
    runtime, state = place.check_runtime(nowhere), place.check_state(nowhere)
    assert runtime.status is state.status is Status.FAIL
    assert "XDG_RUNTIME_DIR" in runtime.fix
    assert "XDG_STATE_HOME" in state.fix


@pytest.mark.parametrize("parent", ["/proc", "/nonexistent"])
def test_memory_file_that_cannot_be_made_fails(parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", parent)
    verdict = memory.check_executable(ANY)
    assert verdict.status is Status.FAIL
    assert parent in verdict.detail
    assert "TMPDIR" in verdict.fix


def test_memory_file_is_made_and_gone(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short_dir))
    assert memory.check_executable(ANY).status is Status.OK
    assert os.listdir(short_dir) == []


@pytest.mark.parametrize(
    ("available", "free", "guests", "status"),
    [
        (10_000, 10_000, 78, Status.OK),
        (10_000, 256, 2, Status.OK),
        (10_000, 255, 1, Status.WARN),
        (128, 10_000, 1, Status.WARN),
        (127, 10_000, 0, Status.FAIL),
        (10_000, 0, 0, Status.FAIL),
    ],
)
def test_room_is_the_smaller_of_memory_and_file_system(
    available: int, free: int, guests: int, status: Status
) -> None:
    verdict = memory.judge_room(available, free, "/place")
    assert verdict.status is status
    assert f"about {guests} guests" in verdict.detail
    assert bool(verdict.fix) is (status is not Status.OK)


def test_room_of_this_machine_is_counted() -> None:
    assert " MiB free in " in memory.check_room(ANY).detail


@pytest.mark.parametrize(
    ("hard", "ports", "status"),
    [(20_000, 9968, Status.OK), (320, 128, Status.OK), (319, 127, Status.WARN), (64, 0, Status.FAIL)],
)
def test_descriptors_are_counted_in_ports(hard: int, ports: int, status: Status) -> None:
    verdict = limit.judge_descriptors(hard)
    assert verdict.status is status
    assert f"about {ports} ports" in verdict.detail


def test_unlimited_descriptors_are_enough() -> None:
    assert limit.judge_descriptors(resource.RLIM_INFINITY).status is Status.OK


@pytest.mark.parametrize(("length", "status"), [(10, Status.OK), (512, Status.OK), (9, Status.WARN)])
def test_datagram_queue_is_told_in_frames(length: int, status: Status) -> None:
    verdict = limit.judge_datagram_queue(length)
    assert verdict.status is status
    assert f"takes {length + 1} frames" in verdict.detail
    assert "net.unix.max_dgram_qlen" in verdict.detail + verdict.fix


def test_value_of_this_machine_is_shown() -> None:
    assert limit.check_datagram_queue(ANY).detail.partition(":")[0].isdecimal()


@pytest.mark.parametrize(
    ("wanted", "native", "status", "words"),
    [
        ("auto", "", Status.OK, "engine native"),
        ("native", "", Status.OK, "engine native"),
        ("py", "", Status.OK, "engine py"),
        ("auto", "no compiler", Status.WARN, "engine py, which is slower: no compiler"),
        ("native", "no compiler", Status.FAIL, "no switch can start: "),
        ("py", "no compiler", Status.OK, "engine py"),
        ("fast", "", Status.FAIL, "'fast'"),
    ],
)
def test_engine_is_the_one_that_a_switch_gets(
    wanted: str, native: str, status: Status, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMLAB_ENGINE", wanted)
    monkeypatch.setattr(select, "why_not_native", lambda: native)
    monkeypatch.setattr(engine, "why_not_native", lambda: native)
    monkeypatch.setattr(select, "native_engine", lambda: FakeNative)
    select._choose.cache_clear()
    verdict = engine.check_engine(ANY)
    select._choose.cache_clear()
    assert verdict.status is status
    assert words in verdict.detail
    assert bool(verdict.fix) is (status is not Status.OK)


def test_libpcap_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert capture.check_libpcap(ANY) == Verdict(Status.OK, "captures take filters")
    monkeypatch.setattr(capture, "why_no_library", lambda: "libpcap.so.0.8: no such file")
    verdict = capture.check_libpcap(ANY)
    assert (verdict.status, verdict.fix) == (Status.WARN, "apt-get install libpcap0.8")
    assert verdict.detail.endswith("tcpdump -ddd prints them: libpcap.so.0.8: no such file")
