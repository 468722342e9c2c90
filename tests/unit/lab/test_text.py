"""What text a value is read from, and how a wrong one is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from umlab.lab.text import read_count, read_size, read_text, read_time, read_truth

Reader = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (read_text, "x y", "x y"),
        (read_truth, "true", True),
        (read_truth, "false", False),
        (read_count, "0", 0),
        (read_count, "010", 10),
        (read_count, "999999999", 999_999_999),
        (read_size, "1K", 1024),
        (read_size, "128M", 128 << 20),
        (read_size, "2 G", 2 << 30),
        (read_time, "1ms", 1_000_000),
        (read_time, "300s", 300_000_000_000),
        (read_time, "5min", 300_000_000_000),
        (read_time, "1 h", 3_600_000_000_000),
    ],
)
def test_text_becomes_its_value(reader: Reader, text: str, value: object) -> None:
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text", "words"),
    [
        (read_truth, "yes", "'yes' is neither true nor false"),
        (read_truth, "True", "neither"),
        (read_count, "-1", "'-1' is not a whole number"),
        (read_count, "1.0", "whole"),
        (read_count, "1_0", "whole"),
        (read_count, "٣", "whole"),
        (read_count, "1000000000", "whole"),
        (read_size, "128", "K, M, G"),
        (read_size, "128MB", "K, M, G"),
        (read_size, "128m", "K, M, G"),
        (read_time, "300", "ms, s, min, h"),
        (read_time, "5m", "ms, s, min, h"),
        (read_time, "1.5h", "ms, s, min, h"),
        (read_time, "-1s", "like 300s"),
    ],
)
def test_wrong_text_is_named(reader: Reader, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reader(text)


@pytest.mark.parametrize("reader", [read_text, read_truth, read_count, read_size, read_time])
@pytest.mark.parametrize(
    ("value", "words"), [(None, "has no value"), ("", "has no value"), ([], "single"), ({}, "single")]
)
def test_what_is_no_text_is_named(reader: Reader, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reader(value)


def test_long_text_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match="x") as refusal:
        read_count("x" * 100_000)
    assert len(str(refusal.value)) < 100
