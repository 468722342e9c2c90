"""``umlab capture`` and its plug-in against a real lab: what tshark reads is what the ports have counted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, attached, frame, mac
from integration.peers.switch_process import UMLAB, switch_run
from support.deadline import scaled
from support.require import require_program
from support.terminal_session import TerminalSession

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

LAB = """
segments:
  lan: {}
  core: {}
"""
#: What tshark is asked of each frame: where it was seen, which way it went, its source.
FIELDS = ("frame.interface_name", "frame.packet_flags_direction", "eth.src")
IN, OUT = 1, 2
ONE, TWO, THREE = (mac(number).hex(":") for number in (1, 2, 3))

Frame = tuple[str, int, str]


@dataclass
class Lab:
    """A lab with two switches.

    Attributes:
        directory: Its user's home.
        one: Port 1 of the switch ``lan``.
        two: Its port 2.
        three: Port 1 of the switch ``core``.
    """

    directory: Path
    one: FakeGuest
    two: FakeGuest
    three: FakeGuest

    @property
    def environment(self) -> dict[str, str]:
        """The surroundings of its user."""
        places = {"XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config", "HOME": ""}
        return os.environ | {name: str(self.directory / place) for name, place in places.items()}

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program of its user."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
        return subprocess.Popen(words, env=self.environment, **options)

    def run(self, *words: str | Path, status: int = 0) -> str:
        """Run a program of its user, and return what it prints."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=scaled(60), check=False
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def speak(self, count: int, size: int = 60) -> None:
        """Have ``one`` send broadcasts, and see that they arrive."""
        for _ in range(count):
            self.one.send(frame(BROADCAST, mac(1), size=size))
            self.two.receive()

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Have every guest go on sending broadcasts while the block lasts."""
        ended = threading.Event()
        guests = {1: self.one, 2: self.two, 3: self.three}

        def speak() -> None:
            while not ended.wait(0.02):
                for number, guest in guests.items():
                    guest.send(frame(BROADCAST, mac(number)))
                    guest.receive_waiting()

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            # What was sent last has been forwarded once it has been counted.
            self.counted()
            for guest in guests.values():
                guest.receive_waiting()

    def counted(self) -> Counter[str]:
        """Return what the ports of the first switch have counted."""
        shown = json.loads(self.run(UMLAB, "switch", "show", "lan", "--json"))
        counted: Counter[str] = Counter()
        for port in shown["ports"]:
            counted.update(port["counters"])
        return counted

    def read(self, file: Path) -> list[Frame]:
        """Return what tshark finds in a file."""
        return list(map(parse, self.run(*tshark("-r", file)).splitlines()))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="uml"))
    file = directory / "lab.yaml"
    file.write_text(LAB)
    try:
        with switch_run("lan", "--file", str(file), runtime=directory) as switch:
            switch.wait_for("started")
            lan, core = (directory / f"umlab/lan/{name}.ctl" for name in ("lan", "core"))
            with attached(lan) as one, attached(lan) as two, attached(core) as three:
                yield Lab(directory, one, two, three)
    finally:
        shutil.rmtree(directory)


def tshark(*words: str | Path) -> list[str | Path]:
    """Return the command that prints the fields of each frame."""
    options = [word for name in FIELDS for word in ("-e", name)]
    return [require_program("tshark"), "-n", "-l", *words, "-T", "fields", *options]


def parse(line: str) -> Frame:
    """Return a frame of which tshark has told."""
    name, direction, source = line.rstrip("\n").split("\t")
    # Versions differ in the base of the number.
    return name, int(direction, 0), source


@dataclass
class Told:
    """What a capture has told at its end."""

    facts: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def capturing(lab: Lab, *words: str | Path) -> Iterator[Told]:
    """Capture into files while the block lasts."""
    told = Told()
    with lab.start(UMLAB, "capture", *words, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        try:
            yield told
        finally:
            process.send_signal(signal.SIGINT)
            *_, last = process.stdout
            told.facts |= json.loads(last)
        assert process.wait(scaled(20)) == 0


@contextlib.contextmanager
def piped(
    lab: Lab, names: tuple[str, ...], *reader: str | Path
) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Have a program read what is captured while guests speak."""
    with (
        lab.speaking(),
        lab.start(UMLAB, "capture", *names, stderr=subprocess.PIPE) as writer,
        lab.start(*reader, stdin=writer.stdout) as reading,
    ):
        assert writer.stdout is not None
        # The reader's alone: its end is to be seen.
        writer.stdout.close()
        try:
            yield writer, reading
        finally:
            writer.terminate()


def test_file_has_what_the_ports_have_counted(lab: Lab) -> None:
    before, file = lab.counted(), lab.directory / "all.pcapng"
    with capturing(lab, "lan", "-w", file) as told:
        lab.speak(50)
        lab.one.send(b"\0" * 13)
        # It has been counted once the next one has gone out.
        lab.speak(1)
    counted = lab.counted() - before
    found = lab.run(require_program("tshark"), "-r", file, "-T", "fields", "-e", "frame.comment").split("\n")
    assert found.count("drop: runt") == counted["drop_runt"] == 1
    frames = Counter(lab.read(file))
    assert frames["lan:1", IN, ONE] == counted["rx_frames"] == 51
    assert frames["lan:2", OUT, ONE] == counted["tx_frames"] == 51
    assert (told.facts["frames"], told.facts["lost"]) == (frames.total(), 0) == (103, 0)


def test_ports_filter_and_snap_length_choose(lab: Lab) -> None:
    file = lab.directory / "some.pcapng"
    with capturing(lab, "lan:2", "-w", file, "-f", f"ether src {TWO}", "-s", "20"):
        lab.speak(3)
        lab.two.send(frame(BROADCAST, mac(2)))
        lab.one.receive()
    assert lab.read(file) == [("lan:2", IN, TWO)]
    lengths = ("-T", "fields", "-e", "frame.cap_len", "-e", "frame.len")
    assert lab.run(require_program("tshark"), "-r", file, *lengths).split() == ["20", "60"]


