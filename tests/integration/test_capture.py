"""Captures of a real daemon: what tshark reads in every file is what the ports have counted, at any rate."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, FakeGuest, attached, frame, mac
from support.capture_file import Interface, check_counts, read_capture
from support.deadline import scaled, wait_until
from support.require import require_program
from umlab.capture.order import MIN_ROTATE_SIZE, CaptureProgress, CaptureRequest
from umlab.client import Client
from umlab.client.capture import Capture
from umlab.engine.select import ENGINE_VARIABLE
from umlab.errors import CaptureError, NoSuchPort, NoSuchSwitch

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: What tshark is asked of each frame.
FIELDS = ("frame.interface_name", "frame.packet_flags_direction", "frame.comment", "frame.len")


class Lab:
    """A lab of the switch ``lan``; guest ``one`` sends, and ``two`` reads when it is told to."""

    def __init__(self, background: BackgroundLab, one: FakeGuest, two: FakeGuest) -> None:
        self.background = background
        self.one, self.two = one, two
        self.name = background.name
        self.client = Client(self.name)

    def counted(self) -> dict[str, int]:
        """Return what each port has counted, drops included."""
        return {
            f"{self.name}:{port.port_no}": sum(
                value
                for name, value in port.counters.items()
                if name in ("rx_frames", "tx_frames") or name.startswith("drop_")
            )
            for port in self.client.ports(self.name)
        }

    def flood(self, count: int, size: int = 60) -> None:
        """Send broadcasts as fast as it goes, and wait until all have been counted; nobody reads them."""
        before = self.client.port(self.name, 1).counters["rx_frames"]
        data = frame(BROADCAST, mac(1), size=size)
        for _ in range(count):
            self.one.send(data)

        def all_are_counted() -> bool:
            return self.client.port(self.name, 1).counters["rx_frames"] == before + count

        wait_until(all_are_counted, 20, "the flood is over")
        # What waits for the second guest is sent when it reads.
        wait_until(self._nothing_waits, 20, "nothing waits any more")

    def _nothing_waits(self) -> bool:
        self.two.receive_waiting()
        return not any(port.queued for port in self.client.ports(self.name))

    @contextlib.contextmanager
    def capture(self, **fields: Any) -> Iterator[Capture]:
        """Begin a capture."""
        with self.client.capture(CaptureRequest(self.name, **fields)) as capture:
            started = next(capture)
            assert isinstance(started, CaptureProgress)
            assert started.event == "started"
            yield capture


@contextlib.contextmanager
def running(name: str) -> Iterator[Lab]:
    with BackgroundLab(name, listen=("daemon",)) as background:
        control = background.runtime / f"{name}.ctl"
        with attached(control) as one, attached(control) as two:
            made = Lab(background, one, two)
            yield made
            made.client.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running("lan") as made:
        yield made


def rest_of(capture: Capture) -> tuple[bytes, CaptureProgress]:
    """Return the bytes and the last report of what a capture tells until its end."""
    data, report = b"", None
    for item in capture:
        if isinstance(item, bytes):
            data += item
        else:
            report = item
    assert report is not None
    assert report.event == "ended"
    return data, report


def stopped(capture: Capture) -> tuple[bytes, CaptureProgress]:
    """Stop a capture and return the rest of it."""
    capture.stop()
    return rest_of(capture)


def tshark(path: Path) -> list[list[str]]:
    """Return the fields of each frame that tshark finds in a file."""
    options = [word for name in FIELDS for word in ("-e", name)]
    words = [require_program("tshark"), "-n", "-r", path, "-T", "fields", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=scaled(60), check=False)
    # Root is warned, and a file that is cut short is told of.
    problems = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    assert (done.returncode, problems) == (0, [])
    return [line.split("\t") for line in done.stdout.splitlines()]


def capinfos(path: Path) -> int:
    """Return how many frames capinfos counts in a file."""
    words = [require_program("capinfos"), "-T", "-M", "-r", "-c", path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=scaled(60), check=True)
    return int(done.stdout.split("\t")[1])


def checked(*paths: Path) -> list[list[Interface]]:
    """Return the ports of each file; fails unless tshark, capinfos and the file agree on its frames."""
    found = []
    for path in paths:
        interfaces = read_capture(path)
        check_counts(interfaces)
        by_name = {each.name: len(each.packets) for each in interfaces if each.packets}
        assert Counter(fields[0] for fields in tshark(path)) == by_name
        assert capinfos(path) == sum(by_name.values())
        found.append(interfaces)
    return found


def seen_in(captures: list[list[Interface]]) -> Counter[str]:
    """Return how many frames of each port are in files, or are told there to be lost."""
    seen: Counter[str] = Counter()
    for each in captures:
        for interface in each:
            seen[interface.name] += len(interface.packets) + interface.lost
    return seen


def difference(before: dict[str, int], after: dict[str, int]) -> Counter[str]:
    return Counter({name: after[name] - count for name, count in before.items()})


def test_live_frames_say_what_became_of_them(lab: Lab, tmp_path: Path) -> None:
    before = lab.counted()
    with lab.capture(ports=(1, 2)) as capture:
        lab.one.send(frame(BROADCAST, mac(1), size=100))
        lab.two.receive()
        lab.two.send(frame(mac(1), mac(2), size=200))
        lab.one.receive()
        lab.one.send(frame(mac(1), mac(3)))
        lab.one.send(b"short")
        wait_until(lambda: sum(difference(before, lab.counted()).values()) == 6, 10, "six frames are counted")
        data, report = stopped(capture)
    path = tmp_path / "a.pcapng"
    path.write_bytes(data)
    assert tshark(path) == [
        ["lan:1", "0x00000001", "", "100"],
        ["lan:2", "0x00000002", "", "100"],
        ["lan:2", "0x00000001", "", "200"],
        ["lan:1", "0x00000002", "", "200"],
        ["lan:1", "0x00000001", "drop: same_port", "60"],
        ["lan:1", "0x00000001", "drop: runt", "5"],
    ]
    ((first, _),) = checked(path)
    assert first.description == "daemon v3"
    assert (report.frames, report.lost, report.reason) == (6, 0, "asked")


def check_flood(lab: Lab, path: Path, count: int) -> None:
    """Fail unless a file has every frame of a flood, those included that a guest loses by not reading."""
    before = lab.counted()
    with lab.capture(file=str(path)) as capture:
        lab.flood(count)
        report = stopped(capture)[1]
    captures = checked(path)
    counted = difference(before, lab.counted())
    assert list(counted.values()) == [count, count]
    assert seen_in(captures) == counted
    assert (report.frames + report.lost, report.seen) == (2 * count, 2 * count)
    assert any(packet.comment == "drop: tail" for packet in captures[0][1].packets)


def test_file_has_every_frame_of_a_flood(lab: Lab, tmp_path: Path) -> None:
    check_flood(lab, tmp_path / "a.pcapng", 10_000)


def test_python_engine_keeps_every_frame_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "py")
    with running("slow") as lab:
        assert lab.client.switch("slow").engine == "py"
        check_flood(lab, tmp_path / "a.pcapng", 4000)


def test_files_that_follow_each_other_have_every_frame_once(lab: Lab, tmp_path: Path) -> None:
    before = lab.counted()
    with lab.capture(file=str(tmp_path / "a.pcapng"), rotate_size=14 * MIN_ROTATE_SIZE) as capture:
        lab.flood(10_000)
        report = stopped(capture)[1]
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == report.files > 2
    assert seen_in(checked(*paths)) == difference(before, lab.counted())


def test_filter_is_that_of_libpcap(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with lab.capture(
        file=str(path), filter="ether src 02:00:00:00:00:01 and len > 99", snap_length=64
    ) as capture:
        lab.flood(100, size=99)
        lab.flood(100, size=100)
        report = stopped(capture)[1]
    ((first, second),) = checked(path)
    assert first.statistics == second.statistics == (200, 100, 0, 100)
    assert {fields[3] for fields in tshark(path)} == {"100"}
    assert {len(packet.data) for packet in first.packets} == {64}
    assert (report.seen, report.frames) == (400, 200)


def test_capture_of_much_more_than_its_memory_does_not_grow(lab: Lab, tmp_path: Path) -> None:
    pid = lab.client.lab().pid
    file = str(tmp_path / "a.pcapng")
    with lab.capture(file=file, rotate_size=4 << 20, files=2) as capture:
        # All of its memory is used once.
        lab.flood(3_000, size=9000)
        before = memory_of(pid)
        lab.flood(3_000, size=9000)
        assert memory_of(pid) - before < 8 << 20
        report = stopped(capture)[1]
    assert report.bytes > 90 << 20
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        read_capture(path)


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process uses."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s*(\d+) kB", status)
    assert match is not None
    return int(match[1]) << 10


def test_disk_that_runs_full_and_has_room_again_costs_what_is_told(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    pid = lab.client.lab().pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    before = lab.counted()
    with lab.capture(file=str(path), filter="len > 14") as capture:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        try:
            lab.flood(10_000)
            while not (item := next(capture)).problem:  # type: ignore[union-attr]
                pass
            assert "too large" in item.problem  # type: ignore[union-attr]
            checked_so_far = read_capture(path)
            assert path.stat().st_size <= 1 << 20
            assert sum(len(each.packets) for each in checked_so_far) > 5000
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        lab.flood(10_000)
        report = stopped(capture)[1]
    assert seen_in(checked(path)) == difference(before, lab.counted())
    assert (report.problem, report.lost) == ("", 0)


def test_disk_that_stays_full_has_the_loss_in_its_counts(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    pid = lab.client.lab().pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    before = lab.counted()
    with lab.capture(file=str(path)) as capture:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        try:
            lab.flood(10_000)
            report = stopped(capture)[1]
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    captures = checked(path)
    assert seen_in(captures) == difference(before, lab.counted())
    assert report.lost == sum(each.lost for each in captures[0]) > 0
    assert "too large" in report.problem


def test_reader_that_stalls_finds_the_rest_and_the_loss(lab: Lab, tmp_path: Path) -> None:
    before = lab.counted()
    with lab.capture() as capture:
        # More than the memory of the capture, the sockets and the client's own together.
        lab.flood(3_000, size=9000)
        data, report = stopped(capture)
    path = tmp_path / "a.pcapng"
    path.write_bytes(data)
    captures = checked(path)
    assert seen_in(captures) == difference(before, lab.counted())
    assert report.lost == sum(each.lost for each in captures[0]) > 0


_READER = """
import sys
from umlab.client import Client
from umlab.client.capture import CaptureRequest
with Client("lan").capture(CaptureRequest("lan")) as capture:
    for item in capture:
        print("item", flush=True)
