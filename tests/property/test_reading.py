"""Readings of a kernel are what it wrote, and any other text is refused and nothing worse."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.mconsole import reading
from umlab.mconsole.reading import DiskSetting, Interrupt, LineSetting, Version

COUNTS = st.integers(0, 2**64 - 1)
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
NAMES = WORDS.filter(lambda word: "," not in word and word != "none")
LOADS = st.integers(0, 10**6).map(lambda hundredths: hundredths / 100)

PARSERS: list[Callable[[str], object]] = [
    reading.parse_version,
    reading.parse_uptime,
    reading.parse_loadavg,
    reading.parse_meminfo,
    reading.parse_stat,
    reading.parse_interrupts,
    *(lambda text, device=device: reading.parse_setting(device, text) for device in ("ubd0", "con0", "mem")),
]
#: Texts that are nearly right reach further than any.
TEXTS = st.text() | st.text("cpu0123456789.:/ \n#kBMemTotalFree,CPU", max_size=200)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=TEXTS)
def test_any_text_is_read_or_refused(parse: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        parse(text)


@given(WORDS, st.text(max_size=64), WORDS, st.text(max_size=60).filter(lambda text: " #" not in text), WORDS)
def test_version_is_read_as_written(
    system: str, nodename: str, release: str, build: str, machine: str
) -> None:
    text = f"{system} {nodename} {release} #1 {build} {machine}"
    assert reading.parse_version(text) == Version(system, nodename, release, f"#1 {build}", machine)


@given(LOADS, LOADS, LOADS, COUNTS, COUNTS, COUNTS)
def test_load_is_read_as_written(
    one: float, five: float, fifteen: float, running: int, tasks: int, last: int
) -> None:
    text = f"{one:.2f} {five:.2f} {fifteen:.2f} {running}/{tasks} {last}\n"
    assert reading.parse_loadavg(text) == reading.LoadAverage(one, five, fifteen, running, tasks, last)


@given(st.lists(COUNTS, min_size=7, max_size=7), st.randoms())
def test_memory_is_read_in_any_order_with_anything_between(amounts: list[int], random: Random) -> None:
    names = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree")
    lines = [f"{name + ':':15} {amount:8} kB\n" for name, amount in zip(names, amounts, strict=True)]
    lines += ["Active(anon):          4 kB\n", "HugePages_Total:       0\n"]
    random.shuffle(lines)
    assert reading.parse_meminfo("".join(lines)) == reading.Memory(*(amount * 1024 for amount in amounts))


@given(st.lists(st.tuples(st.integers(0, 999), st.lists(COUNTS, min_size=3, max_size=3), WORDS), max_size=9))
def test_interrupts_are_read_as_written(lines: list[tuple[int, list[int], str]]) -> None:
    text = "           CPU0       CPU1       CPU2       \n" + "".join(
        f"{number:3}: {' '.join(f'{count:10}' for count in counts)}   {word}\n"
        for number, counts, word in lines
    )
    expected = tuple(Interrupt(str(number), sum(counts), word) for number, counts, word in lines)
    assert reading.parse_interrupts(text).lines == expected


@given(NAMES, st.none() | NAMES)
def test_setting_is_read_as_written(first: str, second: str | None) -> None:
    text = first if second is None else f"{first},{second}"
    assert reading.parse_setting("ubd0", text) == DiskSetting("ubd0", first, second)
    assert reading.parse_setting("con0", text) == LineSetting("con0", first, second)
