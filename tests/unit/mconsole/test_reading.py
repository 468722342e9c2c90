"""What kernels say about themselves, as values: texts of real ones, nonsense, and both clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from umlab.errors import LocalProtocolError, MconsoleError, MconsoleProtocolError, RemoteProtocolError
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.reading import (
    CPU_TIME,
    INTERRUPTS,
    LOAD_AVERAGE,
    MEMORY,
    UPTIME,
    VERSION,
    CpuTime,
    DiskSetting,
    Interrupt,
    LineSetting,
    LoadAverage,
    Memory,
    MemorySetting,
    Reading,
    Uptime,
    Version,
    parse_interrupts,
    parse_loadavg,
    parse_meminfo,
    parse_setting,
    parse_stat,
    parse_uptime,
    parse_version,
    setting,
)
from umlab.mconsole.sync import Mconsole
from umlab.testing.guest import SimulatedGuest, SimulatedGuests

BUILD = "#1 Sat Jul  4 15:38:16 UTC 2026"
MEMINFO = """MemTotal:         114156 kB
MemFree:           98916 kB
MemAvailable:      97108 kB
Buffers:               4 kB
Cached:             1960 kB
SwapCached:            0 kB
Active(anon):          4 kB
SwapTotal:            16 kB
SwapFree:              8 kB
HugePages_Total:       0
"""
STAT = """cpu  115 3 72 200 5 1 2 4 0 0
cpu0 115 3 72 200 5 1 2 4 0 0
intr 194 188 0 0
"""
INTERRUPTS_TEXT = """           CPU0       \n\
  0:        188   SIGALRM      hr timer
  5:          6     SIGIO      mconsole
 19:          0     SIGIO      console-write
