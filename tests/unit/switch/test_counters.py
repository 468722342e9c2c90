"""Counters of a port."""

from __future__ import annotations

import pytest

from umlab.switch.counters import SIZE_BUCKETS, DropReason, PortCounters, size_bucket


def test_count_drop_counts_each_reason_by_itself() -> None:
    counters = PortCounters()
    counters.count_drop(DropReason.TAIL)
    counters.count_drop(DropReason.RUNT)
    counters.count_drop(DropReason.TAIL)
    assert counters.drops == {DropReason.TAIL: 2, DropReason.RUNT: 1}


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        *((0, 0), (14, 0), (64, 0), (65, 1), (127, 1), (128, 2), (255, 2), (256, 3), (511, 3)),
        *((512, 4), (1023, 4), (1024, 5), (1518, 5), (1519, 6), (65_535, 6)),
    ],
)
def test_size_is_counted_in_its_bucket(size: int, bucket: int) -> None:
    counters = PortCounters()
    counters.count_rx(size)
    counters.count_tx(size)
    counters.count_tx(size)
    assert size_bucket(size) == bucket
    expected = [0] * (len(SIZE_BUCKETS) + 1)
    expected[bucket] = 1
    assert counters.rx_sizes == expected
    assert counters.tx_sizes == [2 * count for count in expected]
    assert counters == PortCounters(1, size, 2, 2 * size)


def test_copy_does_not_change_with_the_counters() -> None:
    counters = PortCounters()
    counters.count_rx(60)
    copy = counters.copy()
    assert copy == counters
    counters.count_rx(60)
    counters.count_drop(DropReason.VLAN)
    assert (copy.rx_frames, copy.rx_sizes[0], copy.drops) == (1, 1, {})
