"""Counters of a port."""

from __future__ import annotations

from umlab.switch.counters import DropReason, PortCounters


def test_count_drop_counts_each_reason_by_itself() -> None:
    counters = PortCounters()
    counters.count_drop(DropReason.TAIL)
    counters.count_drop(DropReason.RUNT)
    counters.count_drop(DropReason.TAIL)
    assert counters.drops == {DropReason.TAIL: 2, DropReason.RUNT: 1}
