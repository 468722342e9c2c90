"""Accepting when there is no descriptor left, and afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from umlab.transports import acceptor
from umlab.transports.acceptor import Acceptor


@pytest.fixture
def listener(short_dir: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
        sock.bind(os.fspath(short_dir / "sock"))
        sock.listen(128)
        yield sock


def connect(listener: socket.socket) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    client.connect(listener.getsockname())
    return client


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have every new descriptor refused; the lowest free number is the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_everyone_who_waits_is_accepted_and_does_not_block(listener: socket.socket) -> None:
    clients = [connect(listener) for _ in range(100)]
    taken: list[socket.socket] = []
    accepting = Acceptor(listener, "here", taken.append)
    await wait_until_async(lambda: len(taken) == 100, 10, "all are accepted")
    assert not any(sock.getblocking() for sock in taken)
    accepting.close()
    late = connect(listener)
    await asyncio.sleep(0)
    assert len(taken) == 100
    for sock in (*clients, *taken, late):
        sock.close()


async def test_other_callbacks_have_their_turn_between_bursts(listener: socket.socket) -> None:
    clients = [connect(listener) for _ in range(100)]
    taken: list[socket.socket] = []
    accepting = Acceptor(listener, "here", taken.append)
    most_at_once = 0
    while len(taken) < 100:
        before = len(taken)
        await asyncio.sleep(0)
        most_at_once = max(most_at_once, len(taken) - before)
    assert 0 < most_at_once <= 16
    accepting.close()
    for sock in (*clients, *taken):
        sock.close()


async def test_exhaustion_is_logged_once_and_those_who_wait_get_in_afterwards(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE", 0.001)
    caplog.set_level(logging.WARNING)
    attempts: list[OSError] = []
    taken: list[socket.socket] = []
    accepting = Acceptor(listener, "/tmp/here", taken.append)
    wait = accepting._wait

    def counted(error: OSError) -> None:
        attempts.append(error)
        wait(error)

    monkeypatch.setattr(accepting, "_wait", counted)
    for _ in range(2):
        attempts.clear()
        taken.clear()
        caplog.clear()
        client = connect(listener)
        with no_descriptor_left():
            await wait_until_async(lambda: len(attempts) >= 3, 10, "three attempts")
            assert taken == []
        await wait_until_async(lambda: bool(taken), 10, "the guest that waited gets in")
        (message,) = caplog.messages
        assert message.startswith("/tmp/here: cannot accept: Too many open files (the limit is ")
        assert message.endswith("; tried again every 0.001 s")
        client.close()
        taken[0].close()
    accepting.close()


async def test_close_during_the_pause_ends_it(listener: socket.socket) -> None:
    accepting = Acceptor(listener, "here", lambda sock: pytest.fail("accepted"))
    client = connect(listener)
    with no_descriptor_left():
        await wait_until_async(lambda: accepting._pause is not None, 10, "the pause")
    pause = accepting._pause
    accepting.close()
    assert pause is not None
    assert pause.cancelled()
    client.close()


async def test_other_errors_are_not_hidden(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as deaf:
        accepting = Acceptor(deaf, "here", lambda sock: None)
        with pytest.raises(OSError, match="Invalid argument"):
            accepting._accept()
        accepting.close()
