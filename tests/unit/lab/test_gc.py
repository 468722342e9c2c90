"""What gc takes for dead, and what it leaves alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import deadline
from umlab.guest.rundir import RunDirectory
from umlab.lab import gc
from umlab.lab.gc import Removed


@pytest.fixture
def base(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The labs' directory; memory directories go beside it."""
    for variable in ("TMPDIR", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(short_dir))
    (short_dir / "umlab").mkdir(mode=0o700)
    return short_dir / "umlab"


def make_lab(base: Path, name: str = "lan", locks: tuple[str, ...] = ("daemon.lock", "keeper.lock")) -> Path:
    """Make what a lab leaves that dies with one guest."""
    lab = base / name
    (lab / "g/stray/stray").mkdir(mode=0o700, parents=True)
    (lab / "g/stray/stray/pid").write_text("4711\n")
    with socket.socket(socket.AF_UNIX) as api:
        api.bind(str(lab / "api.sock"))
    for lock in locks:
        (lab / lock).touch()
    return lab


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def tree(path: Path) -> list[tuple[str, int]]:
    """Return everything below a directory, with the times of its last changes."""
    return sorted((str(each), each.lstat().st_mtime_ns) for each in path.rglob("*"))


@pytest.mark.parametrize("locks", [("daemon.lock", "keeper.lock"), ("daemon.lock",), ("keeper.lock",)])
def test_dead_lab_is_removed(base: Path, locks: tuple[str, ...]) -> None:
    lab = make_lab(base, locks=locks)
    assert gc.collect() == [Removed("lab", "lan", str(lab))]
    assert os.listdir(base) == []
    assert gc.collect() == []


@pytest.mark.parametrize("lock", ["daemon.lock", "keeper.lock", "g/stray"])
@pytest.mark.parametrize("locks", [("daemon.lock", "keeper.lock"), ("daemon.lock",), ("keeper.lock",)])
def test_lab_with_a_living_keeper_daemon_or_guest_is_not_touched(
    base: Path, lock: str, locks: tuple[str, ...]
) -> None:
    lab = make_lab(base, locks=locks)
    if not (lab / lock).exists():
        (lab / lock).touch()
    with locked(lab / lock):
        before = tree(base)
        assert gc.collect() == []
        assert tree(base) == before


@pytest.mark.parametrize(("held", "free"), [("keeper.lock", "daemon.lock"), ("daemon.lock", "keeper.lock")])
def test_half_of_a_lab_lives_the_other_one_can_always_start(base: Path, held: str, free: str) -> None:
    lab = make_lab(base)
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            gc.collect()

    collector = threading.Thread(target=collect)
    with locked(lab / held):
        collector.start()
        try:
            for _ in range(2000):
                with locked(lab / free):
                    pass
        finally:
            stop.set()
            collector.join()


def test_dry_run_changes_nothing(base: Path) -> None:
    lab = make_lab(base, locks=("daemon.lock",))
    before = tree(base)
    assert gc.collect(dry_run=True) == [Removed("lab", "lan", str(lab))]
    assert tree(base) == before


def test_missing_base_is_nothing_to_do(base: Path) -> None:
    base.rmdir()
    assert gc.collect() == []


@pytest.mark.parametrize("what", ["base", "lab", "g", "guest"])
def test_link_is_not_followed(base: Path, what: str) -> None:
    elsewhere = base.parent / "elsewhere"
    kept = make_lab(elsewhere)
    before = tree(elsewhere)
    if what == "base":
        base.rmdir()
        base.symlink_to(elsewhere)
    elif what == "lab":
        (base / "lan").symlink_to(kept)
    else:
        lab = base / "lan"
        lab.mkdir()
        (lab / "daemon.lock").touch()
        if what == "guest":
            (lab / "g").mkdir()
        (lab / ("g" if what == "g" else "g/stray")).symlink_to(kept / "g")
    removed = gc.collect()
    assert [each.kind for each in removed] == ([] if what in ("base", "lab") else ["lab"])
    assert tree(elsewhere) == before


@pytest.mark.parametrize("lock", ["daemon.lock", "keeper.lock"])
def test_link_in_a_locks_place_is_not_followed(base: Path, lock: str) -> None:
    lab = make_lab(base, locks=())
    (base.parent / "target").touch()
    (lab / lock).symlink_to(base.parent / "target")
    before = tree(base)
    assert gc.collect() == []
    assert tree(base) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("what", ["umlab", "umlab/lan"])
