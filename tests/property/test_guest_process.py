"""Whatever a guest's agent says are processes, each once, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.daemon.guest_process import parse_processes
from umlab.daemon.view import ProcessView

NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=15)


@given(st.binary())
def test_any_bytes_are_processes_by_pid(output: bytes) -> None:
    pids = [each.pid for each in parse_processes(output)]
    assert pids == sorted(set(pids))
    assert all(0 < pid < 10**10 for pid in pids)


@given(st.dictionaries(st.integers(1, 2**22), NAMES))
def test_processes_are_read_as_written(processes: dict[int, str]) -> None:
    output = "".join(f"{pid} {name}\n" for pid, name in processes.items()).encode()
    assert parse_processes(output) == [ProcessView(pid, name) for pid, name in sorted(processes.items())]
