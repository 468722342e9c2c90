"""Rates: the difference of two looks by the time between them, and nothing where there is no difference."""

from __future__ import annotations

import dataclasses
import os

import pytest

from support.fake_captures import port
from umlab.cli.rate import LabLook, Rate, cpu_seconds, cpu_share, guest_rate, port_rates, total
from umlab.daemon.view import PortView


def counted(port_no: int, rx: int, tx: int, drops: int = 0) -> PortView:
    """Return a port that has counted so many frames of 100 bytes."""
    counters = {"rx_frames": rx, "rx_bytes": rx * 100, "tx_frames": tx, "tx_bytes": tx * 100}
    counters |= {"drop_tail": drops, "drop_vlan": drops}
    return dataclasses.replace(port(port_no), counters=counters)


def look(at: float, *ports: PortView, cpu: float | None = None) -> LabLook:
    """Return a look at a lab with the switch ``lan`` and the guest ``left``."""
    return LabLook(at, ports={"lan": list(ports)}, cpu={} if cpu is None else {"left": cpu})


def test_rates_are_per_second() -> None:
    rates = port_rates(look(5, counted(1, 10, 20, 1)), look(7, counted(1, 14, 30, 2)), "lan")
    assert rates == {1: Rate(2, 1600, 5, 4000, 1)}
    assert total(rates | {2: Rate(1, 2, 3, 4, 5)}) == Rate(3, 1602, 8, 4004, 6)


def test_first_look_has_no_rates() -> None:
    unknown = {1: Rate()}
    after = look(7, counted(1, 14, 30))
    assert port_rates(None, after, "lan") == unknown
    assert port_rates(LabLook(5), after, "lan") == unknown
    assert port_rates(after, after, "lan") == unknown
    assert total(unknown) == Rate()
    assert total({}) == Rate(0, 0, 0, 0, 0)


def test_port_of_another_guest_counts_from_nothing() -> None:
    before = look(5, counted(1, 10, 20))
    rates = port_rates(before, look(6, counted(1, 3, 40), counted(2, 1, 1)), "lan")
    assert (rates[1].rx_frames, rates[1].tx_frames, rates[2].rx_frames) == (3, 40, 1)


def test_rate_of_a_guest_is_that_of_all_its_ports() -> None:
    def of(at: float, frames: int) -> LabLook:
        ports = [dataclasses.replace(counted(number, frames, 0), guest="left") for number in (1, 2)]
        other = [dataclasses.replace(counted(1, 0, 3 * frames), guest="left"), counted(2, frames, frames)]
        return LabLook(at, ports={"lan": ports, "wan": other})

    assert guest_rate(of(5, 0), of(7, 10), "left") == Rate(10, 8000, 15, 12_000, 0)
    assert guest_rate(None, of(7, 10), "left") == Rate()
    assert guest_rate(of(5, 0), of(7, 10), "right") == Rate()


def test_share_of_a_processor() -> None:
    assert cpu_share(look(5, cpu=1), look(7, cpu=2), "left") == 0.5
    assert cpu_share(look(5, cpu=2), look(7, cpu=1), "left") == 0
    for before, after in ((None, look(7, cpu=1)), (look(5), look(7, cpu=1)), (look(5, cpu=1), look(7))):
        assert cpu_share(before, after, "left") is None


def stat(name: str, *times: int) -> str:
    """Return what /proc says of a process."""
    return f"7 ({name}) S {' '.join(['1'] * 10)} {' '.join(map(str, times))} 20 0 1"


def test_time_of_a_guest_is_that_of_its_processes() -> None:
    files = {
        "7/stat": stat("a) (b", 100, 20, 3, 4),
        "7/task/7/children": "8 9 ",
        # What a child's own ones have used is left out.
        "8/stat": stat("linux", 1000, 200, 50, 50),
    }

    def read(name: str) -> str:
        if name not in files:
            raise FileNotFoundError
        return files[name]

    assert cpu_seconds(7, read) == pytest.approx(1327 / os.sysconf("SC_CLK_TCK"))
    assert cpu_seconds(8, read) is None


def test_time_of_this_process_grows() -> None:
    before = cpu_seconds(os.getpid())
    assert before is not None
    ticks = 2 / os.sysconf("SC_CLK_TCK")
    end = os.times()[0] + ticks
    while os.times()[0] < end:
        pass
    after = cpu_seconds(os.getpid())
    assert after is not None
    assert after >= before + ticks / 2
