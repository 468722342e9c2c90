"""What consoles have printed, and when, over the API."""

from __future__ import annotations

import pytest

from support.api_lab import ApiLab
from umlab.daemon.view import LogTime

LOG = "/v1/guests/left/log"


async def test_each_console_has_a_log(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    guest.terminal_log += b"login: \xff"
    assert (await api.call("GET", f"{LOG}?console=con1&start=-1")).body == b"\xff"
    assert (await api.call("GET", f"{LOG}?console=con0")).body == b"Linux version 6.1\n"
    for path in (f"{LOG}?console=con9", f"{LOG}/times?console=con9"):
        assert (await api.call("GET", path)).error == "NoSuchConsole"


async def test_times_are_told_from_an_offset_or_a_moment_on(api: ApiLab) -> None:
    times = [LogTime(10 * number, 100.5 + number) for number in range(5)]
    api.lab.guest_by_name["left"].times["con0"][:] = times

    async def told(query: str) -> list[int]:
        return [each["offset"] for each in (await api.call("GET", f"{LOG}/times?{query}")).json]

    assert (await api.call("GET", f"{LOG}/times?limit=1")).json == [{"offset": 0, "at": 100.5}]
    assert await told("start=25&limit=2") == [20, 30]
    assert await told("since=103") == [30, 40]
    assert await told("since=1e9") == []


@pytest.mark.parametrize("query", ["start=-1", "limit=0", "limit=10001", "since=-1", "since=nan", "since=x"])
async def test_query_that_says_nothing_is_refused(query: str, api: ApiLab) -> None:
    assert (await api.call("GET", f"{LOG}/times?{query}")).error == "InvalidRequest"
    assert (await api.call("GET", f"{LOG}/times?console={'x' * 99}")).error == "InvalidRequest"
