"""How often one guest is asked."""

from __future__ import annotations

import pytest

from umlab._clock import ManualClock
from umlab.daemon.pace import BURST, MAX_CALLERS, RATE, Pace
from umlab.errors import GuestBusy


def test_burst_is_free_and_the_rest_comes_at_the_rate() -> None:
    clock = ManualClock(5_000_000_000)
    pace = Pace("left", clock)
    assert [pace.reserve() for _ in range(BURST)] == [0] * BURST
    assert [pace.reserve() for _ in range(3)] == [each / RATE for each in (1, 2, 3)]
    clock.advance(1_000_000_000)
    assert [pace.reserve() for _ in range(RATE - 3)] == [0] * (RATE - 3)
    assert pace.reserve() == pytest.approx(1 / RATE)


def test_no_second_has_more_than_the_rate_once_the_burst_is_spent() -> None:
    clock = ManualClock()
    pace = Pace("left", clock)
    sent = [clock.now_ns() / 1e9 + pace.reserve() for _ in range(BURST + 3 * RATE)]
    for second in range(3):
        assert sum(second < at <= second + 1 for at in sent) == RATE


def test_idle_time_saves_up_one_burst_and_no_more() -> None:
    clock = ManualClock()
    pace = Pace("left", clock)
    clock.advance(3_600_000_000_000)
    assert sum(pace.reserve() == 0 for _ in range(10 * BURST)) == BURST


def test_caller_too_many_is_told_when_to_come_again() -> None:
    pace = Pace("left")
    held = [pace.caller() for _ in range(MAX_CALLERS)]
    for each in held:
        each.__enter__()
    with pytest.raises(GuestBusy, match="left has 64 requests waiting already; try again in 1 s") as refused:
        pace.caller().__enter__()
    assert (refused.value.umid, refused.value.waiting, refused.value.retry_after) == ("left", MAX_CALLERS, 1)
    held[0].__exit__(None, None, None)
    with pace.caller():
        pass
    for each in held[1:]:
        each.__exit__(None, None, None)
