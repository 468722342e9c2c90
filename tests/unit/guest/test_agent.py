"""The command channel, with a scripted guest at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from support.deadline import scaled
from umlab.errors import CommandTimeout, GuestFailed, LocalProtocolError, RemoteProtocolError, StateError
from umlab.guest import agent as agent_module
from umlab.guest.agent import MAX_COMMAND, MAX_OUTPUT, Agent, ExecResult, parse_reply_head

GREETING = b"umlab-agent 1\n"
LONG = scaled(10)


class FakeGuest:
    """The guest's end: it takes requests as the guest's script does and says what a test wants."""

    def __init__(self) -> None:
        self.died: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ours, self.sock = socket.socketpair()
        self.agent = Agent("g", ours, ended=self.ended, console_text=lambda: "last words")
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def ended(self) -> int:
        return await asyncio.shield(self.died)

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(sock=self.sock)

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def take_request(self) -> tuple[int, bytes]:
        async with asyncio.timeout(LONG):
            limit, left = map(int, (await self.reader.readuntil(b"\n")).split())
            script = b""
            while left:
                script += await self.reader.readexactly(min(left, 2048))
                left -= min(left, 2048)
                self.say(b"more\n")
            return limit, script

    def die(self, status: int) -> None:
        self.writer.transport.abort()
        self.died.set_result(status)

    async def close(self) -> None:
        await self.agent.close()
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
async def guest() -> AsyncIterator[FakeGuest]:
    fake = FakeGuest()
    await fake.connect()
    yield fake
    await fake.close()


@pytest.fixture
async def greeted(guest: FakeGuest) -> FakeGuest:
    guest.say(GREETING)
    await guest.agent.ready(LONG)
    return guest


def run(guest: FakeGuest, command: str, timeout: float = LONG) -> asyncio.Task[ExecResult]:
    return asyncio.create_task(guest.agent.run(command, timeout))


async def test_request_and_binary_reply(greeted: FakeGuest) -> None:
    running = run(greeted, "echo ä", 4.2)
    assert await greeted.take_request() == (6, "echo ä".encode())
    greeted.say(b"3 7\n\0\r\n\xff 1\n")
    assert await running == ExecResult(3, b"\0\r\n\xff 1\n")


async def test_long_command_goes_in_acknowledged_pieces(greeted: FakeGuest) -> None:
    command = "x" * 5000
    running = run(greeted, command)
    head = await greeted.reader.readuntil(b"\n")
    assert head.endswith(b" 5000\n")
    for size in (2048, 2048, 904):
        assert await greeted.reader.readexactly(size) == b"x" * size
        # Nothing more before the guest asks: it would choke.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(greeted.reader.read(1), 0.05)
        greeted.say(b"more\n")
    greeted.say(b"0 0\n")
    assert await running == ExecResult(0, b"")


async def test_reply_of_a_megabyte_arrives_whole(greeted: FakeGuest) -> None:
    output = bytes(range(256)) * 4096
    running = run(greeted, "cat")
    await greeted.take_request()
    greeted.say(b"0 %d\n" % len(output) + output)
    assert (await running).output == output


async def test_callers_take_turns(greeted: FakeGuest) -> None:
    tasks = [run(greeted, name) for name in ("one", "two", "three")]
    for name in (b"one", b"two", b"three"):
        _, script = await greeted.take_request()
        assert script == name
        greeted.say(b"0 %d\n" % len(name) + name)
    assert [result.output for result in await asyncio.gather(*tasks)] == [b"one", b"two", b"three"]


async def test_late_reply_goes_to_nobody(greeted: FakeGuest) -> None:
    with pytest.raises(CommandTimeout) as caught:
        await greeted.agent.run("slow", 0.05)
    assert (caught.value.umid, caught.value.command, caught.value.timeout) == ("g", "slow", 0.05)
    await greeted.take_request()
    following = run(greeted, "next")
    await asyncio.sleep(0)
    greeted.say(b"137 4\nlate")
    assert (await greeted.take_request())[1] == b"next"
    greeted.say(b"0 3\nnow")
    assert await following == ExecResult(0, b"now")


async def test_cancelled_caller_leaves_the_channel_in_order(greeted: FakeGuest) -> None:
    running = run(greeted, "x" * 3000)
    await greeted.reader.readuntil(b"\n")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    await greeted.reader.readexactly(2048)
    greeted.say(b"more\n")
    await greeted.reader.readexactly(952)
    greeted.say(b"more\n0 1\nz")
    following = run(greeted, "next")
    await greeted.take_request()
    greeted.say(b"0 0\n")
    assert await following == ExecResult(0, b"")


async def test_caller_that_gives_up_in_the_queue_sends_nothing(greeted: FakeGuest) -> None:
    first = run(greeted, "first")
    await greeted.take_request()
    with pytest.raises(CommandTimeout):
        await greeted.agent.run("second", 0.05)
    greeted.say(b"0 0\n")
    await first
    third = run(greeted, "third")
    assert (await greeted.take_request())[1] == b"third"
    greeted.say(b"0 0\n")
    await third


async def test_death_during_a_command_is_reported_with_the_console(greeted: FakeGuest) -> None:
    running = run(greeted, "die")
    await greeted.take_request()
    greeted.die(-6)
    with pytest.raises(GuestFailed) as caught:
        await running
    assert (caught.value.umid, caught.value.status, caught.value.console_tail) == ("g", -6, "last words")


async def test_death_before_the_greeting_is_reported(guest: FakeGuest) -> None:
    guest.die(1)
    with pytest.raises(GuestFailed) as caught:
        await guest.agent.ready(LONG)
    assert caught.value.status == 1


async def test_closed_line_of_a_living_guest_is_reported(
    greeted: FakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "_STATUS_TIMEOUT", 0.05)
    greeted.writer.transport.abort()
    with pytest.raises(GuestFailed) as caught:
        await greeted.agent.run("x", LONG)
    assert caught.value.status is None


async def test_guest_that_does_not_greet_is_not_ready(guest: FakeGuest) -> None:
    with pytest.raises(GuestFailed, match="not ready"):
        await guest.agent.ready(0.05)
    guest.say(GREETING)
    await guest.agent.ready(LONG)
    await guest.agent.ready(LONG)


@pytest.mark.parametrize("greeting", [b"login: \n", b"umlab-agent 2\n", b"x" * 100_000])
async def test_wrong_greeting_breaks_the_channel(guest: FakeGuest, greeting: bytes) -> None:
    guest.say(greeting)
    with pytest.raises(RemoteProtocolError):
        await guest.agent.ready(LONG)
    with pytest.raises(StateError):
        await guest.agent.run("x", LONG)


@pytest.mark.parametrize(
    "answer", [b"less\n", b"more\nnonsense\n", b"more\n0 -1\n", b"more\n" + b"9" * 100_000]
)
async def test_wrong_answer_breaks_the_channel(greeted: FakeGuest, answer: bytes) -> None:
    greeted.say(b"")
    running = run(greeted, "x")
    await greeted.reader.readuntil(b"\n")
    greeted.say(answer)
    with pytest.raises(RemoteProtocolError):
        await running
    with pytest.raises(StateError):
        await greeted.agent.run("x", LONG)


async def test_unasked_output_breaks_the_channel(greeted: FakeGuest) -> None:
    greeted.say(b"0 4\nfake")
    with pytest.raises(RemoteProtocolError, match="without being asked"):
        await greeted.agent.run("x", LONG)


async def test_guest_that_rebooted_by_itself_goes_on(greeted: FakeGuest) -> None:
    greeted.say(GREETING)
    running = run(greeted, "x")
    await greeted.take_request()
    greeted.say(b"0 0\n")
    assert await running == ExecResult(0, b"")


async def test_command_that_reboots_has_no_result_and_the_next_one_has(greeted: FakeGuest) -> None:
    running = run(greeted, "reboot")
    await greeted.take_request()
    greeted.say(GREETING)
    with pytest.raises(GuestFailed):
        await running
    running = run(greeted, "x")
    await greeted.take_request()
    greeted.say(b"0 0\n")
    assert await running == ExecResult(0, b"")


async def test_reboot_waits_for_the_new_greeting(greeted: FakeGuest) -> None:
    asked = asyncio.Event()

    async def reboot() -> None:
        asked.set()

    rebooting = asyncio.create_task(greeted.agent.reboot(reboot, LONG))
    await asyncio.wait_for(asked.wait(), LONG)
    await asyncio.sleep(0)
    assert not rebooting.done()
    greeted.say(GREETING)
    await rebooting


async def test_reboot_without_a_greeting_is_reported(greeted: FakeGuest) -> None:
    async def reboot() -> None:
        pass

    with pytest.raises(GuestFailed):
        await greeted.agent.reboot(reboot, 0.05)


async def test_too_long_command_is_refused(greeted: FakeGuest) -> None:
    with pytest.raises(LocalProtocolError):
        await greeted.agent.run("x" * (MAX_COMMAND + 1), LONG)


async def test_close_fails_those_who_wait(greeted: FakeGuest) -> None:
    first, second = run(greeted, "first"), run(greeted, "second")
    await greeted.take_request()
    await greeted.agent.close()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [StateError, StateError]
    await greeted.agent.close()


async def test_closed_before_its_first_use(guest: FakeGuest) -> None:
    await guest.agent.close()
    with pytest.raises(StateError):
        await guest.agent.ready(LONG)


@pytest.mark.parametrize(
    "line",
    [b"", b"0\n", b"0 1", b"256 0\n", b"-1 0\n", b"0 %d\n" % (MAX_OUTPUT + 1), b"0 0 0\n", b"\xff 0\n"],
)
def test_wrong_reply_head_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_reply_head(line)


def test_reply_head_limits_are_taken() -> None:
    assert parse_reply_head(b"255 %d\n" % MAX_OUTPUT) == (255, MAX_OUTPUT)
