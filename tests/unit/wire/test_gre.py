"""GRE headers, as the UML kernel writes them."""

from __future__ import annotations

import pytest

from umlab.wire.gre import serialize_header


@pytest.mark.parametrize(
    ("key", "sequence", "header"),
    [
        (None, False, "00006558"),
        (0, False, "20006558 00000000"),
        (0xFFFFFFFE, True, "30006558 fffffffe"),
        (None, True, "10006558"),
    ],
)
def test_header_is_the_one_that_the_kernel_sends(key: int | None, sequence: bool, header: str) -> None:
    assert serialize_header(key, sequence=sequence) == bytes.fromhex(header)