def test_directory_of_somebody_else_is_left_alone(base: Path, what: str) -> None:
    lab = make_lab(base)
    os.chown(base.parent / what, 12345, 12345)
    assert gc.collect() == []
    assert lab.exists()


def test_sockets_of_a_dead_switch_are_removed_with_their_directory(base: Path) -> None:
    (base / "lan").mkdir()
    for name, kind in (("daemon.ctl", socket.SOCK_STREAM), ("bess", socket.SOCK_SEQPACKET)):
        with socket.socket(socket.AF_UNIX, kind) as dead:
            dead.bind(str(base / "lan" / name))
    assert gc.collect(dry_run=True) == [Removed("switch", "lan", str(base / "lan"))]
    assert gc.collect() == [Removed("switch", "lan", str(base / "lan"))]
    assert os.listdir(base) == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_switch_with_one_socket_that_lives_is_not_touched(base: Path, kind: socket.SocketKind) -> None:
    (base / "lan").mkdir()
    with socket.socket(socket.AF_UNIX, kind) as alive, socket.socket(socket.AF_UNIX) as dead:
        alive.bind(str(base / "lan/alive"))
        dead.bind(str(base / "lan/dead"))
        if kind != socket.SOCK_DGRAM:
            alive.listen()
        dead.close()
        before = tree(base)
        assert gc.collect() == []
        assert tree(base) == before


def test_switch_that_is_just_binding_is_not_touched(base: Path) -> None:
    (base / "lan").mkdir()
    with socket.socket(socket.AF_UNIX) as bound, locked(base / "lan"):
        bound.bind(str(base / "lan/daemon.ctl"))
        assert gc.collect() == []
        assert (base / "lan/daemon.ctl").exists()


@pytest.mark.parametrize("content", [[], ["notes"]])
def test_directory_that_is_no_labs_is_left_alone(base: Path, content: list[str]) -> None:
    (base / "mine").mkdir()
    for name in content:
        (base / "mine" / name).touch()
    assert gc.collect() == []
    assert (base / "mine").exists()


def make_memory(parent: Path, name: str = "umlab-stray-abcd_123", mode: int = 0o700) -> Path:
    path = parent / name
    path.mkdir()
    (path / "vm_file-AbCdEf").write_bytes(b"x")
    path.chmod(mode)
    return path


def test_memory_directory_that_nobody_uses_is_removed(base: Path) -> None:
    path = make_memory(base.parent)
    assert gc.collect(dry_run=True) == [Removed("memory", "stray", str(path))]
    assert path.exists()
    assert gc.collect() == [Removed("memory", "stray", str(path))]
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("umlab-stray-abcd_123", 0o750),
        ("umlab-demo-abcd_123", 0o700),
        ("umlab-abcd_123", 0o700),
        ("umlab-stray-abcd", 0o700),
        ("xumlab-stray-abcd_123", 0o700),
    ],
)
def test_directory_that_is_no_memory_directory_is_left_alone(base: Path, name: str, mode: int) -> None:
    path = make_memory(base.parent, name, mode)
    assert gc.collect() == []
    assert path.exists()


def test_link_with_a_memory_directorys_name_is_left_alone(base: Path) -> None:
    target = make_memory(base.parent, "target")
    (base.parent / "umlab-stray-abcd_123").symlink_to(target)
    assert gc.collect() == []
    assert (base.parent / "umlab-stray-abcd_123").is_symlink()
    assert (target / "vm_file-AbCdEf").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_memory_directory_of_somebody_else_is_left_alone(base: Path) -> None:
    path = make_memory(base.parent)
    os.chown(path, 12345, 12345)
    assert gc.collect() == []
    assert path.exists()


@pytest.mark.parametrize("how", ["file", "deleted file", "directory", "cwd", "TMPDIR"])
def test_memory_directory_that_a_process_uses_is_left_alone(base: Path, how: str) -> None:
    path = make_memory(base.parent)
    script = {
        "file": "f = open(path + '/vm_file-AbCdEf')",
        "deleted file": "f = open(path + '/vm_file-AbCdEf'); os.unlink(f.name)",
        "directory": "f = os.open(path, os.O_RDONLY)",
        "cwd": "os.chdir(path)",
        "TMPDIR": "",
    }[how]
    environment = os.environ | ({"TMPDIR": str(path)} if how == "TMPDIR" else {})
    code = f"import os, sys; path = {str(path)!r}; {script}\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        assert gc.collect() == []
        assert path.exists()
    assert gc.collect() == [Removed("memory", "stray", str(path))]


