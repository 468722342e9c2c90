"""Places that are lists of options: each is taken as it is meant, or refused with the reason."""

from __future__ import annotations

import pytest

from umlab.errors import TransportError
from umlab.transports.option_list import OptionList


def options(place: str) -> OptionList:
    return OptionList("toy", place, ("a", "b", "c"))


def test_options_are_text_numbers_and_flags() -> None:
    given = options("a=::1,b=0xFf,c=1")
    assert given.text("a") == "::1"
    assert given.number("b", 8) == 255
    assert given.flag("c")
    assert (given.has("a"), given.has("d")) == (True, False)
    assert options("a=0").number("a", 1) == 0
    assert not options("a=0").flag("a", default=True)
    assert (options("a=0").flag("b"), options("a=0").flag("b", default=True)) == (False, True)


def test_two_numbers_go_together() -> None:
    assert options("a=1,b=2").pair("a", "b", 8) == (1, 2)
    assert options("a=1").pair("b", "c", 8) is None
    for place, missing in (("a=1", "b"), ("b=1", "a")):
        with pytest.raises(TransportError, match=f"toy: {missing}= is missing"):
            options(place).pair("a", "b", 8)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("a", "'a' is not of the form KEY=VALUE"),
        ("a=", "'a=' is not of the form KEY=VALUE"),
        ("a=1,", "'' is not of the form KEY=VALUE"),
        ("d=1", "'d' is no option; there are a, b, c"),
        ("a=1,b=2,a=1", "a is there twice"),
    ],
)
def test_text_that_is_no_list_of_options_is_refused(place: str, reason: str) -> None:
    with pytest.raises(TransportError) as refusal:
        options(place)
    assert str(refusal.value) == f"toy: {reason}"


@pytest.mark.parametrize("text", ["256", "0x100", "-1", "+1", " 1", "1_0", "010", "0b1", "0x", "x", "٣"])
def test_text_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(TransportError, match="is no number of 8 bits"):
        options(f"a={text}").number("a", 8)


@pytest.mark.parametrize("text", ["2", "on", "01"])
def test_text_that_is_no_flag_is_refused(text: str) -> None:
    with pytest.raises(TransportError, match=f"toy: a={text} is neither 0 nor 1"):
        options(f"a={text}").flag("a")