"""


@pytest.mark.parametrize("nodename", ["(none)", "web", "", "two words", "x 9.9 #1 me", "a\nb"])
def test_version_is_read_whatever_the_host_name(nodename: str) -> None:
    text = f"Linux {nodename} 6.1.176 {BUILD} x86_64"
    assert parse_version(text) == Version("Linux", nodename, "6.1.176", BUILD, "x86_64")


@pytest.mark.parametrize(
    "text",
    [
        *("", "Linux", "Linux (none) 6.1.176 x86_64", " a 6.1 #1 x86_64", "Linux #1 x"),
        # A kernel has 64 bytes for each.
        *(f"Linux (none) {'6' * 65} #1 x86_64", f"Linux (none) 6.1 #{'1' * 65} x86_64"),
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="is not a kernel's version"):
        parse_version(text)


def test_uptime_and_load_are_read() -> None:
    assert parse_uptime("10.63 8.00\n") == Uptime(10.63, 8.0)
    assert parse_loadavg("0.52 0.10 0.01 1/35 676\n") == LoadAverage(0.52, 0.10, 0.01, 1, 35, 676)


def test_memory_is_in_bytes() -> None:
    kb = 1024
    assert parse_meminfo(MEMINFO) == Memory(
        total=114156 * kb,
        free=98916 * kb,
        available=97108 * kb,
        buffers=4 * kb,
        cached=1960 * kb,
        swap_total=16 * kb,
        swap_free=8 * kb,
    )


def test_memory_without_an_amount_says_which() -> None:
    with pytest.raises(RemoteProtocolError, match=r"without MemFree, SwapFree$"):
        parse_meminfo(MEMINFO.replace("MemFree", "Free").replace("SwapFree", "Free"))


def test_processor_time_is_in_seconds() -> None:
    spent = parse_stat(STAT)
    assert spent == CpuTime(user=1.15, nice=0.03, system=0.75, idle=2.0, waiting=0.05, stolen=0.04)
    assert spent.busy == pytest.approx(1.93)


def test_processor_time_of_an_old_kernel_has_fewer_columns() -> None:
    assert parse_stat(STAT + "ctxt 4711\n").switches == 4711
    assert parse_stat("cpu  100 0 200 300\n") == CpuTime(1.0, 0.0, 2.0, 3.0, 0.0, 0.0)


def test_interrupts_are_read() -> None:
    found = parse_interrupts(INTERRUPTS_TEXT)
    assert found.lines == (
        Interrupt("0", 188, "SIGALRM hr timer"),
        Interrupt("5", 6, "SIGIO mconsole"),
        Interrupt("19", 0, "SIGIO console-write"),
    )
    assert found.total == 194


def test_interrupts_of_several_processors_are_added_up() -> None:
    text = "           CPU0       CPU1       \n  3:  1  2  7 edge eth0\nIPI:  4  5\n"
    assert parse_interrupts(text).lines == (Interrupt("3", 3, "7 edge eth0"), Interrupt("IPI", 9, ""))


@pytest.mark.parametrize(
    ("device", "text", "value"),
    [
        ("ubd0", "/srv/root.img", DiskSetting("ubd0", "/srv/root.img", None)),
        ("ubd0", "/tmp/cow,/srv/root.img", DiskSetting("ubd0", "/tmp/cow", "/srv/root.img")),
        ("ubda", "", None),
        ("con0", "fd:0,fd:1", LineSetting("con0", "fd:0", "fd:1")),
        ("con1", "pts:/dev/pts/2", LineSetting("con1", "pts:/dev/pts/2", None)),
        ("ssl0", "null", LineSetting("ssl0", "null", None)),
        ("ssl0", "none", None),
        ("mem", "1610612736", MemorySetting("mem", 0x60000000)),
    ],
)
def test_setting_of_a_device_is_read(device: str, text: str, value: object) -> None:
    assert parse_setting(device, text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_uptime, "10.63\n"),
        (parse_uptime, "nan inf\n"),
        (parse_uptime, f"{'9' * 5000}.0 1.0\n"),
        (parse_loadavg, "0.52 0.10 0.01 1/35\n"),
        (parse_meminfo, ""),
        (parse_meminfo, f"MemTotal: {'9' * 5000} kB\n"),
        (parse_meminfo, MEMINFO + "x" * 70_000),
        (parse_interrupts, INTERRUPTS_TEXT + "1: 1\n" * 20_000),
        (parse_stat, STAT + "x" * 70_000),
        (parse_stat, "cpu0 1 2 3 4\n"),
        (parse_stat, "cpu  1 2 3\n"),
        (parse_interrupts, ""),
        (parse_interrupts, "0: 188 SIGALRM\n"),
        (parse_interrupts, "  CPU0 \n 0: many\n"),
        (lambda text: parse_setting("ubd0", text), "file,"),
        (lambda text: parse_setting("ubd0", text), ",file"),
        (lambda text: parse_setting("con0", text), ""),
        (lambda text: parse_setting("mem", text), "lots"),
        (lambda text: parse_setting("mem", text), "١٢"),
    ],
)
def test_nonsense_is_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(text)


@pytest.fixture
def guest(short_dir: Path) -> Iterator[SimulatedGuest]:
    with SimulatedGuests(short_dir) as guests:
        yield guests.add("web", nodename="host-web")


@pytest.fixture(params=["blocking", "asyncio"])
def read(request: pytest.FixtureRequest, guest: SimulatedGuest) -> Callable[[Reading[Any]], Any]:
    path = os.fspath(guest.path)
    if request.param == "blocking":
        return Mconsole(path, "web").read
    return lambda reading: asyncio.run(AsyncMconsole(path, "web").read(reading))


Read = Callable[[Reading[Any]], Any]


def test_guest_answers_every_reading(read: Read, guest: SimulatedGuest) -> None:
    assert read(VERSION).nodename == "host-web"
    assert read(UPTIME).seconds >= 0
    assert read(LOAD_AVERAGE).tasks > 0
    assert 0 < read(MEMORY).available <= read(MEMORY).total
    assert read(CPU_TIME).busy >= 0
    assert read(INTERRUPTS).total > 0
    assert read(setting("ubd3")) is None
    assert read(setting("mem")) == MemorySetting("mem", 0x60000000)
    assert isinstance(read(setting("con0")), LineSetting)


def test_answer_that_makes_no_sense_is_an_error_with_guest_command_and_output(
    read: Read, guest: SimulatedGuest
) -> None:
    guest.kernel.files["uptime"] = "for ever\n"
    with pytest.raises(MconsoleProtocolError) as caught:
        read(UPTIME)
    error = caught.value
    assert (error.umid, error.command, error.output) == ("web", "proc uptime", "for ever\n")
    assert (
        str(error) == "guest web: proc uptime: the answer makes no sense: 'for ever\\n' is not /proc/uptime"
    )


def test_what_a_guest_refuses_to_tell_is_its_error(read: Read) -> None:
    with pytest.raises(MconsoleError, match="out of range"):
        read(setting("con99"))


@pytest.mark.parametrize("device", ["eth0", "vec0", "", "ubd0=/etc/passwd", "con0\n"])
def test_device_that_does_not_tell_is_not_asked(device: str) -> None:
    with pytest.raises(LocalProtocolError, match="does not tell how it is configured"):
        setting(device)
