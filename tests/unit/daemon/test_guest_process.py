"""Processes, in the words of a guest's agent."""

from __future__ import annotations

import pytest

from umlab.daemon.guest_process import parse_processes
from umlab.daemon.view import ProcessView


@pytest.mark.parametrize(
    ("output", "processes"),
    [
        (b"", []),
        (b"10 sh\n2 kthreadd\n1 init\n", [(1, "init"), (2, "kthreadd"), (10, "sh")]),
        (b"1 a b  c\n", [(1, "a b  c")]),
        (b"1 \xff\x1b\n", [(1, "\\xff\x1b")]),
        (b"1 old\n1 new\n", [(1, "new")]),
        (b"sh: 1: nonsense\n0 zero\n-1 minus\n3\n99999999999 big\n4 ok", [(4, "ok")]),
        (b"7 %s\n" % (b"x" * 999), [(7, "x" * 64)]),
    ],
)
def test_lines_are_processes_or_left_out(output: bytes, processes: list[tuple[int, str]]) -> None:
    assert parse_processes(output) == [ProcessView(*each) for each in processes]