def test_filter_that_does_not_compile_is_told_and_leaves_no_file(lab: Lab) -> None:
    file = lab.directory / "none.pcapng"
    said = lab.run(UMLAB, "capture", "lan", "-w", file, "-f", "arp or or", status=1)
    assert re.fullmatch(r"umlab: the filter 'arp or or' does not compile: .+\n", said)
    assert not file.exists()


def test_past_is_saved(lab: Lab) -> None:
    file = lab.directory / "past.pcapng"
    lab.speak(7)
    lab.run(UMLAB, "capture", "lan:1", "--last", "60s", "-w", file)
    assert lab.read(file)[-7:] == [("lan:1", IN, ONE)] * 7


def test_files_follow_each_other(lab: Lab) -> None:
    directory = lab.directory / "many"
    directory.mkdir()
    with capturing(lab, "lan", "-w", directory / "x.pcapng", "--rotate-size", "64K") as told:
        lab.speak(200, size=1000)
    files = sorted(directory.iterdir())
    assert len(files) == told.facts["files"] > 4
    counts = lab.run(require_program("capinfos"), "-c", "-M", "-T", "-r", *files).split()[1::2]
    assert sum(map(int, counts)) == told.facts["frames"] == 400


def test_frames_are_read_as_they_come(lab: Lab) -> None:
    with piped(lab, ("lan",), *tshark("-r", "-")) as (writer, reader):
        assert reader.stdout is not None
        assert writer.stderr is not None
        # These come while it runs.
        read = [reader.stdout.readline() for _ in range(40)]
        writer.send_signal(signal.SIGINT)
        read += reader.stdout
        assert (writer.wait(scaled(20)), reader.wait(scaled(20))) == (0, 0)
        said = writer.stderr.read().decode()
    frames = {parse(line.decode()) for line in read}
    assert frames == {("lan:1", IN, ONE), ("lan:2", OUT, ONE), ("lan:2", IN, TWO), ("lan:1", OUT, TWO)}
    assert re.fullmatch(rf"umlab: lan/lan: {len(read):,} frames, [0-9,]+ bytes, 0 lost\n", said)


def test_several_switches_are_one_capture(lab: Lab) -> None:
    with piped(lab, ("lan:1", "lan/core"), *tshark("-r", "-", "-c", "60")) as (writer, reader):
        assert reader.stdout is not None
        frames = {parse(line.decode()) for line in reader.stdout}
        # Who reads has left.
        assert writer.wait(scaled(20)) == 0
    assert frames == {("lan:1", IN, ONE), ("lan:1", OUT, TWO), ("core:1", IN, THREE)}


def test_it_ends_by_itself(lab: Lab) -> None:
    file = lab.directory / "short.pcapng"
    with lab.speaking():
        lab.run(UMLAB, "capture", "lan", "lan/core", "-w", file, "--duration", "300ms")
    assert ("lan:1", IN, ONE) in lab.read(file.with_name("short-lan.pcapng"))
    assert ("core:1", IN, THREE) in lab.read(file.with_name("short-lan-core.pcapng"))


def test_tshark_lists_switches_and_ports_and_captures_from_them(lab: Lab) -> None:
    program = require_program("tshark")
    said = lab.run(UMLAB, "capture", "--install-extcap")
    assert Path(said.partition(": ")[0]).is_symlink()

    listed = re.findall(r"^\d+\. (umlab:\S+) \((.*)\)$", lab.run(program, "-D"), re.MULTILINE)
    # Sorted by each version as it likes.
    assert dict(listed) == {
        "umlab:lan/core": "switch lan/core",
        "umlab:lan/core:1": "switch lan/core, port 1: daemon",
        "umlab:lan": "switch lan",
        "umlab:lan:1": "switch lan, port 1: daemon",
        "umlab:lan:2": "switch lan, port 2: daemon",
    }
    with lab.speaking():
        chosen = lab.run(*tshark("-i", "umlab:lan:1", "-f", f"ether src {TWO}", "-c", "5")).splitlines()
        others = lab.run(*tshark("-i", "umlab:lan/core:1", "-c", "2")).splitlines()
    assert list(map(parse, chosen)) == [("lan:1", OUT, TWO)] * 5
    assert list(map(parse, others)) == [("core:1", IN, THREE)] * 2


def test_top_shows_who_is_busy(lab: Lab) -> None:
    with lab.speaking():
        (record,) = map(json.loads, lab.run(UMLAB, "top", "--once", "--json").splitlines())
        with TerminalSession([str(UMLAB), "top", "lan", "--interval", "0.2"], lab.environment) as terminal:
            modes = terminal.modes()
            terminal.wait_for("lan:1")
            assert terminal.modes() != modes
            terminal.wait_for(ONE)
            terminal.type("q")
            assert terminal.wait() == 0
            assert terminal.modes() == modes
    switches = {switch["name"]: switch for switch in record["switches"]}
    ports = {(name, port["port_no"]): port for name, each in switches.items() for port in each["ports"]}
    assert set(ports) == {("lan", 1), ("lan", 2), ("core", 1)}
    assert all(port["rx_frames"] > 1 and port["rx_bits"] > 480 for port in ports.values())
    assert ports["core", 1]["tx_frames"] == 0
    talkers = {name: each["talkers"]["sources"] for name, each in switches.items()}
    assert {each["source"] for each in talkers["lan"]} == {ONE, TWO}
    assert {each["source"] for each in talkers["core"]} == {THREE}
