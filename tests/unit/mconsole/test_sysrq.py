"""The table of system request keys."""

from __future__ import annotations

import pytest

from umlab.mconsole.sysrq import KEYS, kills


def test_every_key_has_its_own_letter_and_says_what_it_does() -> None:
    assert all(letter == key.letter and key.does for letter, key in KEYS.items())
    # What a 6.1 kernel lists.
    assert set("0123456789bcefijmnopqstuw") <= set(KEYS)
    assert {key.kills for key in KEYS.values()} == {"", "guest", "programs"}


@pytest.mark.parametrize(
    ("letter", "release", "deadly"),
    [
        ("b", "", True),
        ("e", "6.12.3", True),
        ("m", "", False),
        ("8", "", False),
        ("y", "", False),
        ("t", "", True),
        ("t", "6.1.176", True),
        ("t", "6.1-rc3", True),
        ("t", "6.12.3", False),
        ("t", "16.1.3", False),
    ],
)
def test_what_kills(letter: str, release: str, deadly: bool) -> None:
    assert kills(letter, release) is deadly
