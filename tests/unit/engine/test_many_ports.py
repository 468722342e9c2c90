"""A thousand ports on one switch."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest

from support.deadline import wait_until
from support.guest_end import BROADCAST, frame, mac, plug
from umlab._descriptor_limit import raise_descriptor_limit
from umlab.engine.contract import Engine

PORTS = 1000


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Have descriptors for both ends of every link."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= before[1] < 2 * PORTS + 100:
        pytest.skip(f"the hard limit of {before[1]} descriptors forbids {PORTS} ports with their guests")
    raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_flood_reaches_a_thousand_ports_and_its_answer_one(engine: Engine) -> None:
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(contextlib.closing(plug(engine))) for _ in range(PORTS)]
        assert sorted(engine.snapshot().ports) == [guest.port_no for guest in guests]
        for size in (60, 1514):
            hello = frame(BROADCAST, mac(0), size)
            guests[0].send(hello)
            for guest in guests[1:]:
                assert guest.receive() == hello
        answer = frame(mac(0), mac(PORTS))
        guests[-1].send(answer)
        assert guests[0].receive() == answer

        def sent() -> list[int]:
            return [counters.tx_frames for counters in engine.snapshot().ports.values()]

        wait_until(lambda: sent() == [1, *[2] * (PORTS - 1)], 10, "nothing else was sent to anybody")
        assert sum(engine.snapshot().queued.values()) == 0
