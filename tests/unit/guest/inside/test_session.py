"""One command's session: its input, its terminal, its signals, and the folder in common."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from support.scripted_agent import FILE, ScriptedAgent, all_of, opened, run
from umlab.errors import RemoteProtocolError
from umlab.guest.inside.session import FILE_PIECE, Request

LONG = scaled(10)


class TestSession:
    @pytest.mark.parametrize("size", [1, FILE_PIECE + 1])
    async def test_input_goes_through_files_that_are_removed(self, by_file: ScriptedAgent, size: int) -> None:
        session = await opened(by_file, Request("cat", "pipe"))
        data = os.urandom(size)

        async def feed() -> None:
            await session.write(data)
            await session.end_input()
            await session.end_input()

        feeding, taken = asyncio.create_task(feed()), b""
        while (line := await by_file.line(1)) != "end":
            kind, name = line.split()
            assert kind == "file"
            taken += (by_file.share / name).read_bytes()
            by_file.say("1 more\n")
        await feeding
        assert taken == data
        by_file.end()
        by_file.agent.release(session)
        await wait_until_async(lambda: not os.listdir(by_file.share), 10, "no file")

    async def test_input_goes_over_the_line_in_acknowledged_pieces(self, by_line: ScriptedAgent) -> None:
        session = await opened(by_line, Request("cat", "pipe"))
        data, taken = os.urandom(5000), b""
        feeding = asyncio.create_task(session.write(data))
        while len(taken) < len(data):
            kind, size = (await by_line.line(1)).split()
            assert kind == "line"
            taken += await by_line.read(1, int(size))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(by_line._readers[1].read(1), 0.05)
            by_line.say("1 more\n")
        await feeding
        assert taken == data

    async def test_terminal_has_its_size_and_what_is_typed(self, greeted: ScriptedAgent) -> None:
        opening = asyncio.create_task(greeted.agent.open(Request("sh", "tty", (30, 100))))
        asked = await greeted.request()
        assert (asked.input, asked.window) == ("tty", (30, 100))
        session = await opening
        await session.write(b"typed\x03")
        assert await greeted.read(1, 6) == b"typed\x03"
        session.resize(50, 132)
        assert await greeted.told() == "size 1 50 132"
        await session.end_input()
        greeted.end(1, 130, b"^C")
        assert await all_of(session.read_output) == b"^C"
        assert await session.wait() == 130

    async def test_signal_tells_which_command_it_is_for(self, greeted: ScriptedAgent) -> None:
        opening = asyncio.create_task(greeted.agent.open(Request("sleep 9")))
        asked = await greeted.request()
        session = await opening
        session.signal("INT")
        assert await greeted.told() == f"signal 1 INT {asked.serial}"
        greeted.end(1, 130)
        assert await session.wait() == 130
        session.signal("KILL")
        greeted.agent.release(session)
        opening = asyncio.create_task(greeted.agent.open(Request("sleep 9")))
        assert (await greeted.request()).serial != asked.serial
        await opening
        assert greeted.heard.empty()

    async def test_status_comes_before_what_is_written_late(self, greeted: ScriptedAgent) -> None:
        session = await opened(greeted, Request("x"))
        greeted.say("1 exit 7\n")
        assert await session.wait() == 7
        assert session.has_exited
        greeted.write(1, b"late")
        assert await session.read_output() == b"late"
        greeted.say("1 end\n")
        assert await all_of(session.read_output) == await all_of(session.read_errors) == b""

    async def test_guest_that_does_not_read_what_is_typed_is_an_error(self, greeted: ScriptedAgent) -> None:
        session = await opened(greeted, Request("sh", "tty"))
        for reader in greeted._readers:
            reader._transport.pause_reading()  # type: ignore[attr-defined]

        async def flood() -> None:
            for _ in range(100):
                await session.write(bytes(100_000))

        with pytest.raises(RemoteProtocolError, match="does not read"):
            await flood()


class TestShare:
    """The folder in common is the guest's as well."""

    async def test_removed_folder_is_done_without(self, by_file: ScriptedAgent) -> None:
        shutil.rmtree(by_file.share)
        running = run(by_file, "x")
        assert (await by_file.request()).script == b"x"
        by_file.end()
        await running
        session = await opened(by_file, Request("cat", "pipe"))
        await session.write(b"abc")
        assert await by_file.line(1) == "line 3"
        assert await by_file.read(1, 3) == b"abc"

    async def test_link_in_the_folders_place_is_not_followed(
        self, guest: ScriptedAgent, tmp_path: Path
    ) -> None:
        guest.share.rmdir()
        (tmp_path / "mine").mkdir()
        guest.share.symlink_to(tmp_path / "mine")
        guest.say(FILE)
        running = run(guest, "x")
        assert (await guest.head())[4] == "line"
        assert os.listdir(tmp_path / "mine") == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def test_files_that_the_guest_removes_or_replaces_are_its_own_loss(
        self, by_file: ScriptedAgent, tmp_path: Path
    ) -> None:
        (tmp_path / "mine").write_text("mine")
        running = run(by_file, "x")
        await by_file.request()
        (name,) = os.listdir(by_file.share)
        (by_file.share / name).unlink()
        (by_file.share / name).symlink_to(tmp_path / "mine")
        by_file.end()
        await running
        await wait_until_async(lambda: not os.listdir(by_file.share), 10, "no file")
        assert (tmp_path / "mine").read_text() == "mine"
