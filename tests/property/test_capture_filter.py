"""Whatever a filter is, it becomes a program that may run, or is refused as a filter."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from umlab.capture.filter import compile_filter
from umlab.errors import CaptureError
from umlab.switch.bpf import run

#: Words of expressions and of programs; none is looked up as the name of a host.
WORDS = st.sampled_from(
    [
        *("arp", "ip", "ip6", "tcp", "vlan", "mpls", "and", "or", "not", "(", ")", "port", "greater", "len"),
        *("ether src 02:00:00:00:00:01", "ether[0]", "& 1", "!= 0", "<", "=", "/ 0", "<< 40", "10", "4095"),
        *("1\n", "2\n", "6 0 0 1\n", "40 0 0 12\n", "21 9 9 9\n", "5 0 0 0\n", "-1", "\0", "'", "\\", "é"),
    ]
)


@given(st.lists(WORDS).map(" ".join), st.binary(max_size=80))
def test_a_filter_runs_or_is_refused(text: str, frame: bytes) -> None:
    with contextlib.suppress(CaptureError):
        program = compile_filter(text)
        assert (program is None) == (not text.strip())
        if program is not None:
            assert 0 <= run(program, frame) < 1 << 32
