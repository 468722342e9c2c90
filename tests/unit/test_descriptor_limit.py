"""The descriptor limit: raised for us, not for what we start."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from umlab import _descriptor_limit
from umlab._descriptor_limit import (
    descriptor_limit_hint,
    inherited_descriptor_limit,
    raise_descriptor_limit,
)

LOW = 256


@pytest.fixture(autouse=True)
def hard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Lower the soft limit, in what believes to be a new process, and yield the hard one."""
    monkeypatch.setattr(_descriptor_limit, "_inherited", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOW, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_limit_is_raised_as_far_as_it_goes_and_remembered(hard: int) -> None:
    assert inherited_descriptor_limit() == LOW
    for _ in range(2):
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert inherited_descriptor_limit() == LOW


def test_limit_of_a_process_before_us_is_passed_on() -> None:
    raise_descriptor_limit(100)
    assert inherited_descriptor_limit() == 100


def test_system_that_refuses_leaves_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == LOW


def test_hint_names_the_limit_and_the_fix() -> None:
    assert f"the limit is {LOW}" in descriptor_limit_hint()
    assert "LimitNOFILE=" in descriptor_limit_hint()
