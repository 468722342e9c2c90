"""What must not be mixed up or believed: late answers, strangers' answers, other users' consoles."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.deadline import scaled
from umlab.errors import MconsoleTimeout, MconsoleUnreachable
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.endpoint import open_console
from umlab.mconsole.sync import Mconsole
from umlab.testing import SimulatedGuest, SimulatedGuests
from umlab.testing.fault import Step, answer

NOBODY = 65534

Ask = Callable[[str, float], str]


@pytest.fixture
def guest(short_dir: Path) -> Iterator[SimulatedGuest]:
    with SimulatedGuests(short_dir) as guests:
        yield guests.add("web")


def _blocking(guest: SimulatedGuest) -> Ask:
    return Mconsole(os.fspath(guest.path), guest.umid).raw


def _asyncio(guest: SimulatedGuest) -> Ask:
    client = AsyncMconsole(os.fspath(guest.path), guest.umid)
    return lambda text, timeout: asyncio.run(client.raw(text, timeout))


@pytest.fixture(params=[_blocking, _asyncio], ids=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest, guest: SimulatedGuest) -> Ask:
    made: Ask = request.param(guest)
    return made


def test_late_answers_are_nobodys(ask: Ask, guest: SimulatedGuest) -> None:
    """The protocol has no request numbers: only a socket for each request keeps answers apart."""

    def echo_late(request: bytes, _: list[bytes]) -> Iterator[Step]:
        yield 0.03
        yield from answer(request * 300)

    guest.set_fault(echo_late)
    for at in range(10):
        with pytest.raises(MconsoleTimeout) as caught:
            ask(f"log late {at}", 0.01)
        assert caught.value.output == ""
        assert ask(f"log {at}", scaled(10)) == f"log {at}" * 300
    assert len(guest.requests) == 20


def test_answer_that_is_cut_by_the_limit_does_not_go_on_in_the_next(ask: Ask, guest: SimulatedGuest) -> None:
    given_up = threading.Event()

    def in_two(request: bytes, _: list[bytes]) -> Iterator[Step]:
        first, second = answer(request.ljust(600, b"."))
        yield first
        while not given_up.is_set():
            yield 0.01
        yield second

    guest.set_fault(in_two)
    with pytest.raises(MconsoleTimeout) as caught:
        ask("log cut", scaled(0.2))
    given_up.set()
    assert caught.value.output == "log cut".ljust(511, ".")
    assert ask("log whole", scaled(10)) == "log whole".ljust(600, ".")


def test_stranger_cannot_answer(guest: SimulatedGuest) -> None:
    """The kernel lets only the guest send to a socket that is connected to it."""
    guest.pause()
    with (
        contextlib.closing(open_console(os.fspath(guest.path), "web", "version")) as client,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger,
    ):
        with pytest.raises(PermissionError):
            stranger.sendto(answer(b"a lie")[0], client.getsockname())
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(4096)


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.needs_root
def test_console_of_another_user_is_out_of_reach(ask: Ask, guest: SimulatedGuest) -> None:
    guest.run_directory.parent.chmod(0o755)
    refused = pytest.raises(MconsoleUnreachable, match=r"web cannot be reached: .*: Permission denied")
    with _as_nobody(), refused:
        ask("version", 5)
    guest.run_directory.chmod(0o700)
    with _as_nobody(), refused:
        ask("version", 5)
    assert guest.requests == []


@pytest.mark.needs_plain_user
def test_console_that_its_mode_keeps_from_us_is_out_of_reach(ask: Ask, guest: SimulatedGuest) -> None:
    guest.path.chmod(0)
    with pytest.raises(MconsoleUnreachable, match=r"web cannot be reached: .*mconsole: Permission denied"):
        ask("version", 5)
    assert guest.requests == []
