"""Limits of a switch's configuration, and of what lies in front of frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from umlab.switch.model import (
    MAX_AGEING_NS,
    MAX_FDB_CAPACITY,
    MAX_HEADER,
    MAX_QUEUE_DEPTH,
    Encapsulation,
    SwitchConfig,
)


def config_with(name: str, value: int) -> SwitchConfig:
    changes: dict[str, Any] = {name: value}
    return replace(SwitchConfig(), **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ageing_time_ns", 0),
        ("ageing_time_ns", MAX_AGEING_NS + 1),
        ("fdb_capacity", -1),
        ("fdb_capacity", 10**400),
        ("max_frame", 13),
        ("max_frame", 65_536),
        ("egress_queue_depth", 0),
        ("egress_queue_depth", MAX_QUEUE_DEPTH + 1),
        ("first_port_no", 0),
        ("first_port_no", 65_536),
    ],
)
def test_config_outside_its_limits_is_refused_and_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        config_with(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ageing_time_ns", 1),
        ("ageing_time_ns", MAX_AGEING_NS),
        ("fdb_capacity", 0),
        ("fdb_capacity", MAX_FDB_CAPACITY),
        ("max_frame", 14),
        ("max_frame", 65_535),
        ("egress_queue_depth", MAX_QUEUE_DEPTH),
    ],
)
def test_config_at_its_limits_is_taken(name: str, value: int) -> None:
    assert getattr(config_with(name, value), name) == value


@pytest.mark.parametrize(
    "values",
    [
        {"rx_header": bytes(MAX_HEADER + 1)},
        {"rx_header": bytes(MAX_HEADER), "rx_skip": 1},
        {"rx_skip": MAX_HEADER + 1},
        {"rx_skip": -1},
        {"tx_header": bytes(MAX_HEADER + 1)},
        {"tx_header": bytes(MAX_HEADER - 3), "tx_counter": 0},
    ],
)
def test_headers_that_are_too_long_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_HEADER} bytes"):
        Encapsulation(**({"rx_header": b"", "tx_header": b""} | values))


@pytest.mark.parametrize("counter", [-1, 1 << 32])
def test_counter_that_does_not_fit_is_refused(counter: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        Encapsulation(b"", b"", tx_counter=counter)


def test_headers_at_their_limits_are_taken() -> None:
    given = Encapsulation(bytes(30), bytes(MAX_HEADER - 4), rx_skip=2, tx_counter=(1 << 32) - 1)
    assert len(given.rx_header) + given.rx_skip == MAX_HEADER
    assert Encapsulation(b"", bytes(MAX_HEADER)).tx_counter is None
