"""An engine of each kind, running, stopped again whatever the test does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from support.engines import ENGINES
from support.guest_end import GuestEnd, plug
from umlab._clock import Clock
from umlab.engine.contract import Engine
from umlab.switch.model import SwitchConfig

EngineMaker = Callable[..., Engine]


@pytest.fixture(params=sorted(ENGINES))
def make_engine(request: pytest.FixtureRequest) -> Iterator[EngineMaker]:
    """Return a function that starts an engine; every engine it made is stopped in the end."""
    engines: list[Engine] = []

    def make(config: SwitchConfig | None = None, clock: Clock | None = None) -> Engine:
        engine = ENGINES[request.param](config or SwitchConfig(), clock)
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.stop()


@pytest.fixture
def engine(make_engine: EngineMaker) -> Engine:
    """Return a running engine with the default configuration."""
    return make_engine()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Yield what closes the guests in the end."""
    with contextlib.ExitStack() as opened:
        yield opened


@pytest.fixture
def keep(stack: contextlib.ExitStack) -> Callable[[GuestEnd], GuestEnd]:
    """Return a function that closes a guest in the end, and returns it."""
    return lambda guest: stack.enter_context(contextlib.closing(guest))


@pytest.fixture
def guests(engine: Engine, keep: Callable[[GuestEnd], GuestEnd]) -> list[GuestEnd]:
    """Return three guests of the engine."""
    return [keep(plug(engine)) for _ in range(3)]
