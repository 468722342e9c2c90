"""The console's commands on a switch, and who gets which port."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from support.guest_end import BROADCAST, frame, mac
from support.require import ROOT as TREE
from umlab.compat._vde_console import NOT_SERVED, Console, End, Setting, power_of_two
from umlab.compat._vde_ports import Port, VdeSwitch
from umlab.compat._vde_sessions import ConsoleSessions
from umlab.errors import SwitchError
from umlab.switch.model import SECOND_NS, Framing, Link, SwitchConfig
from umlab.transports.contract import Peer, Session, nothing_to_close
from umlab.transports.socketfile import SocketFile
from umlab.wire.vde_console import PROMPT

ROOT = Peer(1, 0, 0, None)
NOBODY = Peer(2, 65_534, 65_534, None)
#: Somebody who is neither root nor, wherever tests run, ourselves.
STRANGER = Peer(3, 12_345, 12_345, None, groups=(54_321,))


class Net:
    """A switch of seven ports, its console, and clients that the test plugs in."""

    def __init__(self) -> None:
        self.switch = VdeSwitch(SwitchConfig(ageing_time_ns=100 * SECOND_NS), [], 8)
        self.console = Console(self.switch, Setting("/net", 0o660, b"\0\xff\0\0\0\1", "/console", 0o600, 128))
        self.ends: list[socket.socket] = []

    def plug(self, wanted: int | None = None, peer: Peer | None = ROOT, detail: str = "client") -> int:
        """Attach a client and return its port's number."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.ends.append(theirs)
        session = Session(
            "vde",
            Link(ours.fileno(), Framing.DATAGRAM),
            peer,
            detail,
            nothing_to_close,
            wanted_port_no=wanted,
        )
        try:
            port_no = self.switch.session_opened(session)
        except SwitchError:
            ours.close()
            raise
        ours.detach()
        return port_no

    def say(self, line: str) -> str:
        """Give a command and return the reply without what frames data."""
        reply = self.console.execute(line).reply.decode()
        return reply.replace("0000 DATA END WITH '.'\n", "").replace(".\n1", "1")

    def code(self, line: str) -> int:
        """Give a command and return its error number."""
        return self.console.execute(line).code


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net()
    await made.switch.start()
    yield made
    await made.switch.stop()
    for end in made.ends:
        end.close()


