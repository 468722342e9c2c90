"""Both clients, driven by the same tests."""

from __future__ import annotations

import pytest

from support.both_clients import Shell
from support.guest_roots import guests as guests
from support.guest_roots import runtime as runtime


@pytest.fixture(params=["sync", "aio"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return Shell(request.param)
