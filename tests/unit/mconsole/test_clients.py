"""Both clients against a console that says what the test wants: every test runs on each."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.answering_guest import answering_guest
from support.deadline import wait_until_async
from umlab.errors import (
    LocalProtocolError,
    MconsoleError,
    MconsoleProtocolError,
    MconsoleTimeout,
    MconsoleUnreachable,
    OversizeMessage,
    RemoteProtocolError,
    TruncatedMessage,
)
from umlab.mconsole import command
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.session import MAX_ANSWER
from umlab.mconsole.sync import Mconsole
from umlab.testing.fault import answer
from umlab.wire.mconsole import ReplyFragment, serialize_reply

Call = Callable[..., str]


def _blocking(path: Path, umid: str | None) -> Call:
    client = Mconsole(os.fspath(path), umid)
    return lambda method, *args: getattr(client, method)(*args)


def _asyncio(path: Path, umid: str | None) -> Call:
    async def call(method: str, *args: object) -> str:
        result: Awaitable[str] = getattr(AsyncMconsole(os.fspath(path), umid), method)(*args)
        return await result

    return lambda method, *args: asyncio.run(call(method, *args))


@pytest.fixture(params=[_blocking, _asyncio], ids=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, short_dir: Path) -> Callable[..., Call]:
    def make(umid: str | None = "left", path: Path = short_dir / "left/mconsole") -> Call:
        made: Call = request.param(path, umid)
        return made

    return make


@pytest.fixture
def path(short_dir: Path) -> Path:
    path = short_dir / "left" / "mconsole"
    path.parent.mkdir()
    return path


METHODS: list[tuple[str, tuple[Any, ...], bytes]] = [
    ("version", (), b"version"),
    ("help", (), b"help"),
    ("halt", (), b"halt"),
    ("reboot", (), b"reboot"),
    ("cad", (), b"cad"),
    ("stop", (), b"stop"),
    ("go", (), b"go"),
    ("config_set", ("eth0", "daemon,,unix,/tmp/a.ctl"), b"config eth0=daemon,,unix,/tmp/a.ctl"),
    ("config_set", ("vec0", "transport=bess,dst=/x"), b"config vec0:transport=bess,dst=/x"),
    ("config_get", ("ubd3",), b"config ubd3"),
    ("remove", ("eth0",), b"remove eth0"),
    ("sysrq", ("m",), b"sysrq m"),
    ("sysrq", (), b"sysrq"),
    ("log", ("hello world",), b"log hello world\n"),
    ("log", ("hello world\n",), b"log hello world\n"),
    ("proc", ("uptime",), b"proc uptime"),
    ("stack", (1,), b"stack 1"),
    ("raw", ("anything at all",), b"anything at all"),
]


@pytest.mark.parametrize(("method", "args", "text"), METHODS)
def test_method_sends_its_command_and_returns_the_answer(
    client: Callable[..., Call], path: Path, method: str, args: tuple[Any, ...], text: bytes
) -> None:
    with answering_guest(path, lambda _: answer(b"as told")) as guest:
        assert client()(method, *args) == "as told"
    assert guest.requests == [text]


def test_both_clients_have_every_command_with_its_description() -> None:
    builders = {
        name
        for name in command.__all__
        if inspect.isfunction(getattr(command, name)) and name != "timeout_of"
    }
    assert builders == {name for name, _, _ in METHODS} | {"raw"}
    for name in builders:
        for kind in (Mconsole, AsyncMconsole):
            assert getattr(kind, name).__doc__ == getattr(command, name).__doc__


def test_answer_of_many_fragments_arrives_whole(client: Callable[..., Call], path: Path) -> None:
    """Against an unconnected socket, everything after the eleventh fragment was lost."""
    text = b"".join(b"line %d\n" % at for at in range(9000))
    with answering_guest(path, lambda _: answer(text)):
        assert client()("raw", "proc interrupts") == text.decode()


def test_proc_loses_the_line_that_the_kernel_puts_first(client: Callable[..., Call], path: Path) -> None:
    with answering_guest(path, lambda _: answer(b"\n\n1.5 0.1\n")):
        assert client()("proc", "uptime") == "\n1.5 0.1\n"


def test_bytes_that_are_no_text_are_shown(client: Callable[..., Call], path: Path) -> None:
    with answering_guest(path, lambda _: answer(b"a\xffb")):
        assert client()("version") == "a\\xffb"


def test_error_carries_guest_command_text_and_number(client: Callable[..., Call], path: Path) -> None:
    with (
        answering_guest(path, lambda _: answer(b"Device doesn't exist", -19)),
        pytest.raises(MconsoleError) as caught,
    ):
        client()("remove", "eth7")
    error = caught.value
    assert (error.umid, error.command, error.output, error.err) == (
        "left",
        "remove eth7",
        "Device doesn't exist",
        -19,
    )
    assert str(error) == "guest left: remove eth7: Device doesn't exist"
    assert not isinstance(error, MconsoleTimeout)


def test_guest_without_a_name_is_called_by_its_path(client: Callable[..., Call], path: Path) -> None:
    with answering_guest(path, lambda _: answer(b"no", 1)), pytest.raises(MconsoleError) as caught:
        client(None)("go")
    assert caught.value.umid == os.fspath(path)


def test_silent_guest_is_given_up_with_what_it_said(client: Callable[..., Call], path: Path) -> None:
    half = [serialize_reply(ReplyFragment(0, True, b"half"))]
    with answering_guest(path, lambda _: half), pytest.raises(MconsoleTimeout) as caught:
        client()("raw", "proc x", 0.1)
    assert caught.value.output == "half"
    assert "did not answer 'proc x' in time" in str(caught.value)


def test_guest_that_reads_nothing_is_given_up(client: Callable[..., Call], path: Path) -> None:
    """With the guest's queue full, the wait is in sending; it was not limited there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.bind(os.fspath(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler.sendto(b"x", os.fspath(path))
        with pytest.raises(MconsoleTimeout):
            client()("raw", "version", 0.1)