async def test_ports_are_given_in_order_and_kept_to_the_limit(net: Net) -> None:
    assert [net.plug() for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(SwitchError, match="every port is taken"):
        net.plug()


async def test_wanted_port_is_given_if_it_is_free(net: Net) -> None:
    assert net.plug(5) == 5
    assert net.plug(5) == 1
    for number in (8, 99, 0):
        with pytest.raises(SwitchError, match=f"no port {number}"):
            net.plug(number)


async def test_made_port_is_for_who_asks_for_it(net: Net) -> None:
    assert net.code("port/create 1") == 0
    assert net.plug() == 2
    assert net.plug(1) == 1
    assert "Port 0001 untagged_vlan=0000 ACTIVE - NOT Unnamed Allocatable" in net.say("port/print 1")
    assert net.code("port/remove 1") == 98
    assert net.code("port/epclose 1 1") == 0
    assert net.code("port/remove 1") == 0
    assert net.plug() == 1


async def test_port_is_for_its_user_and_group_and_for_root(net: Net) -> None:
    net.switch.table[2] = Port(uid=NOBODY.uid)
    with pytest.raises(SwitchError, match="port 2 is for another user"):
        net.plug(2, STRANGER)
    assert net.plug(None, STRANGER) == 1
    assert net.plug(None, STRANGER) == 3
    assert net.plug(2, NOBODY) == 2
    net.switch.table[4] = Port(gid=54_321)
    with pytest.raises(SwitchError, match="port 4"):
        net.plug(4, NOBODY)
    assert net.plug(4, STRANGER) == 4
    net.switch.table[5] = Port(uid=NOBODY.uid)
    assert net.plug(5, ROOT) == 5
    assert "Control: (User: NONE - Group: 54321)" in net.say("port/print 4")


async def test_names_of_users_and_groups(net: Net) -> None:
    net.plug(1)
    assert net.code("port/setuser 1 root") == net.code("port/setgroup 1 root") == 0
    assert "(User: root - Group: root)" in net.say("port/print 1")
    assert net.code("port/setuser 1 ANY") == net.code("port/setgroup 1 NONE") == 0
    assert "(User: NONE - Group: NONE)" in net.say("port/print 1")
    assert net.code("port/setuser 1 no-such-user") == net.code("port/setgroup 1 no-such-group") == 22
    assert net.code("port/setuser 3 root") == 6


async def test_counters_are_reset_and_begin_anew_with_a_client(net: Net) -> None:
    net.plug()
    net.plug()
    net.ends[0].send(frame(BROADCAST, mac(1)))
    net.ends[1].settimeout(scaled(10))
    net.ends[1].recv(2000)
    line = "IN:  pkts          1          bytes                   60"
    await wait_until_async(lambda: line in net.say("port/print 1"), 10, "the frame is counted")
    assert net.code("port/resetcounter 2") == 0
    assert line in net.say("port/print 1")
    assert net.code("port/resetcounter") == 0
    assert line not in net.say("port/print 1")
    net.ends[0].send(frame(BROADCAST, mac(1)))
    await wait_until_async(lambda: line in net.say("port/print 1"), 10, "it counts on")
    assert net.code("port/epclose 1 1") == 0
    assert net.plug(1) == 1
    assert "IN:  pkts          0" in net.say("port/print 1")


async def test_addresses_are_shown_and_found(net: Net) -> None:
    assert net.code("hash/find 02:00:00:00:00:01") == 19
    net.plug()
    net.plug()
    net.ends[0].send(frame(BROADCAST, mac(1)))
    line = "Hash: 0000 Addr: 02:00:00:00:00:01 VLAN 0000 to port: 001  age 0 secs\n1000 Success\n"
    await wait_until_async(lambda: net.say("hash/print") == line, 10, "the address is learnt")
    assert net.say("hash/find 2:0:0:0:0:1") == line
    assert net.code("hash/find 02:00:00:00:00:01 5") == 19
    assert net.code("hash/find 02:00:00:00:00") == 22


async def test_settings_reach_the_switch(net: Net) -> None:
    assert net.code("hash/setexpire 7") == 0
    assert net.switch.config.ageing_time_ns == 7 * SECOND_NS
    assert net.code("hash/setexpire 1000001") == net.code("hash/setexpire -1") == 22
    assert net.code("port/sethub 1") == 0
    assert net.switch.config.hub
    assert net.code("port/sethub 0") == 0
    assert not net.switch.config.hub
    assert net.code("hash/setsize 1000") == net.code("hash/setgcint 9") == 0
    assert "Hash size 1024\nGC interval 9 secs\nGC expire 7 secs\n" in net.say("hash/showinfo")


async def test_fewer_ports_only_where_none_is_cut_off(net: Net) -> None:
    net.plug(5)
    assert net.code("port/setnumports 5") == 98
    assert net.code("port/setnumports 6") == 0
    assert net.code("port/setnumports 65537") == net.code("port/setnumports 0") == 22
    assert [net.plug() for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(SwitchError):
        net.plug()
    assert net.code("port/createauto") == 28


async def test_what_is_not_served_says_so_and_what_is_unknown_too(net: Net) -> None:
    assert {net.code(path) for path in NOT_SERVED} == {95}
    assert net.say("hash/setminper 7") == "1095 Operation not supported\n"
    assert net.say("port/pr") == "1038 Function not implemented\n"
    assert net.console.execute("").reply == b""


async def test_help_has_every_command_that_is_served(net: Net) -> None:
    for line in net.say("help").splitlines()[2:-1]:
        path = line.split()[0]
        assert net.code(path) != 95
        assert (net.code(path) == 38) == ("=====" in line), path


async def test_every_command_has_its_line_in_the_reference(net: Net) -> None:
    text = (TREE / "docs" / "reference" / "vde_switch.md").read_text()
    documented = re.findall(
        r"`([a-z]+(?:/[a-z]+)?)[^`]*`", "".join(re.findall(r"^\| `[a-z].*?\|", text, re.M))
    )
    served = [line.split()[0] for line in net.say("help").splitlines()[2:-1] if "=====" not in line]
    assert sorted(documented) == sorted(served)


async def test_ends_are_told(net: Net) -> None:
    assert net.console.execute("logout").end is End.SESSION
    assert net.console.execute("shutdown").end is End.SWITCH
    assert net.console.execute("port/print").end is End.NOTHING


async def test_script_is_executed_and_shown(net: Net, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("# first\nport/create 3\nnonsense\n")
    assert net.say(f"load {script}") == (
        f"vde[{script}]: # first\nvde[{script}]: port/create 3\n1000 Success\n"
        f"vde[{script}]: nonsense\n1038 Function not implemented\n1000 Success\n"
    )
    assert 3 in net.switch.table
    assert [line for line, outcome in net.console.script(str(script)) if outcome.code] == [
        "port/create 3",
        "nonsense",
    ]


async def test_script_may_end_the_switch_and_not_what_follows(net: Net, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("shutdown\nport/create 3\n")
    assert net.console.execute(f"load {script}").end is End.SWITCH
    assert net.switch.table == {}


async def test_scripts_that_are_refused(net: Net, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text(f"load {other}\n")
    other.write_text(f"load {one}\nport/create 3\n")
    assert "1040 Too many levels of symbolic links\n" in net.say(f"load {one}")
    assert 3 in net.switch.table
    # Whoever may use the console may not read the switch's files by it.
    assert net.console.execute(f"load {one}", owner=False).code == 1
    os.mkfifo(tmp_path / "pipe")
    assert net.code(f"load {tmp_path / 'pipe'}") == 22
    assert net.code(f"load {tmp_path}") == 22
    (tmp_path / "long").write_bytes(b"\n" * 70_000)
    assert net.code(f"load {tmp_path / 'long'}") == 27
    assert net.code("load") == 2


async def test_number_of_ten_digits_is_none(net: Net) -> None:
    for line in ("hash/setsize 10000000000", "port/print 4294967297", "hash/setgcint -10000000000"):
        assert net.code(line) == 22
    net.plug(1)
    # More digits than Python would read.
    assert net.code(f"port/allocatable 1 {'1' * 5000}") == net.code(f"port/sethub {'1' * 5000}") == 22


async def test_scripts_are_loaded_to_a_depth_and_to_a_number_of_lines(net: Net, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}").write_text(f"load {tmp_path}/{number + 1}\n")
    (tmp_path / "10").touch()
    assert net.say(f"load {tmp_path}/3").count("1000 Success") == 8
    assert "1040 Too many levels of symbolic links\n" in net.say(f"load {tmp_path}/2")
    # Few files can ask for very many lines.
    (tmp_path / "leaf").write_text("#\n" * 1000)
    (tmp_path / "tree").write_text(f"load {tmp_path}/leaf\n" * 20)
    said = net.say(f"load {tmp_path}/tree")
    assert said.count(f"vde[{tmp_path}/leaf]: #\n") == 9991
    assert said.count("1007 Argument list too long\n") == 2
    assert net.say(f"load {tmp_path}/leaf").count("#\n") == 1000


@pytest.mark.parametrize(("size", "power"), [(1, 1), (2, 2), (3, 4), (128, 128), (129, 256)])
def test_hash_size_is_rounded_up(size: int, power: int) -> None:
    assert power_of_two(size) == power


@pytest.fixture
def console_file(short_dir: Path) -> Iterator[SocketFile]:
    file = SocketFile(short_dir / "m", socket.SOCK_STREAM)
    yield file
    file.close()


async def test_session_is_greeted_answered_and_ended(net: Net, console_file: SocketFile) -> None:
    ended = asyncio.Event()
    sessions = ConsoleSessions(console_file, net.console, ended.set)
    try:
        reader, writer = await asyncio.open_unix_connection(console_file.path)
        async with asyncio.timeout(scaled(20)):
            assert (await reader.readuntil(PROMPT)).startswith(b"VDE switch V.2.3.2\n")
            writer.write(b"port/sethub 1\nport/sethub 0\n")
            assert await reader.readuntil(PROMPT) == b"1000 Success\n" + PROMPT
            assert net.switch.config.hub
            writer.write(b"\n")
            assert await reader.readuntil(PROMPT) == PROMPT
            writer.write(b"shutdown\n")
            assert await reader.read() == b"9999 END OF SESSION"
            await ended.wait()
        writer.close()
        await writer.wait_closed()
        assert sessions.open == set()
    finally:
        sessions.close()


async def test_long_reply_comes_whole_to_a_slow_reader(net: Net, console_file: SocketFile) -> None:
    for port_no in range(1, 8):
        net.switch.table[port_no] = Port()
    assert net.code("port/setnumports 4096") == 0
    for port_no in range(8, 4096):
        net.switch.table[port_no] = Port()
    sessions = ConsoleSessions(console_file, net.console, lambda: None)
    try:
        reader, writer = await asyncio.open_unix_connection(console_file.path, limit=1 << 24)
        async with asyncio.timeout(scaled(30)):
            await reader.readuntil(PROMPT)
            writer.write(b"port/allprint\n")
            reply = await reader.readuntil(PROMPT)
        assert reply.count(b"\n IN:") == 4095
        writer.close()
        await writer.wait_closed()
        await wait_until_async(lambda: not sessions.open, 10, "it is gone")
    finally:
        sessions.close()
