"""The keeper as a process, with shells in the place of kernels."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.process import is_gone
from support.real_keeper import RealKeeper, shell, start
from umlab.daemon.switch import raise_descriptor_limit
from umlab.errors import LabError
from umlab.guest.group import Order
from umlab.guest.watch import group_members
from umlab.keeper import link as link_module
from umlab.keeper import message
from umlab.keeper.link import KeeperLink
from umlab.keeper.message import MAX_MESSAGE
from umlab.keeper.start import start_keeper

LONG = scaled(20)
#: Prints, keeps a child, and both ignore what can be ignored.
FAMILY = "trap '' TERM; (trap '' TERM; while :; do sleep 60; done) & echo up; while :; do sleep 60; done"


def pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open as many descriptors as it may, as a daemon does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def has_ended(reader: int) -> bool:
    """Say whether nobody has a pipe's writing end any more."""
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False


class TestThings:
    async def test_next_daemon_is_given_what_the_last_one_has_put(self, keeper: RealKeeper) -> None:
        reader, writer = pipe()
        link = keeper.connect()
        link.put("x/1", {"a": [1, "\udc80"]}, [writer, reader])
        link.put("x/2", {}, [])
        link.close()
        os.close(writer)
        second = keeper.connect()
        assert {name: (thing.meta, len(thing.fds)) for name, thing in second.things.items()} == {
            "x/1": ({"a": [1, "\udc80"]}, 2),
            "x/2": ({}, 0),
        }
        os.write(second.things["x/1"].fds[0], b"through")
        assert os.read(reader, 10) == b"through"
        assert not any(os.get_inheritable(fd) for fd in second.things["x/1"].fds)
        os.close(reader)

    @pytest.mark.parametrize("change", ["drop", "put", "end"])
    async def test_descriptors_are_closed_with_their_thing(self, keeper: RealKeeper, change: str) -> None:
        reader, writer = pipe()
        link = keeper.connect()
        link.put("x", {}, [writer])
        os.close(writer)
        link.drop("never there")
        assert not has_ended(reader)
        match change:
            case "drop":
                link.drop("x")
            case "put":
                link.put("x", {}, [reader])
            case "end":
                await link.end()
        await wait_until_async(lambda: has_ended(reader), 10, "the end of the pipe")
        os.close(reader)

    async def test_thing_of_the_largest_size_comes_back_and_a_larger_one_is_refused(
        self, keeper: RealKeeper
    ) -> None:
        link = keeper.connect()
        room = MAX_MESSAGE - len(json.dumps({"do": "put", "name": "x", "meta": ""}, separators=(",", ":")))
        link.put("x", "m" * room, [])  # type: ignore[arg-type]
        with pytest.raises(LabError, match="131073 bytes and 0 descriptors"):
            link.put("x", "m" * (room + 1), [])  # type: ignore[arg-type]
        with pytest.raises(LabError, match="254 descriptors"):
            link.put("x", {}, [0] * 254)
        link.close()
        meta: Any = keeper.connect().things["x"].meta
        assert meta == "m" * room

    async def test_more_than_a_thousand_descriptors_come_back(
        self, keeper: RealKeeper, many_descriptors: None
    ) -> None:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        link = keeper.connect()
        for number in range(12):
            link.put(f"x/{number}", {}, [fd] * 100)
        link.close()
        os.close(fd)
        again = keeper.connect()
        assert sum(len(thing.fds) for thing in again.things.values()) == 1200