def test_guest_that_ends_while_it_is_asked_is_unreachable(client: Callable[..., Call], path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.bind(os.fspath(path))

        def read_and_end() -> None:
            guest.recv(100)
            guest.close()

        thread = threading.Thread(target=read_and_end)
        thread.start()
        # Nothing tells a waiting datagram socket of the end: it waited for its whole time limit.
        with pytest.raises(MconsoleUnreachable, match="left does not run: nobody listens"):
            client()("raw", "sysrq c", 100)
        thread.join()


def test_nonsense_is_an_error_that_names_the_guest_and_keeps_what_came(
    client: Callable[..., Call], path: Path
) -> None:
    half = serialize_reply(ReplyFragment(0, True, b"half"))
    with answering_guest(path, lambda _: [half, b"nonsense"]), pytest.raises(MconsoleProtocolError) as caught:
        client()("version")
    error = caught.value
    assert (error.umid, error.command, error.output) == ("left", "version", "half")
    assert str(error) == "guest left: version: the answer makes no sense: message is cut: 8 of 12 bytes"
    assert isinstance(error, MconsoleError)
    assert isinstance(error, RemoteProtocolError)
    assert isinstance(error.__cause__, TruncatedMessage)


def test_longer_datagram_than_any_reply_is_an_error_of_the_peer(
    client: Callable[..., Call], path: Path
) -> None:
    reply = b"\0" * 8 + b"\xff\x0f\0\0" + b"x" * 4095
    with answering_guest(path, lambda _: [reply]), pytest.raises(RemoteProtocolError):
        client()("version")


def test_endless_answer_is_refused(client: Callable[..., Call], path: Path) -> None:
    piece = serialize_reply(ReplyFragment(0, True, b"x" * 511))
    with (
        answering_guest(path, lambda _: [piece] * (MAX_ANSWER // 511 + 1)),
        pytest.raises(MconsoleProtocolError, match="the limit is") as caught,
    ):
        client()("raw", "proc x", 60)
    assert isinstance(caught.value.__cause__, OversizeMessage)


@pytest.mark.parametrize("text", ["x" * 512, "log a\0b"])
def test_text_that_cannot_be_sent_is_refused_before_the_guest_sees_it(
    client: Callable[..., Call], path: Path, text: str
) -> None:
    with answering_guest(path, lambda _: answer(b"")) as guest, pytest.raises(LocalProtocolError):
        client()("raw", text)
    assert guest.requests == []


def test_config_get_of_a_setting_is_refused(client: Callable[..., Call], path: Path) -> None:
    refused = pytest.raises(LocalProtocolError, match="'mem=1M' is not the name of a device")
    with answering_guest(path, lambda _: answer(b"")) as guest, refused:
        client()("config_get", "mem=1M")
    assert guest.requests == []


def test_missing_socket_says_that_the_guest_does_not_run(client: Callable[..., Call], path: Path) -> None:
    with pytest.raises(MconsoleUnreachable) as caught:
        client()("version")
    assert str(caught.value) == f"guest left does not run: nothing at {path}"


def test_socket_of_a_dead_guest_says_so(client: Callable[..., Call], path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.bind(os.fspath(path))
    with pytest.raises(MconsoleUnreachable, match=r"left does not run: nobody listens on .* dead guest"):
        client()("version")


def test_file_that_is_no_socket_says_so(client: Callable[..., Call], path: Path) -> None:
    path.write_text("")
    with pytest.raises(MconsoleUnreachable, match=r"left cannot be reached: .* is not a socket"):
        client()("version")


def test_stream_socket_is_no_console(client: Callable[..., Call], path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(os.fspath(path))
        other.listen()
        with pytest.raises(MconsoleUnreachable, match="not that of a console"):
            client()("version")


def test_path_that_is_too_long_is_named(client: Callable[..., Call], path: Path) -> None:
    long = path.with_name("x" * 100)
    with pytest.raises(MconsoleUnreachable, match=f"left cannot be reached: .* at most 107 bytes: {long}"):
        client(path=long)("version")


@pytest.mark.parametrize("kind", [Mconsole, AsyncMconsole])
def test_find_takes_a_run_directory(kind: type[Mconsole | AsyncMconsole], path: Path) -> None:
    path.write_text("")
    assert kind.find(os.fspath(path.parent)).path == os.fspath(path)


async def test_tasks_are_served_in_the_order_in_which_they_asked(path: Path) -> None:
    with answering_guest(path) as guest:
        client = AsyncMconsole(os.fspath(path))
        texts = [f"log {at}" for at in range(30)]
        answers = await asyncio.gather(*(client.raw(text) for text in texts))
    assert answers == texts
    assert guest.requests == [text.encode() for text in texts]


async def test_cancelled_request_leaves_the_next_one_its_own_answer(path: Path) -> None:
    release = threading.Event()

    def slow_first(text: bytes) -> list[bytes]:
        if text == b"first":
            release.wait(10)
        return answer(text)

    with answering_guest(path, slow_first) as guest:
        client = AsyncMconsole(os.fspath(path))
        first = asyncio.create_task(client.raw("first"))
        await wait_until_async(lambda: guest.requests, 5, "first request")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        release.set()
        assert await client.raw("second") == "second"


async def test_others_run_between_the_fragments_of_an_answer(path: Path) -> None:
    """A guest that sent without end kept every other task from running."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.bind(os.fspath(path))
        guest.setblocking(False)
        asked = asyncio.create_task(AsyncMconsole(os.fspath(path)).raw("proc x"))
        _, client = await asyncio.get_running_loop().sock_recvfrom(guest, 100)
        for datagram in answer(b"x" * 100 * 511):
            guest.sendto(datagram, client)
        turns = 0
        while not asked.done():
            await asyncio.sleep(0)
            turns += 1
    assert await asked == "x" * 100 * 511
    assert turns >= 100


def test_threads_share_a_blocking_client(path: Path) -> None:
    answers: dict[str, str] = {}
    with answering_guest(path):
        client = Mconsole(os.fspath(path))

        def ask(text: str) -> None:
            answers[text] = client.raw(text)

        threads = [threading.Thread(target=ask, args=(f"log {at}",)) for at in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {f"log {at}": f"log {at}" for at in range(20)}


@pytest.mark.parametrize(
    ("text", "timeout"), [(b"version", 5), (b"proc x", 30), (b"sysrq m", 30), (b"stack 1", 30), (b"go", 5)]
)
def test_limit_suits_the_command(text: bytes, timeout: float) -> None:
    assert command.timeout_of(text) == timeout


def test_command_shows_itself() -> None:
    assert repr(command.proc("uptime")) == "Command(text=b'proc uptime', timeout=30.0)"
