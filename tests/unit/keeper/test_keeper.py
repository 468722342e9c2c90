"""What the keeper holds: descriptors, and groups with shells in the place of kernels."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.real_keeper import FAMILY, RealKeeper, has_ended, pipe, shell, start
from umlab._descriptor_limit import raise_descriptor_limit
from umlab.errors import LabError
from umlab.guest.group import Order
from umlab.guest.watch import group_members
from umlab.keeper.message import MAX_MESSAGE
from umlab.keeper.start import start_keeper

LONG = scaled(20)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open as many descriptors as it may, as a daemon does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


@pytest.mark.needs_root
async def test_another_user_gets_nothing(keeper: RealKeeper, short_dir: Path) -> None:
    """Modes alone kept others out: whoever reached the socket was given every descriptor."""
    short_dir.chmod(0o711)
    keeper.path.chmod(0o777)
    child = os.fork()
    if not child:
        # The status says what it was given: 0 for the end of the connection, 1 for more, 2 for an error.
        status = 2
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(LONG)
                sock.connect(str(keeper.path))
                status = int(sock.recv(1000) != b"")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
