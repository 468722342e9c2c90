"""``key=value`` words: what they mean, and what is wrong with others."""

from __future__ import annotations

import dataclasses

import pytest
import typer

from umlab.cli.setting import SETTINGS, format_size, format_time, parse_settings, parse_size, parse_time
from umlab.client.call import ConfigChange
from umlab.switch.model import SwitchConfig


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("100s", 100 * 10**9),
        ("1.5min", 90 * 10**9),
        ("20ms", 2 * 10**7),
        ("2h", 7200 * 10**9),
        ("0.1s", 10**8),
    ],
)
def test_time_has_a_unit(text: str, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds
    assert parse_time(format_time(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "100", "s", "1 s", "-1s", "1d", "1e3s", "0s", "99999999999999h", "\u0661s"]
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="write a"):
        parse_time(text)


@pytest.mark.parametrize("size", [1, 1023, 128 << 10, (1 << 20) + 1, 16 << 20, 3 << 30])
def test_size_has_the_largest_unit_that_is_whole(size: int) -> None:
    text = format_size(size)
    assert (parse_size(text) if text[-1] in "KMG" else int(text)) == size
    assert format_size(16 << 20) == "16M"


def test_words_become_fields() -> None:
    words = ["hub=on", "ageing_time=1s", "max_frame=1518", "fdb_capacity=0", "egress_queue_depth=7"]
    assert parse_settings(words) == {
        **{"hub": True, "ageing_time_ns": 10**9, "max_frame": 1518, "fdb_capacity": 0},
        "egress_queue_depth": 7,
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hub"], "write KEY=VALUE; keys are hub, ageing_time"),
        (["colour=red"], "colour=red: write KEY=VALUE"),
        (["hub=yes"], "hub=yes: write on or off"),
        (["max_frame=1.5"], "write a whole number"),
        (["max_frame=-1"], "write a whole number"),
        (["ageing_time=100"], "write a number and its unit"),
        (["hub=on", "hub=off"], "hub is given twice"),
    ],
)
def test_wrong_word_is_named_with_what_is_right(words: list[str], said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        parse_settings(words)


def test_everything_that_a_running_switch_may_change_is_a_setting() -> None:
    fields = {field.name for field in dataclasses.fields(SwitchConfig)} | {"lldp"}
    fields -= {"first_port_no", "ports", "mirrors"}
    assert {setting.field for setting in SETTINGS.values()} == fields == set(ConfigChange.__annotations__)
