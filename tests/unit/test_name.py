"""Names that a path, a socket address and a terminal take."""

from __future__ import annotations

import pytest

from umlab._name import check_name
from umlab.errors import LabError


@pytest.mark.parametrize("name", ["a", "lan", "Lan-1.b_c", "x" * 24])
def test_check_name_accepts_plain_names(name: str) -> None:
    assert check_name("switch", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", "a/b", "a\nb", "a b", "ä", "x" * 25, "x" * 200, "a\x00"]
)
def test_check_name_refuses_what_a_path_or_terminal_would_not_take(name: str) -> None:
    with pytest.raises(LabError, match="switch name"):
        check_name("switch", name)
