"""The keeper's daemons: one after the other, dead, mad or slow; and how the keeper itself ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import select
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until, wait_until_async
from support.process import is_gone
from support.real_keeper import FAMILY, RealKeeper, has_ended, pipe, start
from umlab.errors import LabError
from umlab.guest.group import Order
from umlab.guest.watch import group_members
from umlab.keeper import link as link_module
from umlab.keeper import message
from umlab.keeper.link import KeeperLink
from umlab.keeper.message import MAX_MESSAGE

LONG = scaled(20)


class TestDaemons:
    async def test_daemon_that_comes_back_finds_groups_as_they_are(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        running, ends = await start(link, "running"), await start(link, "ends")
        link.close()
        os.killpg(ends.pid, signal.SIGKILL)
        await wait_until_async(lambda: not group_members(ends.pid), 10, "the end of a group")
        second = keeper.connect()
        assert {name: group.pid for name, group in second.groups.items()} == {
            "running": running.pid,
            "ends": ends.pid,
        }
        assert await second.groups["ends"].gone(LONG)
        assert second.groups["ends"].ended.result() == -signal.SIGKILL
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        link_module.watch_end(second.groups["running"], told.set_result)
        second.groups["running"].kill()
        assert await asyncio.wait_for(told, LONG) == -signal.SIGKILL
        second.groups["ends"].forget()
        second.close()
        assert set(keeper.connect().groups) == {"running"}

    async def test_second_daemon_is_refused_and_the_first_goes_on(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        with pytest.raises(BlockingIOError, match="serves another daemon"):
            keeper.connect()
        assert (await start(link)).pid

    @pytest.mark.parametrize(
        "said",
        [
            b"nonsense",
            b"[]",
            b"{}",
            b'{"do":"dance"}',
            b'{"do":["put"]}',
            b'{"do":"put","name":["x"],"meta":{}}',
            b'{"do":"put","name":"x"}',
            b'{"do":"start","name":"x","words":[],"cwd":"/"}',
            b'{"do":"start","name":"x","words":[1],"cwd":"/","env":{}}',
            b'{"do":"signal","name":"g"}',
            b'{"do":"signal","name":"g","number":"x","all":false}',
            b'{"do":"signal","name":"g","number":4096,"all":false}',
            b'{"do":"signal","name":"g","number":1e999,"all":false}',
            b"[" * 100_000,
            b"x" * (2 * MAX_MESSAGE),
        ],
        ids=lambda said: said[:60].decode(),
    )
    async def test_nonsense_ends_the_connection_and_nothing_else(
        self, keeper: RealKeeper, said: bytes
    ) -> None:
        link = keeper.connect()
        pid = (await start(link)).pid
        link.close()
        reader, writer = pipe()
        with keeper.raw() as sock:
            _drain(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            socket.send_fds(sock, [said], [0, writer])
            os.close(writer)
            assert sock.recv(100) == b""
        await wait_until_async(lambda: has_ended(reader), 10, "the descriptor to be closed")
        os.close(reader)
        assert keeper.connect().groups["g"].pid == pid
        assert group_members(pid)
        assert "the daemon" in keeper.log.read_text()

    async def test_descriptors_with_a_request_that_wants_none_are_closed(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        reader, writer = pipe()
        for request in (
            {"do": "drop", "name": "x"},
            {"do": "forget", "name": "x"},
            {"do": "signal", "name": "x", "number": 1, "all": True},
        ):
            link.say(request, [writer] * 3)
        with pytest.raises(OSError, match="No such file"):
            await link.start("x", Order(("0",), "/none", {}), writer, (writer,), lambda _: None)
        os.close(writer)
        await wait_until_async(lambda: has_ended(reader), 10, "the descriptors to be closed")
        os.close(reader)

    async def test_daemon_that_went_while_the_next_one_came_is_no_reason_to_drop_that(
        self, keeper: RealKeeper
    ) -> None:
        link = keeper.connect()
        pid = (await start(link)).pid
        # Both are seen in one look, the newcomer first.
        keeper.signal(signal.SIGSTOP)
        with keeper.raw() as sock:
            link.put("late", {}, [])
            link.close()
            keeper.signal(signal.SIGCONT)
            assert {"late", "g"} <= {told.get("name") for told in _drain(sock)}
            # And it is served.
            sock.send(b'{"do":"signal","name":"g","number":9,"all":true}')
            assert json.loads(sock.recv(1000)) == {"is": "ended", "name": "g", "status": -9}
        assert group_members(pid) == []

    async def test_last_words_of_a_daemon_that_did_not_read_count(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        group = await start(link)
        # What it is told of its group's end stays unread, as this loop has no turn before it goes.
        os.killpg(group.pid, signal.SIGKILL)
        wait_until(lambda: select.select([link._sock], [], [], 0)[0], 10, "the message")
        keeper.signal(signal.SIGSTOP)
        for number in range(5):
            link.put(f"x{number}", {}, [])
        link.close()
        keeper.signal(signal.SIGCONT)
        again = await keeper.connected()
        assert set(again.things) == {f"x{number}" for number in range(5)}

    async def test_daemon_that_asks_for_the_end_and_goes_is_obeyed(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        pid = (await start(link)).pid
        keeper.signal(signal.SIGSTOP)
        link.say({"do": "end"})
        link.close()
        with keeper.raw() as late:
            keeper.signal(signal.SIGCONT)
            # An ending keeper takes nobody.
            with contextlib.suppress(ConnectionResetError):
                assert late.recv(100) == b""
        await wait_until_async(lambda: is_gone(keeper.pid), 10, "the end of the keeper")
        assert group_members(pid) == []

    async def test_connection_that_ends_before_all_is_told_means_no_keeper(self, short_dir: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(short_dir / "s"))
            listener.listen()
            connecting = asyncio.to_thread(_answer_once, listener, ())
            task = asyncio.ensure_future(connecting)
            await asyncio.sleep(0)
            with pytest.raises(ConnectionError):
                KeeperLink.connect(str(short_dir / "s"))
            await task

    @pytest.mark.parametrize("told", [{}, {"is": "thing"}, {"is": "group", "name": "x"}, {"is": "keeper"}])
    async def test_keeper_of_another_version_is_named_and_descriptors_are_closed(
        self, short_dir: Path, told: dict[str, object]
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(short_dir / "s"))
            listener.listen()
            answers: list[dict[str, object]] = [{"is": "thing", "name": "a", "meta": {}}, told]
            task = asyncio.ensure_future(asyncio.to_thread(_answer_once, listener, answers))
            await asyncio.sleep(0)
            with pytest.raises(LabError, match="of another version"):
                KeeperLink.connect(str(short_dir / "s"))
            await task


class TestEnds:
    async def test_end_kills_every_group_and_leaves_no_file(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        pid = (await start(link, script=FAMILY)).pid
        assert keeper.is_locked()
        await link.end()
        assert not keeper.is_locked()
        assert group_members(pid) == []
        assert not keeper.path.exists()
        assert link.lost.result()
        assert link.groups["g"].ended.result() == -signal.SIGKILL
        # Nobody is there to be told, which is no error.
        link.put("x", {}, [])
        with pytest.raises(OSError, match="keeper is gone"):
            await start(link)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_signal_ends_it_in_order(self, keeper: RealKeeper, number: int) -> None:
        link = keeper.connect()
        group = await start(link, script=FAMILY)
        keeper.signal(number)
        assert await asyncio.wait_for(asyncio.shield(link.lost), LONG)
        assert group_members(group.pid) == []
        assert group.ended.result() == -signal.SIGKILL
        assert not keeper.path.exists()

    async def test_hangup_is_nothing(self, keeper: RealKeeper) -> None:
        keeper.signal(signal.SIGHUP)
        assert (await start(keeper.connect())).pid

    async def test_killed_keeper_takes_its_groups_with_it(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        group = await start(link, script=FAMILY)
        asking = None
        keeper.signal(signal.SIGSTOP)
        asking = asyncio.ensure_future(start(link, "late"))
        await asyncio.sleep(0)
        keeper.signal(signal.SIGKILL)
        with pytest.raises(OSError, match="keeper is gone"):
            await asyncio.wait_for(asking, LONG)
        assert link.lost.result()
        assert await group.gone(LONG)
        assert group.ended.result() == -signal.SIGKILL
        await wait_until_async(lambda: not group_members(group.pid), 10, "the guard's work")


class TestStoppedKeeper:
    """A keeper that does not answer is lost, and its groups are not."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_TIMEOUT", "_END_TIMEOUT", "_DEATH_TIME"):
            monkeypatch.setattr(link_module, name, scaled(0.3))

    async def test_start_is_given_up(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        group = await start(link)
        keeper.signal(signal.SIGSTOP)
        with pytest.raises(OSError, match="does not answer"):
            await start(link, "late")
        assert link.lost.result() is False
        assert not group.ended.done()
        link.close()
        keeper.signal(signal.SIGCONT)
        again = await keeper.connected()
        assert again.groups["g"].pid == group.pid

    async def test_request_that_is_not_read_is_given_up_once(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        keeper.signal(signal.SIGSTOP)
        for number in range(100):
            link.put(f"x{number}", {"x": "x" * 100_000}, [])
        assert link.lost.result() is False

    async def test_connection_and_end_are_given_up(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        keeper.signal(signal.SIGSTOP)
        with pytest.raises(LabError, match=f"process {keeper.pid}, does not end"):
            await link.end()
        with pytest.raises(LabError, match="does not answer"):
            keeper.connect()

    async def test_descriptors_beyond_the_limit_end_the_connection_and_nothing_else(
        self, keeper: RealKeeper
    ) -> None:
        link = keeper.connect()
        pid = (await start(link)).pid
        soft, hard = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (keeper.descriptors() + 5, hard))
        link.put("x", {}, [0] * 20)
        assert await asyncio.wait_for(asyncio.shield(link.lost), LONG) is False
        link.close()
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (hard, hard))
        again = await keeper.connected()
        assert again.groups["g"].pid == pid
        assert again.things == {}


def _drain(sock: socket.socket) -> list[dict[str, Any]]:
    """Take what a new daemon is told."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["is"] != "held":
        received = message.receive(sock)
        assert received is not None
        told.append(received[0])
        message.close_all(received[1])
    return told


def _answer_once(listener: socket.socket, answers: Sequence[dict[str, object]]) -> None:
    """Be a keeper that gives these answers, a descriptor with each."""
    sock, _ = listener.accept()
    with sock:
        for answer in answers:
            message.send(sock, answer, [0])
