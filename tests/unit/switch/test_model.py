"""Limits of a switch's configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from umlab.switch.model import MAX_AGEING_NS, MAX_FDB_CAPACITY, MAX_QUEUE_DEPTH, SwitchConfig


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
