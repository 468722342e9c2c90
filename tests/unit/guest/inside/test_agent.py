"""The agent's lines, with a scripted guest at the other end."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from support.deadline import scaled, wait_until_async
from support.scripted_agent import AGAIN, KILLED, LINE, ScriptedAgent, freed, opened, run
from umlab.errors import CommandTimeout, GuestFailed, LocalProtocolError, RemoteProtocolError, StateError
from umlab.guest.inside import agent as agent_module
from umlab.guest.inside import hearing
from umlab.guest.inside import session as session_module
from umlab.guest.inside.agent import ExecResult
from umlab.guest.inside.agent_line import SESSIONS
from umlab.guest.inside.session import LINE_PIECE, MAX_SCRIPT, Request

LONG = scaled(10)


class TestRun:
    async def test_request_and_both_binary_outputs(self, greeted: ScriptedAgent) -> None:
        running = run(greeted, "echo ä\n\0")
        asked = await greeted.request()
        assert (asked.input, asked.window, asked.script) == ("none", (24, 80), "echo ä\n\0".encode())
        greeted.end(1, 3, b"\n\0\r\n\xff 1\n", b"1 end\n")
        assert await running == ExecResult(3, b"\n\0\r\n\xff 1\n", b"1 end\n")

    async def test_script_and_what_it_leaves_are_nobodys_afterwards(self, by_file: ScriptedAgent) -> None:
        running = run(by_file, "x")
        await by_file.request()
        assert len(os.listdir(by_file.share)) == 1
        by_file.end()
        await running
        await wait_until_async(lambda: not os.listdir(by_file.share), 10, "no file")

    async def test_long_script_goes_in_acknowledged_pieces(self, by_line: ScriptedAgent) -> None:
        running = run(by_line, "x" * 5000)
        size = int((await by_line.head())[-1])
        assert 5000 < size < 5500
        while size:
            piece = min(size, LINE_PIECE)
            await by_line.read(1, piece)
            size -= piece
            # Nothing more before the guest asks: it would choke.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(by_line._readers[1].read(1), 0.05)
            by_line.say("1 more\n")
        by_line.end()
        assert (await running).status == 0

    async def test_output_of_megabytes_arrives_whole(self, greeted: ScriptedAgent) -> None:
        output, errors = bytes(range(256)) * 8192, b"e" * 100_000
        running = run(greeted, "cat")
        await greeted.request()
        greeted.write(1, output)
        greeted.write(1, errors, errors=True)
        await asyncio.gather(*(greeted._writers[line].drain() for line in (1, 2)))
        await wait_until_async(
            lambda: all(w.transport.get_write_buffer_size() == 0 for w in greeted._writers), 10, "the output"
        )
        greeted.say("1 exit 0\n1 end\n")
        await greeted.settle(lines=(1, 2))
        assert await running == ExecResult(0, output, errors)

    async def test_last_bytes_of_long_output_are_waited_for(self, greeted: ScriptedAgent) -> None:
        running = [run(greeted, "long"), run(greeted, "short")]
        await greeted.request(1)
        await greeted.request(2)
        greeted.end(1, 0, bytes(300))
        greeted.end(2, 0, bytes(10))
        assert len((await running[1]).stdout) == 10
        assert await greeted.line(1) == "settle 1"
        greeted.write(1, b"last")
        await asyncio.sleep(0)
        assert not running[0].done()
        greeted.say("2 settled\n1 settled\n1 settled\n")
        assert (await running[0]).stdout == bytes(300) + b"last"
        # Neither session has anything on its lines that is not for its next command.
        running = [run(greeted, "a"), run(greeted, "b")]
        for number in (1, 2):
            await greeted.request(number)
            greeted.end(number, number)
        assert sorted([(await each).status for each in running]) == [1, 2]

    async def test_too_much_output_is_an_error_of_that_command_alone(
        self, greeted: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_module, "MAX_OUTPUT", 1000)
        running = run(greeted, "yes")
        await greeted.request()
        greeted.write(1, bytes(1001))
        with pytest.raises(RemoteProtocolError, match="1000 bytes"):
            await running
        assert (await greeted.told()).startswith("signal 1 KILL ")
        greeted.end(1, 137, bytes(5000))
        await greeted.settle()
        await freed(greeted)
        running = run(greeted, "x")
        await greeted.request()
        greeted.end(1, 0, b"now")
        assert await running == ExecResult(0, b"now", b"")

    @pytest.mark.parametrize("command", ["x" * (MAX_SCRIPT + 1), "\ud800"])
    async def test_unusable_command_takes_no_session(self, greeted: ScriptedAgent, command: str) -> None:
        for _ in range(SESSIONS + 1):
            with pytest.raises(LocalProtocolError):
                await greeted.agent.run(command, LONG)
        running = run(greeted, "x")
        await greeted.request()
        greeted.end()
        await running

    async def test_sessions_run_at_once_and_more_callers_wait(self, greeted: ScriptedAgent) -> None:
        tasks = [run(greeted, f"c{number}") for number in range(SESSIONS + 2)]
        scripts = {}
        for number in range(1, SESSIONS + 1):
            scripts[number] = (await greeted.request(number)).script
        assert sorted(scripts.values()) == [f"c{number}".encode() for number in range(SESSIONS)]
        greeted.end(5, 5, b"five")
        assert (await tasks[int(scripts[5][1:])]).stdout == b"five"
        for script in (b"c8", b"c9"):
            assert (await greeted.request(5)).script == script
            greeted.end(5)
        for number in set(scripts) - {5}:
            greeted.end(number)
        assert {result.status for result in await asyncio.gather(*tasks)} == {0, 5}

    async def test_what_goes_on_after_a_command_is_waited_for_shortly(
        self, greeted: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "_GRACE", scaled(0.2))
        running = run(greeted, "sleep 1000 & echo started")
        await greeted.request()
        greeted.say("1 exit 0\n")
        await asyncio.sleep(0)
        greeted.write(1, b"started")
        assert await running == ExecResult(0, b"started", b"")

    async def test_input_ends_with_its_command(self, greeted: ScriptedAgent) -> None:
        session = await opened(greeted, Request("true", "pipe"))
        greeted.say("1 exit 4\n")
        assert await greeted.line(1) == "end"
        greeted.say("1 end\n")
        assert await session.read_output() == b""
        assert await session.wait() == 4
        # What comes too late is lost.
        await session.write(b"x")
        await session.end_input()
        greeted.agent.release(session)
        running = run(greeted, "x")
        await greeted.request()
        greeted.end()
        await running

    async def test_session_with_a_writer_left_behind_is_freed_when_all_are_taken(
        self, by_line: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "_GRACE", 0.05)
        serials = {}
        for number in range(1, SESSIONS + 1):
            running = run(by_line, "sleep 1000 &")
            serials[number] = (await by_line.request(number)).serial
            by_line.say(f"{number} exit 0\n")
            await running
        assert len(set(serials.values())) == SESSIONS
        running = run(by_line, "next")
        cut, freed_number, serial = (await by_line.told()).split()
        number = int(freed_number)
        assert (cut, int(serial)) == ("cut", serials[number])
        by_line.say(f"{number} end\n")
        assert (await by_line.request(number)).script == b"next"
        by_line.end(number, 0, b"done")
        assert (await running).stdout == b"done"


class TestGivingUp:
    async def test_late_output_goes_to_nobody(self, greeted: ScriptedAgent) -> None:
        running = run(greeted, "slow", 0.2)
        await greeted.request()
        with pytest.raises(CommandTimeout) as caught:
            await running
        assert (caught.value.umid, caught.value.command, caught.value.timeout) == ("g", "slow", 0.2)
        assert (await greeted.told()).startswith("signal 1 KILL ")
        greeted.end(1, 137, b"late", b"late")
        await freed(greeted)
        running = run(greeted, "next")
        await greeted.request()
        greeted.end(1, 0, b"now")
        assert await running == ExecResult(0, b"now", b"")

    async def test_caller_that_is_cancelled_leaves_the_line_in_order(self, by_line: ScriptedAgent) -> None:
        running = run(by_line, "x" * 3000)
        size = int((await by_line.head())[-1])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
        # The script is sent to its end, or the session would wait for ever.
        while size:
            size -= len(await by_line.read(1, min(size, LINE_PIECE)))
            by_line.say("1 more\n")
        by_line.end(1, 137)
        await freed(by_line)
        running = run(by_line, "next")
        assert (await by_line.request()).script == b"next"
        by_line.end()
        await running

    async def test_caller_that_gives_up_while_all_are_taken_sends_nothing(
        self, greeted: ScriptedAgent
    ) -> None:
        tasks = [run(greeted, "first") for _ in range(SESSIONS)]
        for number in range(1, SESSIONS + 1):
            await greeted.request(number)
        with pytest.raises(CommandTimeout):
            await greeted.agent.run("second", 0.05)
        greeted.end(3)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        third = run(greeted, "third")
        assert (await greeted.request(3)).script == b"third"
        for number in range(1, SESSIONS + 1):
            greeted.end(number)
        await asyncio.gather(third, *tasks)

    async def test_session_is_released_once_and_later_ones_are_not_its(self, greeted: ScriptedAgent) -> None:
        session = await opened(greeted, Request("x"))
        greeted.end()
        assert await session.wait() == 0
        greeted.agent.release(session)
        greeted.agent.release(session)
        running = run(greeted, "y")
        await greeted.request()
        greeted.agent.release(session)
        session.signal("TERM")
        session.resize(1, 1)
        greeted.end(1, 0, b"y")
        assert (await running).stdout == b"y"
        assert greeted.heard.empty()


class TestHearing:
    async def test_guest_that_hears_no_signal_hangs(
        self, greeted: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = await opened(greeted, Request("x"))
        monkeypatch.setattr(hearing, "HEARING_TIME", scaled(0.5))
        session.signal("USR1")
        async with session.hearing.watched():
            greeted.say("1 heard\n1 heard\n")
            session.signal("USR2")
            for _ in range(2):
                assert (await greeted.told()).startswith("signal 1 USR")
            greeted.say("1 heard\n")
            await asyncio.sleep(scaled(0.6))

        async def watch() -> None:
            async with session.hearing.watched():
                await asyncio.wait_for(asyncio.Event().wait(), scaled(5))

        session.signal("TERM")
        with pytest.raises(StateError, match="the guest hangs"):
            await watch()


class TestGreeting:
    async def test_guest_that_does_not_greet_is_not_ready(self, guest: ScriptedAgent) -> None:
        with pytest.raises(GuestFailed, match="not ready"):
            await guest.agent.ready(0.05)
        guest.say(LINE)
        await guest.agent.ready(LONG)
        await guest.agent.ready(LONG)

    @pytest.mark.parametrize(
        "said",
        [
            "login: \n",
            "umlab-agent 1\n",
            "umlab-agent 2\n",
            "umlab-agent 2 line\n",
            "umlab-agent 2 line 0\n",
            "umlab-agent 2 pipe 0 7\n",
            "x" * 100_000,
            "\0" * 9000,
        ],
    )
    async def test_wrong_greeting_breaks_the_lines(self, guest: ScriptedAgent, said: str) -> None:
        guest.say(said)
        with pytest.raises(RemoteProtocolError):
            await guest.agent.ready(LONG)
        with pytest.raises(RemoteProtocolError):
            await guest.agent.run("x", LONG)

    @pytest.mark.parametrize(
        "said",
        ["0 end\n", "9 end\n", "1 exit 256\n", "1 exit -1\n", "1 less\n", "9" * 100_000],
    )
    async def test_nonsense_breaks_the_lines(self, greeted: ScriptedAgent, said: str) -> None:
        session = await opened(greeted, Request("x"))
        greeted.say(said)
        for waiting in (session.wait(), session.read_output(), session.read_errors()):
            with pytest.raises(RemoteProtocolError):
                await asyncio.wait_for(waiting, LONG)
        with pytest.raises(RemoteProtocolError):
            await greeted.agent.run("x", LONG)

    async def test_lines_about_sessions_that_do_not_run_mean_nothing(self, greeted: ScriptedAgent) -> None:
        greeted.say("8 exit 1\n8 end\n7 more\n0 reset 5 line\n1 end\n1 end\n")
        running = [run(greeted, "a"), run(greeted, "b")]
        await greeted.request(1)
        await greeted.request(2)
        greeted.say("1 exit 1\n1 exit 2\n1 more\n")
        greeted.say("1 end\n1 end\n1 exit 3\n")
        assert (await running[0]).status == 1
        greeted.end(2, 4)
        assert (await running[1]).status == 4

    async def test_flood_on_the_control_line_lets_others_have_their_turn(
        self, greeted: ScriptedAgent
    ) -> None:
        session = await opened(greeted, Request("x"))
        greeted.say("1 more\n" * 300_000)
        turns, end = 0, time.monotonic() + 0.2
        while time.monotonic() < end:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 5
        greeted.end(1, 6)
        assert await asyncio.wait_for(session.wait(), scaled(60)) == 6

    async def test_guest_that_rebooted_by_itself_goes_on(self, greeted: ScriptedAgent) -> None:
        greeted.say(AGAIN)
        await asyncio.sleep(0)
        running = run(greeted, "x")
        await greeted.request()
        greeted.end()
        assert await running == ExecResult(0, b"", b"")

    async def test_what_the_lines_echo_after_a_reboot_is_nobodys(self, greeted: ScriptedAgent) -> None:
        greeted.write(1, b"left by the last kernel")
        greeted.say(b"signal 1 KILL 1\r\nopen 2 9\r\nsig\n" + AGAIN.encode())
        await asyncio.sleep(0)
        greeted.write(1, b"\r\nrun 1 none 24 80 file x\r\n")
        running = run(greeted, "x")
        await greeted.request()
        greeted.end(1, 0, b"new")
        assert await running == ExecResult(0, b"new", b"")

    async def test_greeting_that_comes_twice_ends_nothing(self, by_line: ScriptedAgent) -> None:
        running = run(by_line, "x")
        await by_line.request()
        by_line.say(LINE)
        by_line.end(1, 5)
        assert (await running).status == 5

    async def test_command_that_reboots_has_no_result_and_the_next_one_has(
        self, greeted: ScriptedAgent
    ) -> None:
        session = await opened(greeted, Request("reboot -f", "pipe"))
        greeted.write(1, b"half")
        greeted.say(AGAIN)
        with pytest.raises(StateError, match="has rebooted"):
            await session.wait()
        running = run(greeted, "x")
        await greeted.request()
        # The old one does not have what is the new one's.
        greeted.end(1, 0, b"whole")
        assert await session.read_output() == b"half"
        for waiting in (session.read_output(), session.write(b"x")):
            with pytest.raises(StateError, match="has rebooted"):
                await waiting
        greeted.agent.release(session)
        assert await running == ExecResult(0, b"whole", b"")

    async def test_agent_that_was_killed_begins_anew(self, greeted: ScriptedAgent) -> None:
        session = await opened(greeted, Request("kill -9 -1"))
        greeted.say(KILLED)
        with pytest.raises(StateError, match="agent in guest g was killed"):
            await session.wait()
        running = run(greeted, "x")
        await greeted.request()
        greeted.end(1, 3)
        assert (await running).status == 3

    async def test_reboot_waits_for_the_new_greeting(self, greeted: ScriptedAgent) -> None:
        asked = asyncio.Event()

        async def reboot() -> None:
            asked.set()

        rebooting = asyncio.create_task(greeted.agent.reboot(reboot, LONG))
        await asyncio.wait_for(asked.wait(), LONG)
        await asyncio.sleep(0)
        assert not rebooting.done()
        greeted.say(AGAIN)
        await rebooting

    async def test_reboot_without_a_greeting_is_reported(self, greeted: ScriptedAgent) -> None:
        async def reboot() -> None:
            pass

        with pytest.raises(GuestFailed):
            await greeted.agent.reboot(reboot, 0.05)


class TestEnd:
    async def test_death_during_a_command_is_reported_with_the_console(self, greeted: ScriptedAgent) -> None:
        running = run(greeted, "die")
        await greeted.request()
        greeted.die(-6)
        with pytest.raises(GuestFailed) as caught:
            await running
        assert (caught.value.umid, caught.value.status, caught.value.console_tail) == ("g", -6, "last words")

    async def test_output_before_a_death_can_be_read(self, greeted: ScriptedAgent) -> None:
        session = await opened(greeted, Request("die"))
        greeted.write(1, b"half of it")
        await greeted._writers[1].drain()
        greeted.die(-9)
        with pytest.raises(GuestFailed):
            await asyncio.wait_for(session.wait(), LONG)
        assert await session.read_output() == b"half of it"
        for read in (session.read_output, session.read_errors):
            with pytest.raises(GuestFailed):
                await read()

    async def test_death_before_the_greeting_is_reported(self, guest: ScriptedAgent) -> None:
        guest.die(1)
        with pytest.raises(GuestFailed) as caught:
            await guest.agent.ready(LONG)
        assert caught.value.status == 1

    async def test_closed_lines_of_a_living_guest_are_reported(
        self, greeted: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_module, "_STATUS_TIMEOUT", 0.05)
        greeted.cut_lines()
        with pytest.raises(GuestFailed) as caught:
            await greeted.agent.run("x", LONG)
        assert caught.value.status is None

    async def test_close_fails_those_who_wait(self, greeted: ScriptedAgent) -> None:
        tasks = [run(greeted, "x") for _ in range(SESSIONS + 1)]
        for number in range(1, SESSIONS + 1):
            await greeted.request(number)
        await greeted.agent.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {StateError}
        await greeted.agent.close()

    async def test_closed_before_its_first_use(self, guest: ScriptedAgent) -> None:
        await guest.agent.close()
        with pytest.raises(StateError):
            await guest.agent.ready(LONG)


class TestTakenOver:
    """Lines that an earlier owner has left."""

    async def test_what_was_left_running_ends_before_the_first_command(self, guest: ScriptedAgent) -> None:
        guest.agent.assume_ready()
        await guest.agent.ready(LONG)
        running = [run(guest, name) for name in ("one", "two")]
        assert await guest.told() == "reset 1"
        # What the earlier owner's commands still write, and what was said about them.
        guest.write(1, b"old")
        guest.say("1 exit 1\n1 end\n0 reset 7 line\n")
        await asyncio.sleep(0)
        guest.say("0 reset 1 file\n")
        for number in (1, 2):
            await guest.request(number)
            guest.end(number, 0, b"new")
        assert [(await each).stdout for each in running] == [b"new", b"new"]
        assert guest.heard.empty()

    async def test_guest_that_reboots_instead_is_begun_anew(self, guest: ScriptedAgent) -> None:
        guest.agent.assume_ready()
        running = run(guest, "x")
        assert await guest.told() == "reset 1"
        guest.say(LINE)
        await guest.request()
        guest.end(1, 4)
        assert (await running).status == 4

    async def test_agent_that_does_not_answer_is_an_error(
        self, guest: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_module, "_RESET_TIMEOUT", 0.05)
        guest.agent.assume_ready()
        with pytest.raises(RemoteProtocolError, match="does not answer"):
            await guest.agent.run("x", LONG)

    async def test_descriptors_are_all_of_them(self, guest: ScriptedAgent) -> None:
        assert len(set(guest.agent.fds)) == 1 + 2 * SESSIONS