"""


def test_reader_that_is_killed_ends_its_capture(lab: Lab) -> None:
    def told(kind: str) -> list[dict[str, Any]]:
        events = lab.client.events("oldest", follow=False)
        return [event.data for event in events if event.kind == kind]

    reader = subprocess.Popen([sys.executable, "-c", _READER], stdout=subprocess.PIPE)
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"item\n"
        started = told("capture_started")
        assert len(started) == len(told("capture_ended")) + 1
        reader.kill()
        wait_until(lambda: len(told("capture_ended")) == len(started), 10, "the capture has ended")
    ended = told("capture_ended")[-1]
    assert (ended["switch"], ended["ports"], ended["reason"]) == ("lan", None, "asked")


def test_guest_that_leaves_and_comes_back_keeps_its_interface(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with lab.capture(file=str(path)) as capture:
        for _ in range(2):
            with attached(lab.background.runtime / "lan.ctl") as third:
                third.send(frame(BROADCAST, mac(3)))
                lab.one.receive()
                lab.two.receive()
            wait_until(lambda: len(lab.client.ports("lan")) == 2, 10, "the port is gone")
        stopped(capture)
    ((*_, third_port),) = checked(path)
    assert (third_port.name, len(third_port.packets)) == ("lan:3", 2)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"switch": "wan"}, NoSuchSwitch),
        ({"ports": (77,)}, NoSuchPort),
        ({"filter": "host and"}, CaptureError),
        ({"file": "/dev/null/a"}, CaptureError),
        ({"file": "/dev/full"}, CaptureError),
        ({"last": 3, "file": "/dev/full"}, CaptureError),
    ],
)
def test_what_cannot_be_had_is_an_error(lab: Lab, fields: dict[str, Any], error: type[Exception]) -> None:
    request = CaptureRequest(**{"switch": "lan"} | fields)
    with lab.client.capture(request) as capture, pytest.raises(error):
        next(capture)


def test_past_is_saved(lab: Lab, tmp_path: Path) -> None:
    lab.flood(1000, size=77)
    path = tmp_path / "a.pcapng"
    with lab.capture(last=60, file=str(path), filter="len = 77", ports=(1,)) as capture:
        report = rest_of(capture)[1]
    ((interface,),) = checked(path)
    assert (interface.name, len(interface.packets) % 1000) == ("lan:1", 0)
    assert (report.reason, report.frames) == ("saved", len(interface.packets))
    with lab.capture(last=1e-6) as capture:
        assert rest_of(capture)[1].frames == 0


def test_end_of_the_daemon_is_told_and_its_successor_records(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with running("kept") as lab:
        with lab.capture(file=str(path)) as capture, lab.capture() as stream:
            lab.flood(100)
            lab.background.leave()
            report = rest_of(capture)[1]
            data = rest_of(stream)[0]
        assert (report.reason, report.frames) == ("lab", 200)
        assert [len(each.packets) for each in checked(path)[0]] == [100, 100]
        check_counts(read_capture(data))
        lab.background.start()
        lab.flood(10)
        with lab.capture(last=60) as capture:
            assert rest_of(capture)[1].frames == 20


_ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from umlab.capture.file import CaptureFiles
from umlab.capture.order import CaptureRequest
from umlab.capture.section import Subject
from umlab.engine._pycapture import PyCapture
from umlab.engine.contract import CaptureOrder

ballast, path = Path(sys.argv[1], "ballast"), Path(sys.argv[1], "a.pcapng")
capture = PyCapture(CaptureOrder(), lambda _: None)
capture.admit(1)
subject = Subject("lan", "", 65535, str, lambda: 1)
files = CaptureFiles(CaptureRequest("lan", file=str(path)), subject, capture.interfaces, capture.counts)
ballast.write_bytes(bytes(100_000))

def write(count):
    for _ in range(count):
        capture.note(1, bytes(1000), 0, 1, "")
    files.write(capture.read(1 << 30))

write(1000)
print(files.problem)
ballast.unlink()
files.retry()
print(files.problem, files.is_blocked)
files.close(b"")
print(files.unwritten)
sys.stdout.flush()
sys.stdout.buffer.write(path.read_bytes())
"""


@pytest.mark.needs_root
def test_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 256 KiB, in a mount namespace of its own."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    words += ['mount -t tmpfs -o size=256k umlab "$1" && exec "$2" -c "$3" "$1"', "sh"]
    words += [os.fspath(tmp_path), sys.executable, _ON_A_SMALL_DISK]
    done = subprocess.run(words, capture_output=True, timeout=scaled(60), check=True)
    first, second, third, data = done.stdout.split(b"\n", 3)
    assert (first, second) == (b"No space left on device", b"No space left on device True")
    interfaces = read_capture(data)
    check_counts(interfaces)
    # What the ballast had taken up was used before the disk was full again.
    assert 200 <= len(interfaces[0].packets) < 260
    assert int(third) == interfaces[0].lost == 1000 - len(interfaces[0].packets)
