"""``umlab top``: what it shows, the busiest first, and how much of it has room."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from pathlib import Path

import pytest

from support.cli_run import Run
from support.deadline import scaled
from support.fake_captures import port
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.capture.talkers import Talker, TalkerPair, Talkers
from umlab.cli.page import Page, Table, plain_table
from umlab.cli.rate import LabLook
from umlab.cli.top_page import Look, cut, page, quantity
from umlab.daemon.view import GuestView, GuestVitals, PortView, SwitchView
from umlab.switch.model import SwitchConfig

LAN = SwitchView("lan", "native", SwitchConfig(), (), 2, 0, {})
LEFT = GuestView("left", "ready", 7, None, "/usr/bin/linux", 64 << 20, 1.0, (), "/x")
#: One that the daemon itself knows to be silent.
HUNG = dataclasses.replace(LEFT, answers=False)
VITALS = GuestVitals("left", "answers", 0.5, "6.1.176", 7300.0, (1.5, 0.5, 0.25), 60 << 20, 24 << 20, 0.2)
TALKERS = Talkers(
    10.0,
    30,
    30_000,
    (Talker("02:00:00:00:00:01", 30, 30_000),),
    (TalkerPair("02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", 30, 30_000),),
)


def counted(view: PortView, frames: int) -> PortView:
    """Return a port that a guest has sent so many frames of 125 bytes to."""
    counters = {"rx_frames": frames, "rx_bytes": frames * 125, "tx_frames": 0, "tx_bytes": 0, "drop_tail": 0}
    return dataclasses.replace(view, counters=counters)


def look(at: float, slow: int, busy: int, cpu: float) -> Look:
    """Return a look at a lab with a slow and a busy port."""
    ports = [counted(port(1, "left"), slow), counted(port(2, umid="w\x1beb"), busy)]
    lab = LabLook(at, (LAN,), {"lan": ports}, {"lan": TALKERS}, (LEFT,), {"left": cpu}, {"left": VITALS})
    return Look({"lan": lab}, ("stuck",))


def test_busiest_come_first() -> None:
    shown = page(look(5, 100, 100, 3), look(7, 120, 4100, 3.5))
    lines, *tables = (part for part in shown.parts if part)
    assert lines == "stuck does not answer"
    texts = [plain_table(part).splitlines()[1:] for part in tables if isinstance(part, Table)]
    assert [" ".join(row.split()) for table in texts for row in table] == [
        "lan lan 2 2.01k 0 2.01M 0 0",
        r"lan:2 daemon (w\x1beb) up 2k 0 2M 0 0 0",
        "lan:1 daemon left up 10 0 10k 0 0 0",
        "left lan ready 25% 1.50 24/60 MiB 2 h 10k 0",
        "02:00:00:00:00:01 * lan 3 24k",
        "02:00:00:00:00:01 ff:ff:ff:ff:ff:ff lan 3 24k",
    ]
    (record,) = shown.records
    (switch,) = record["switches"]
    assert (switch["rx_frames"], switch["ports"][1]["rx_bits"]) == (2010, 2_000_000)
    assert switch["talkers"]["pairs"][0]["frames"] == 30
    (left,) = record["guests"]
    assert (left["cpu"], left["rx_bits"], left["drops"], record["silent"]) == (0.25, 10_000, 0, ["stuck"])
    assert left["vitals"] == dataclasses.asdict(VITALS)


def test_first_look_has_everything_but_rates() -> None:
    shown = page(None, look(7, 120, 4100, 3.5))
    assert shown.records[0]["switches"][0]["rx_frames"] is None
    assert any(isinstance(part, Table) and "25%" not in plain_table(part) for part in shown.parts)


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        (None, "left lan ready - - -/64 MiB - - -"),
        (HUNG, "left lan ready, silent - - -/64 MiB - - -"),
        (GuestVitals("left", "answers"), "left lan ready - - -/64 MiB - - -"),
        (GuestVitals("left", "unreachable"), "left lan ready - - -/64 MiB - - -"),
        (dataclasses.replace(VITALS, state="silent", age=90.0), "left lan ready, silent - - -/64 MiB - - -"),
        (GuestVitals("left", "garbled", 0.0), "left lan ready, garbled - - -/64 MiB - - -"),
        (GuestVitals("left", "?"), "left lan ready - - -/64 MiB - - -"),
    ],
)
def test_what_a_kernel_does_not_tell_now_is_not_shown(
    known: GuestVitals | GuestView | None, shown: str
) -> None:
    told = {"left": known} if isinstance(known, GuestVitals) else {}
    guest = known if isinstance(known, GuestView) else LEFT
    (table,) = page(None, Look({"lan": LabLook(7, guests=(guest,), vitals=told)})).parts
    assert isinstance(table, Table)
    assert plain_table(table).splitlines()[1].split() == shown.split()


def test_nothing_runs() -> None:
    assert page(None, Look({})).parts == ["nothing runs"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.25, "0.25"),
        (999.4, "999"),
        (999.6, "1k"),
        (1234, "1.23k"),
        (999_600, "1M"),
        (12_345_678, "12.3M"),
        (5e9, "5G"),
        (5e12, "5T"),
    ],
)
def test_quantity_has_three_digits(number: float | None, text: str) -> None:
    assert quantity(number) == text


def test_tables_share_the_room_that_there_is() -> None:
    tables = [Table((name,), [(str(each),) for each in range(count)]) for name, count in (("A", 9), ("B", 2))]

    def rows(height: int) -> list[int]:
        return [len(part.rows) for part in cut(["x", *tables], height) if isinstance(part, Table)]

    assert rows(50) == [9, 2]
    assert rows(10) == [5, 2]
    assert rows(5) == [1, 1]
    assert rows(1) == [0, 0]


def test_one_sample_is_printed(run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umlab.cli.top._ONCE", 0.05)
    with LabThread(runtime, "lan", ("lan",), ("left",)) as lan:
        lan.call(lambda lab: lab.add_port("lan", 1, "left"))
        (record,) = run("top", "--once", "--json").records
        text = run("top", "lan", "--once").out
        lan.call(lambda lab: setattr(lab, "has_recorder", False))
        (without,) = run("top", "lan", "--once", "--json").records
    (switch,) = record["switches"]
    assert switch["ports"][0].items() > {"port_no": 1, "guest": "left", "rx_frames": 0, "queued": 0}.items()
    assert switch["talkers"]["frames"] == 4
    assert record["guests"][0].items() > {"name": "left", "state": "ready", "rx_frames": 0}.items()
    assert record["guests"][0]["vitals"]["load"] == [0.5, 0.25, 0.0]
    assert "lan:1" in text
    assert without["switches"][0]["talkers"] is None


def test_silent_guests_do_not_delay_the_page(
    run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty guests, of which all but one leave the question without an answer, and one has just ended."""
    monkeypatch.setattr("umlab.cli.top._ONCE", 0.05)
    monkeypatch.setattr("umlab.cli.top_watch._VITALS_TIME", 0.3)
    names = [f"g{number:02}" for number in range(20)]
    with LabThread(runtime, "lan", ("lan",), ("left", *names)) as lan:
        gate = lan.call(lambda _: asyncio.Event())

        def hang(lab: FakeLab) -> None:
            async def vitals(name: str) -> GuestVitals:
                if name in names:
                    await gate.wait()
                return lab.held(name).vitals

            lab.kernels.vitals = vitals  # type: ignore[method-assign]
            lab.guest_by_name["left"].end()

        lan.call(hang)
        began = time.monotonic()
        (record,) = run("top", "--once", "--json").records
        assert time.monotonic() - began < scaled(4)
        lan.call(lambda _: gate.set())
    assert [each["name"] for each in record["guests"]] == sorted([*names, "left"])
    assert {each["vitals"] for each in record["guests"]} == {None}


def test_samples_follow_each_other_until_a_signal_comes(
    run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def note(before: Look | None, after: Look) -> Page:
        shown.append(after)
        if len(shown) == 3:
            signal.raise_signal(signal.SIGINT)
        return page(before, after)

    monkeypatch.setattr("umlab.cli.top_watch.page", note)
    with LabThread(runtime, "lan", ("lan",)):
        done = run("top", "--json", "--interval", "0.2")
    assert done.status == 130
    assert len(done.records) >= 2


def test_lab_that_does_not_run_is_an_error(run: Run) -> None:
    done = run("top", "lan", "--once")
    assert (done.status, done.err.startswith("umlab: lan does not run")) == (3, True)
    assert run("top", "--interval", "0").status == 2