def test_memory_directory_of_a_guest_that_is_about_to_start_is_left_alone(base: Path) -> None:
    runs = base.parent / "elsewhere"
    runs.mkdir()
    run = RunDirectory(str(runs), "stray")
    try:
        assert gc.collect() == []
        assert os.path.exists(run.memory_path)
    finally:
        run.remove()


def test_memory_directory_of_a_living_labs_guest_is_left_alone(base: Path) -> None:
    lab = make_lab(base)
    path = make_memory(base.parent)
    with locked(lab / "keeper.lock"):
        assert gc.collect() == []
        assert path.exists()
    assert {each.kind for each in gc.collect()} == {"lab", "memory"}


#: A lab that lives and dies again and again; it takes its locks, and looks whether they are still there.
_STARTER = """
import fcntl, os, random, sys, time

lab, state = sys.argv[1], sys.argv[1] + "/state"

def take_locks():
    fds = []
    try:
        os.makedirs(lab, exist_ok=True)
        for name in ("keeper.lock", "daemon.lock"):
            fds.append(os.open(f"{lab}/{name}", os.O_RDWR | os.O_CREAT))
            fcntl.flock(fds[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if all(os.fstat(fd).st_nlink for fd in fds):
            return fds
    except (FileExistsError, FileNotFoundError, BlockingIOError):
        pass
    for fd in fds:
        os.close(fd)

for _ in range(500):
    end = time.perf_counter() + random.random() / 1000
    while os.path.exists(lab) and time.perf_counter() < end:
        pass
    while not (fds := take_locks()):
        pass
    open(state, "w").close()
    for _ in range(50):
        assert os.path.exists(state), "a living lab's file was removed"
    for fd in fds:
        os.close(fd)
"""


def test_lab_that_starts_meanwhile_keeps_its_files(base: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _STARTER, str(base / "lan")]) as starter:
        end, removed = deadline(60), 0
        while starter.poll() is None and time.monotonic() < end:
            removed += len(gc.collect())
        starter.kill()
    assert starter.returncode == 0
    assert removed > 10


def test_half_made_images_and_snapshots_go_and_whole_ones_stay(
    base: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(short_dir / "state"))
    images, lab = base / "images", short_dir / "state/umlab/gone"
    left = [
        short_dir / ".umlab-image-d",
        images / ".new-a",
        lab / "disks/.new-b",
        lab / "snapshots/.new-c",
    ]
    for place in left:
        (place / "tree").mkdir(parents=True)
    kept = [images / "debian.img", lab / "disks/left.cow", lab / "snapshots/clean/left.cow"]
    kept[2].parent.mkdir()
    for file in kept:
        file.touch()
    expected = [Removed("unfinished", place.name, str(place)) for place in left]
    with locked(left[0]):
        assert gc.collect(dry_run=True) == expected[1:]
    assert gc.collect(dry_run=True) == gc.collect() == expected
    assert gc.collect() == []
    assert all(file.exists() for file in kept)


def make_run(base: Path, umid: str = "run-0123abcd") -> Path:
    """Make the run directory of a guest of ``umlab run``."""
    run = base / ".run" / umid
    (run / umid).mkdir(mode=0o700, parents=True)
    (run / "root.cpio").touch()
    return run


def test_directory_of_a_dead_run_is_removed(base: Path) -> None:
    run, memory = make_run(base), make_memory(base.parent, "umlab-run-0123abcd-abcd_123")
    expected = [
        Removed("run", "run-0123abcd", str(run)),
        Removed("memory", "run-0123abcd", str(memory)),
    ]
    assert gc.collect(dry_run=True) == expected
    assert run.exists()
    assert gc.collect() == expected
    assert list((base / ".run").iterdir()) == []
    assert gc.collect() == []


def test_next_run_removes_what_dead_ones_left_and_nothing_else(base: Path) -> None:
    lab, run = make_lab(base), make_run(base)
    gc.collect_runs()
    assert not run.exists()
    assert lab.exists()


def test_run_that_lives_or_begins_is_not_touched(base: Path) -> None:
    run = make_run(base)
    memory = make_memory(base.parent, "umlab-run-0123abcd-abcd_123")
    for held in (run, run.parent):
        with locked(held):
            assert gc.collect() == []
    assert (run.exists(), memory.exists()) == (True, True)
