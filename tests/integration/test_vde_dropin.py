"""Both ``vde_switch`` programs in the same scenes, and ours with VDE's own clients of its console."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, frame, mac
from integration.peers.record_vde_switch import OURS, RECORDED
from integration.peers.uml_switch import UmlSwitch
from integration.peers.vde_program import meet, vde_plug
from integration.peers.vde_switch import PROMPT, VdeClient, VdeConsole, program_path, vde_switch
from integration.peers.vde_switch_scenarios import SCENARIOS
from integration.peers.vde_switch_scene import play
from support.deadline import scaled, wait_until_async
from support.require import require_program
from support.uml_switch_differences import differing_parts, listed_differences

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

DIFFERENCES = listed_differences("vde_switch")
SCENES = [
    pytest.param(name, marks=[pytest.mark.needs_root] if scenario.needs_root else [])
    for name, scenario in SCENARIOS.items()
]
MACHINE = "/etc/vde2/vdecmd"


@pytest.mark.parametrize("name", SCENES)
async def test_original_does_what_was_recorded(name: str) -> None:
    assert await play("original", SCENARIOS[name]) == (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", SCENES)
async def test_ours_does_the_same_or_what_is_listed(name: str) -> None:
    recorded = (OURS if name in DIFFERENCES else RECORDED) / f"{name}.txt"
    assert await play("ours", SCENARIOS[name]) == recorded.read_text()


def test_list_says_in_what_each_scene_differs() -> None:
    for name in SCENARIOS:
        original, ours = RECORDED / f"{name}.txt", OURS / f"{name}.txt"
        differing = differing_parts(original.read_text(), ours.read_text()) if ours.exists() else set()
        assert differing == DIFFERENCES.get(name, set()), name


def test_list_and_recordings_name_only_scenes_that_exist() -> None:
    assert SCENARIOS.keys() >= DIFFERENCES.keys()
    assert SCENARIOS.keys() == {path.stem for path in RECORDED.glob("*.txt")}
    assert DIFFERENCES.keys() == {path.stem for path in OURS.glob("*.txt")}


@pytest.fixture(params=["original", "ours"])
async def switch(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[UmlSwitch]:
    """Run each program with a console ``m`` and one client."""
    ready = [short_dir / "s/ctl", short_dir / "m"]
    async with vde_switch(request.param, ["-s", "s", "-M", "m"], cwd=short_dir, ready=ready) as running:
        with VdeClient(short_dir / "s", "client") as client:
            assert client.ask(3, b"a client").startswith(b"003.")
            yield running


async def test_vde_plugs_attach_and_talk(switch: UmlSwitch, short_dir: Path) -> None:
    directory = short_dir / "s"
    async with vde_plug(directory, "--descr", "left") as left, vde_plug(f"vde://{directory}[7]") as right:
        console = VdeConsole(short_dir / "m")
        try:
            for port_no, plug in ((1, left), (7, right)):
                # Two programs start, and ask in any order.
                await wait_until_async(
                    lambda number=port_no: f"Port {number:04d}" in console.say("port/print"),
                    15,
                    "it attached",
                )
                assert f" pid={plug.process.pid}\n" in console.say(f"port/print {port_no}")
        finally:
            console.close()
        await meet(left, right)


async def output(*words: str, stdin: bytes = b"") -> str:
    """Run a program with its standard input in one piece, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        require_program(words[0]),
        *words[1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(scaled(20)):
        text, _ = await process.communicate(stdin)
    return text.decode()


async def test_unixcmd_is_answered(switch: UmlSwitch, short_dir: Path) -> None:
    require_program("unixcmd")
    text = await output("unixcmd", "-s", str(short_dir / "m"), "-f", MACHINE, "port/print")
    # It puts a NUL behind each line.
    words = " ".join(text.replace("\0", "").split())
    assert "Port 0003 untagged_vlan=0000 ACTIVE - Unnamed Allocatable" in words
    assert words.endswith("module unix prog : a client")


async def test_unixterm_is_answered(switch: UmlSwitch, short_dir: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        require_program("unixterm"),
        str(short_dir / "m"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(scaled(20)):
            greeting = await process.stdout.readuntil(PROMPT)
            assert greeting.startswith(b"VDE switch V.2.3.2\n(")
            process.stdin.write(b"port/showinfo\n")
            reply = await process.stdout.readuntil(PROMPT)
            assert reply == (
                b"0000 DATA END WITH '.'\nNumports=32\nHUB=false\ncounters=true\n.\n1000 Success\n" + PROMPT
            )
            process.stdin.write(b"logout\n")
            # It may leave before it shows the last words.
            assert await process.stdout.read() in (b"", b"9999 END OF SESSION")
            await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.stdin.close()
        await process.wait()


async def test_vdeterm_completes_and_is_answered(switch: UmlSwitch, short_dir: Path) -> None:
    """It reads the help first, for what the tabulator completes; it shows a reply without its frame."""
    program = require_program("vdeterm")
    terminal, other = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        program, str(short_dir / "m"), stdin=other, stdout=other, stderr=other, start_new_session=True
    )
    os.close(other)
    seen = b""

    async def read_until(text: bytes) -> None:
        nonlocal seen

        def there() -> bool:
            nonlocal seen
            if select.select([terminal], [], [], 0)[0]:
                seen += os.read(terminal, 4096)
            return text in seen

        try:
            await wait_until_async(there, 15, f"{text!r} on the terminal")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {seen!r}") from None
        seen = b""

    try:
        await read_until(b"/m]: ")
        os.write(terminal, b"hash/pr\t")
        await read_until(b"hash/print")
        os.write(terminal, b"\n")
        await read_until(b"Success")
        os.write(terminal, b"ds/showinfo\n")
        await read_until(b"std mode 0600\r")
        os.write(terminal, b"nonsense\n")
        await read_until(b"Function not implemented")
        os.write(terminal, b"logout\n")
        async with asyncio.timeout(scaled(15)):
            await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(terminal)


async def test_background_switch_is_there_when_the_caller_returns(short_dir: Path) -> None:
    words = [str(program_path("ours")), "-s", "s", "-M", "m", "-d", "-p", "pid"]
    done = subprocess.run(words, cwd=short_dir, capture_output=True, text=True, timeout=scaled(20))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((short_dir / "pid").read_text())
    handle = os.pidfd_open(pid)
    try:
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1] == [*map(os.fsencode, words)]
        console = VdeConsole(short_dir / "m")
        assert f"ctl dir {short_dir / 's'}\n" in console.say("ds/showinfo")
        with VdeClient(short_dir / "s", "one") as first, FakeGuest(short_dir / "s/ctl") as second:
            assert first.ask().startswith(b"001.")
            second.attach()
            first.send(frame(BROADCAST, mac(1)))
            assert second.receive() == frame(BROADCAST, mac(1))
        assert console.say("shutdown") == "9999 END OF SESSION<end>"
        console.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        assert select.select([handle], [], [], scaled(10))[0], "it did not end"
        os.close(handle)
    assert list(short_dir.iterdir()) == []


def test_background_switch_that_cannot_start_fails_the_caller(short_dir: Path) -> None:
    words = [str(program_path("ours")), "-s", "none/s", "-d"]
    done = subprocess.run(words, cwd=short_dir, capture_output=True, text=True, timeout=scaled(20))
    assert done.returncode == 255
    assert "none/s: No such file or directory" in done.stderr


async def test_console_of_a_running_switch_is_not_taken(short_dir: Path) -> None:
    ready = [short_dir / "m"]
    async with vde_switch("ours", ["-s", "s", "-M", "m"], cwd=short_dir, ready=ready):
        async with vde_switch("ours", ["-s", "t", "-M", "m"], cwd=short_dir) as second:
            assert await second.wait() == 1
        assert re.search("in use|another", second.stderr[0]), second.stderr
        console = VdeConsole(short_dir / "m")
        assert console.say("port/print").endswith("1000 Success\n")
        console.close()
    assert list(short_dir.iterdir()) == []


async def test_hangup_is_ignored(short_dir: Path) -> None:
    async with vde_switch("ours", ["-s", "s", "-M", "m"], cwd=short_dir, ready=[short_dir / "m"]) as switch:
        switch.signal(signal.SIGHUP)
        console = VdeConsole(short_dir / "m")
        assert console.say("hash/print").endswith("1000 Success\n")
        console.close()
        assert switch.process.returncode is None


async def test_console_that_does_not_read_harms_nobody(short_dir: Path) -> None:
    async with vde_switch("ours", ["-s", "s", "-M", "m"], cwd=short_dir, ready=[short_dir / "m"]) as switch:
        with contextlib.ExitStack() as open_ones:
            deaf = VdeConsole(short_dir / "m")
            open_ones.callback(deaf.close)
            deaf.stream.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    deaf.stream.send(b"help\n")
            # It is open, so it counts; the rest are ours.
            others = [VdeConsole(short_dir / "m") for _ in range(31)]
            for other in others:
                open_ones.callback(other.close)
            assert others[-1].say("port/print").endswith("1000 Success\n")
            with socket.socket(socket.AF_UNIX) as refused:
                refused.settimeout(scaled(10))
                refused.connect(str(short_dir / "m"))
                assert refused.recv(100) == b""
            with FakeGuest(short_dir / "s/ctl") as first, FakeGuest(short_dir / "s/ctl") as second:
                first.attach()
                second.attach()
                first.send(frame(BROADCAST, mac(1)))
                assert second.receive() == frame(BROADCAST, mac(1))
            # One that dies with a reply unread, too.
            linger = struct.pack("=ii", 1, 0)
            others[0].stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            others[0].stream.sendall(b"help\n")
            others[0].close()
            assert others[1].say("hash/print").endswith("1000 Success\n")
        assert not any("Traceback" in line for line in switch.stderr)