class TestGroups:
    async def test_group_has_its_output_and_files_and_its_end_is_told(self, keeper: RealKeeper) -> None:
        reader, writer = pipe()
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        link = keeper.connect()
        group = await start(
            link, script="cat <&3; exit 7", on_end=ended.set_result, files=(theirs,), output=writer
        )
        os.close(theirs)
        os.close(writer)
        assert os.getsid(group.pid) == os.getpgid(group.pid) == group.pid
        assert not await group.gone(0.01)
        os.write(ours, b"text")
        os.close(ours)
        assert await asyncio.wait_for(ended, LONG) == 7
        assert await group.gone(LONG)
        assert os.read(reader, 10) == b"text"
        os.close(reader)
        # The name is free once the end has been taken note of, not before.
        with pytest.raises(OSError, match="it runs already"):
            await start(link)
        group.forget()
        assert (await start(link)).pid != group.pid

    async def test_signal_is_for_the_main_process_and_kill_for_all(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        reader, writer = pipe()
        group = await start(link, script=FAMILY, output=writer)
        os.close(writer)
        await wait_until_async(lambda: _read(reader) == b"up\n", 10, "the family")
        group.signal(signal.SIGTERM)
        group.signal(signal.SIGSTOP)
        await wait_until_async(lambda: _state(group.pid) == "T", 10, "the stop of the main process")
        assert len(group_members(group.pid)) > 1
        group.kill()
        assert await group.gone(LONG)
        assert group.ended.result() == -signal.SIGKILL
        assert group_members(group.pid) == []
        # Too late, which is no error.
        group.signal(signal.SIGTERM)
        group.kill()
        assert (await start(link, "other")).pid
        os.close(reader)

    async def test_orphans_of_a_group_are_reaped(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        group = await start(link, script="for i in 1 2 3; do (sleep 60 & sleep 60 &); done; exit 0")
        assert await group.gone(LONG)
        await wait_until_async(lambda: keeper.children() == {}, 10, "the keeper without children")

    @pytest.mark.parametrize(
        ("order", "reason"),
        [
            (shell("x\0y"), "null byte"),
            (shell("\ud800"), "encode"),
            (shell("x" * MAX_MESSAGE), "for the keeper"),
            (Order(shell("").words, "/no/such/place", {}), "No such file"),
        ],
    )
    async def test_what_cannot_be_started_is_an_error_and_the_keeper_goes_on(
        self, keeper: RealKeeper, order: Any, reason: str
    ) -> None:
        reader, writer = pipe()
        link = keeper.connect()
        with pytest.raises(OSError, match=reason):
            await link.start("g", order, writer, (writer,), lambda _: None)
        os.close(writer)
        await wait_until_async(lambda: has_ended(reader), 10, "the descriptors to be closed")
        os.close(reader)
        assert (await start(link)).pid

    async def test_group_nobody_waits_for_any_more_is_ended(self, keeper: RealKeeper) -> None:
        reader, writer = pipe()
        link = keeper.connect()
        keeper.signal(signal.SIGSTOP)
        asking = asyncio.ensure_future(start(link, output=writer))
        await asyncio.sleep(0)
        os.close(writer)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not has_ended(reader)
        keeper.signal(signal.SIGCONT)
        await wait_until_async(lambda: has_ended(reader), 10, "the end of the group")
        os.close(reader)
        await wait_until_async(lambda: "g" not in link.groups, 10, "the name to be free")
        await start(link)

    async def test_twenty_groups_need_little_memory(self, keeper: RealKeeper) -> None:
        link = keeper.connect()
        for number in range(20):
            await start(link, f"g{number}", "exec sleep 60")
        status = Path(f"/proc/{keeper.pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0])
        assert resident < 15 * 1024, f"{resident} KiB"


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
        # What it is told of its group's end stays unread.
        os.killpg(group.pid, signal.SIGKILL)
        await wait_until_async(lambda: keeper.children() == {}, 10, "the keeper to have seen it")
        unread = link._sock
        await wait_until_async(lambda: bool(select.select([unread], [], [], 0)[0]), 10, "the message")
        keeper.signal(signal.SIGSTOP)
        for number in range(5):
            link.put(f"x{number}", {}, [])
        link.close()
        keeper.signal(signal.SIGCONT)
        again = await _connected(keeper)
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
        again = await _connected(keeper)
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
        again = await _connected(keeper)
        assert again.groups["g"].pid == pid
        assert again.things == {}


@pytest.mark.parametrize(
    ("program", "reason"), [("/no/such/python", "No such file"), ("/bin/false", "ended with status 1")]
)
def test_keeper_that_cannot_be_started_is_an_error(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        pytest.raises(LabError, match=reason),
    ):
        start_keeper(listener, "path", lock=0, log=2)


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 100)
    except BlockingIOError:
        return b""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


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


async def _connected(keeper: RealKeeper) -> KeeperLink:
    """Connect to a keeper that has still to see that its last daemon went."""
    found: list[KeeperLink] = []

    def connect() -> bool:
        with contextlib.suppress(BlockingIOError):
            found.append(keeper.connect())
        return bool(found)

    await wait_until_async(connect, 10, "the keeper to serve")
    return found[0]
