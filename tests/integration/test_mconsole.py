"""The console library against a real kernel: every command, long answers, a hung guest, notifications.

The simulated guest passes the same tests, and answers as the real one, datagram for datagram.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.peers.minimal_guest import READY, MinimalGuest, minimal_guest
from support.console_requests import EXACT, MALFORMED, NUMBERS, SHAPES, ask, request, shape, without_numbers
from support.deadline import scaled, wait_until
from umlab.cli.console_verb import PROC_FILES
from umlab.client.console import find_console
from umlab.daemon import vitals
from umlab.daemon.kernel import Kernel
from umlab.errors import MconsoleError, MconsoleTimeout, MconsoleUnreachable
from umlab.guest.process import HALT_STATUSES
from umlab.mconsole import command as commands
from umlab.mconsole import reading
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.command import proc
from umlab.mconsole.endpoint import open_console
from umlab.mconsole.fleet import AsyncFleet, Fleet
from umlab.mconsole.notify import NotifySocket
from umlab.mconsole.session import Answer, MconsoleSession
from umlab.mconsole.sync import Mconsole
from umlab.testing import SimulatedGuests
from umlab.wire import mconsole as wire

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

Call = Callable[..., Any]


MOUNTS = 60
LONG_NAME = "a-file-system-with-a-name-that-makes-proc-mounts-an-answer-of-over-twenty-fragments-" + "x" * 120
MOUNT_LOOP = f"i=0; while [ $i -lt {MOUNTS} ]; do mount -t tmpfs {LONG_NAME}-$i /tmp; i=$((i+1)); done"


@dataclass
class Peer:
    """A guest, real or simulated.

    Attributes:
        umid: Its name.
        socket: Its console.
        uml_dir: Where its run directory is; tests may make files there.
        log: Returns what its kernel has logged.
        pause: Makes it deaf until ``resume``.
        resume: Lets it hear again.
    """

    umid: str
    socket: Path
    uml_dir: Path
    log: Callable[[], bytes]
    pause: Callable[[], None]
    resume: Callable[[], None]


@pytest.fixture(scope="module")
def real() -> Iterator[Peer]:
    with minimal_guest("lib1", extra=MOUNT_LOOP) as guest:
        log = guest.log.read_bytes
        yield Peer(guest.umid, guest.socket, guest.uml_dir, log, guest.pause, guest.resume)


@pytest.fixture(scope="module")
def simulated(real: Peer) -> Iterator[Peer]:
    """Run a guest that says that it has the real one's kernel, whichever Debian has installed."""
    version = Mconsole(str(real.socket)).version().removesuffix(" x86_64").split(" ", 3)
    with tempfile.TemporaryDirectory(prefix="uml") as folder, SimulatedGuests(folder) as guests:
        guest = guests.add("sim1", release=version[2])
        guest.kernel.facts.build = version[3]
        guest.kernel.files["version"] = Mconsole(str(real.socket)).proc("version")
        guest.kernel.files["mounts"] = "".join(
            f"{LONG_NAME}-{at} /tmp tmpfs rw 0 0\n" for at in range(MOUNTS)
        )

        def log() -> bytes:
            return "\n".join(guest.kernel.log).encode()

        yield Peer(guest.umid, guest.path, Path(folder), log, guest.pause, guest.resume)


@pytest.fixture(scope="module", params=["real", "simulated"])
def guest(request: pytest.FixtureRequest) -> Peer:
    peer: Peer = request.getfixturevalue(request.param)
    return peer


def _blocking(guest: Peer) -> Call:
    client = Mconsole(str(guest.socket), guest.umid)
    return lambda method, *args: getattr(client, method)(*args)


def _asyncio(guest: Peer) -> Call:
    async def call(method: str, args: tuple[object, ...]) -> Any:
        return await getattr(AsyncMconsole(str(guest.socket), guest.umid), method)(*args)

    return lambda method, *args: asyncio.run(call(method, args))


@pytest.fixture(params=[_blocking, _asyncio], ids=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, guest: Peer) -> Call:
    made: Call = request.param(guest)
    return made


def test_version_names_the_kernel(call: Call) -> None:
    assert call("version").startswith("Linux (none) ")
    assert call("version").endswith(" x86_64")


def test_help_of_two_fragments_is_whole(call: Call) -> None:
    text = call("help")
    assert text.startswith("Commands:")
    assert "stack <pid>" in text
    assert len(text) > wire.MAX_FRAGMENT


def test_stopped_guest_answers_and_goes_on(call: Call) -> None:
    assert call("stop") == "stopped"
    with pytest.raises(MconsoleError, match="Already stopped"):
        call("stop")
    assert call("version").startswith("Linux")
    assert call("go") == ""
    with pytest.raises(MconsoleError, match="Not stopped"):
        call("go")


async def test_console_of_the_command_line_sees_how_it_is(guest: Peer) -> None:
    console = find_console(str(guest.socket))
    assert (await console.vitals()).state == "answers"
    await console.run(commands.stop())
    stopped = await console.vitals()
    await console.run(commands.go())
    assert (stopped.state, stopped.load is None) == ("stopped", False)
    vitals = await console.vitals()
    assert (vitals.state, vitals.load is None) == ("answers", False)
    assert f" {vitals.release} " in await console.run(commands.version())


def test_every_file_that_is_completed_is_served(real: Peer) -> None:
    client = Mconsole(str(real.socket))
    texts = {name: client.proc(name) for name in PROC_FILES}
    assert texts["version"].startswith("Linux version ")


def test_kernel_is_read_as_values(call: Call) -> None:
    version: reading.Version = call("read", reading.VERSION)
    assert (version.system, version.nodename, version.machine) == ("Linux", "(none)", "x86_64")
    assert version.release in call("proc", "version")
    assert version.build in call("proc", "version")
    cpu: reading.CpuTime = call("read", reading.CPU_TIME)
    uptime: reading.Uptime = call("read", reading.UPTIME)
    assert cpu.busy >= 0
    assert 0 < cpu.busy + cpu.idle <= uptime.seconds + 1
    load: reading.LoadAverage = call("read", reading.LOAD_AVERAGE)
    assert 0 <= load.running <= load.tasks
    memory: reading.Memory = call("read", reading.MEMORY)
    assert 64 << 20 < memory.free < memory.total < 128 << 20
    assert memory.swap_total == 0
    interrupts: reading.Interrupts = call("read", reading.INTERRUPTS)
    (own,) = [line for line in interrupts.lines if line.source == "SIGIO mconsole"]
    assert 0 < own.count < interrupts.total


def test_devices_are_read_as_values(call: Call, guest: Peer) -> None:
    disk, cow = guest.uml_dir / "below", guest.uml_dir / f"cow-{time.monotonic_ns()}"
    disk.write_bytes(bytes(8192))
    assert call("read", reading.setting("ubd5")) is None
    assert call("config_set", "ubd5", f"{cow},{disk}") == ""
    assert call("read", reading.setting("ubd5")) == reading.DiskSetting("ubd5", str(cow), str(disk))
    assert call("remove", "ubd5") == ""
    assert call("config_set", "con3", "pts") == ""
    assert call("read", reading.setting("con3")) == reading.LineSetting("con3", "pts", None)
    assert call("remove", "con3") == ""
    assert call("read", reading.setting("con3")) is None
    # Not how much memory there is: a bug of the kernel.
    assert call("read", reading.setting("mem")) == reading.MemorySetting("mem", 0x60000000)


def test_disk_is_plugged_shown_and_unplugged(call: Call, guest: Peer) -> None:
    disk = guest.uml_dir / "disk"
    disk.write_bytes(bytes(8192))
    assert call("config_set", "ubd3", str(disk)) == ""
    with pytest.raises(MconsoleError) as caught:
        call("config_set", "ubd3", str(disk))
    assert (caught.value.err, caught.value.output) == (-16, "Device is already configured")
    assert call("config_get", "ubd3") == str(disk)
    assert call("remove", "ubd3") == ""
    assert call("config_get", "ubd3") == ""


def test_vector_device_takes_its_own_sign(call: Call, guest: Peer) -> None:
    """With "=" the vector driver says that it expected a colon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as switch:
        path = guest.uml_dir / "bess"
        switch.bind(str(path))
        switch.listen()
        try:
            assert call("config_set", "vec0", f"transport=bess,dst={path}") == ""
            assert call("remove", "vec0") == ""
        finally:
            path.unlink()


def test_missing_device_has_its_error_number(call: Call) -> None:
    with pytest.raises(MconsoleError) as caught:
        call("remove", "eth7")
    assert caught.value.err == -19


def test_log_reaches_the_kernel_log(call: Call, guest: Peer) -> None:
    text = f"logged at {time.monotonic_ns()}"
    assert call("log", text) == ""
    wait_until(lambda: text.encode() in guest.log(), 10, "text in the guest's log")


def test_proc_returns_the_file_as_it_is(call: Call) -> None:
    assert call("proc", "version").startswith("Linux version ")
    assert call("proc", "version").endswith("\n")
    assert all(float(seconds) > 0 for seconds in call("proc", "uptime").split())
    with pytest.raises(MconsoleError, match="Failed to open file"):
        call("proc", "nosuch")


def test_sysrq_and_stack_arrive_whole(call: Call) -> None:
    call("sysrq", "8")
    memory = call("sysrq", "m").splitlines()
    assert memory[0] == "sysrq: Show Memory"
    assert len(memory) > 11, memory
    assert memory[-1].endswith("pages reserved")
    # A 6.1 kernel gives a trace up now and then, and says so.
    assert call("stack", 1).startswith(("Stack:", "Received SIGSEGV in SIGSEGV handler"))


async def test_level_of_the_console_is_what_it_was(guest: Peer) -> None:
    """However many press keys at once, and whoever of them leaves before he has his answer."""
    kernel = Kernel(str(guest.socket), guest.umid)
    await kernel.sysrq("4")
    assert "Mem-Info" not in await kernel.run(commands.sysrq("m"))
    callers = [asyncio.create_task(kernel.sysrq("m")) for _ in range(12)]
    await asyncio.sleep(0)
    for leaving in callers[::3]:
        leaving.cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(each, str) and "Mem-Info" in each for each in answers] == 4 * [False, True, True]
    with pytest.raises(MconsoleError, match="Couldn't find that pid"):
        await kernel.stack(4_000_000)
    assert (await kernel.run(proc("sys/kernel/printk"))).split()[0] == "4"
    await kernel.sysrq("7")


async def test_deaf_guest_is_silent_and_then_answers(guest: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "MAX_AGE", 0.0)
    kernel = Kernel(str(guest.socket), guest.umid)
    before = await kernel.vitals()
    assert (before.state, before.load is None, before.cpu is None) == ("answers", False, False)
    assert f" {before.release} " in await kernel.run(commands.version())
    guest.pause()
    try:
        during = await kernel.vitals()
        monkeypatch.setattr(vitals, "SILENT_AFTER", 0.0)
        began = time.monotonic()
        assert {(await kernel.vitals()).state for _ in range(20)} == {"silent"}
        assert time.monotonic() - began < scaled(1)
        monkeypatch.undo()
        monkeypatch.setattr(vitals, "MAX_AGE", 0.0)
    finally:
        guest.resume()
    # Nobody knows yet that it is more than slow.
    assert (during.state, during.uptime) == ("answers", before.uptime)
    assert (during.age or 0) >= vitals.PATIENCE
    async with asyncio.timeout(scaled(20)):
        while (after := await kernel.vitals()).state != "answers":
            pass
    assert (after.uptime or 0) >= (before.uptime or 0)
    await kernel.close()


def test_long_proc_file_is_whole(call: Call) -> None:
    names = [line.split()[0] for line in call("proc", "mounts").splitlines()]
    assert names[-MOUNTS:] == [f"{LONG_NAME}-{at}" for at in range(MOUNTS)]


@pytest.mark.parametrize("text", [b"proc mounts", b"sysrq m"])
def test_slow_reader_of_a_connected_socket_loses_nothing(guest: Peer, text: bytes) -> None:
    """Into a socket that is not connected, the guest can leave only eleven datagrams unread."""
    Mconsole(str(guest.socket)).sysrq("8")
    with contextlib.closing(open_console(str(guest.socket), guest.umid, "")) as slow:
        slow.settimeout(scaled(20))
        session = MconsoleSession()
        session.request(text, 0, 1)
        (request,) = session.data_to_send()
        slow.send(request)
        # The guest serves requests one after another: with this answer, all of the other is on its way.
        assert Mconsole(str(guest.socket)).proc("version").startswith("Linux")
        fragments = 0
        while (event := session.next_event()) is None:
            session.receive_datagram(slow.recv(4096), 0)
            fragments += 1
    assert fragments > 11
    assert isinstance(event, Answer)
    assert event.err == 0


async def test_many_tasks_share_a_guest_in_order(guest: Peer) -> None:
    client = AsyncMconsole(str(guest.socket), guest.umid)
    marks = [f"mark {time.monotonic_ns()} {at}" for at in range(20)]
    asked = [client.log(mark) for mark in marks]
    answers = await asyncio.gather(*asked, *(client.proc("zoneinfo") for _ in range(3)))
    assert answers[:20] == [""] * 20
    assert all("Node 0" in answer for answer in answers[20:])
    log = guest.log()
    places = [log.index(mark.encode()) for mark in marks]
    assert places == sorted(places)


def test_hung_guest_is_given_up_and_answers_later(call: Call, guest: Peer) -> None:
    guest.pause()
    try:
        with pytest.raises(MconsoleTimeout, match="did not answer 'version' in time"):
            call("raw", "version", 0.3)
    finally:
        guest.resume()
    assert call("help").startswith("Commands:")


Answers = list[tuple[str, list[bytes]]]


def _answers(guest: Peer, texts: list[str], disk: Path) -> Answers:
    nowhere = disk.with_name("nowhere")
    ask(guest.socket, request(b"sysrq 7"))
    asked = [text.replace("{disk}", str(disk)).replace("{nowhere}", str(nowhere)) for text in texts]
    answers = [(text, ask(guest.socket, request(text.encode()))) for text in asked]
    Path(f"{nowhere}-cow").unlink(missing_ok=True)
    return answers


def _differences(
    texts: list[str], real: Peer, simulated: Peer, view: Callable[[list[bytes]], object]
) -> Answers:
    disk = real.uml_dir / "disk"
    disk.write_bytes(bytes(8192))
    both = zip(_answers(real, texts, disk), _answers(simulated, texts, disk), strict=True)
    return [pair for pair in both if view(pair[0][1]) != view(pair[1][1])]


def test_simulated_guest_answers_byte_for_byte(real: Peer, simulated: Peer) -> None:
    assert _differences(EXACT, real, simulated, list) == []


def test_simulated_guest_answers_but_for_the_numbers(real: Peer, simulated: Peer) -> None:
    assert _differences(NUMBERS, real, simulated, without_numbers) == []


def test_simulated_guest_cuts_long_answers_in_the_same_way(real: Peer, simulated: Peer) -> None:
    assert _differences(SHAPES, real, simulated, shape) == []


def test_simulated_guest_takes_malformed_requests_in_the_same_way(real: Peer, simulated: Peer) -> None:
    for name, (data, count) in MALFORMED.items():
        assert ask(simulated.socket, data, count) == ask(real.socket, data, count), name


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_fleet_has_an_outcome_for_each_guest(kind: str, guest: Peer) -> None:
    paths = {"ours": str(guest.socket), "none": str(guest.socket.with_name("none"))}
    if kind == "blocking":
        outcomes = Fleet({umid: Mconsole(path, umid) for umid, path in paths.items()}).run(proc("mounts"))
    else:
        consoles = {umid: AsyncMconsole(path, umid) for umid, path in paths.items()}
        outcomes = asyncio.run(AsyncFleet(consoles).run(proc("mounts")))
    assert list(outcomes) == ["ours", "none"]
    assert outcomes["ours"].output == Mconsole(paths["ours"]).proc("mounts")
    assert isinstance(outcomes["none"].error, MconsoleUnreachable)


def test_ended_guest_is_unreachable_and_its_notifications_came() -> None:
    with tempfile.TemporaryDirectory(prefix="uml") as folder, NotifySocket(f"{folder}/n") as receiver:
        init = "printf 'hello from inside' >/proc/mconsole"
        with minimal_guest("lib2", f"mconsole=notify:{folder}/n", extra=init) as guest:
            client = Mconsole(str(guest.socket), guest.umid)
            socket_path = str(guest.socket).encode()
            expected = [
                wire.Notification(wire.SOCKET, socket_path),
                wire.Notification(wire.USER, b"hello from inside"),
            ]
            assert [_next(receiver) for _ in expected] == expected
            _reboot(client, guest)
            assert [_next(receiver) for _ in expected] == expected
            assert client.halt() == ""
            assert guest.wait_gone() in HALT_STATUSES
            with pytest.raises(MconsoleUnreachable, match=r"guest lib2 does not run"):
                client.version()


def test_panicking_guest_says_so() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="uml") as folder,
        NotifySocket(f"{folder}/n") as receiver,
        minimal_guest("lib3", f"mconsole=notify:{folder}/n") as guest,
    ):
        assert _next(receiver).kind == wire.SOCKET
        with pytest.raises(MconsoleUnreachable, match="guest lib3 does not run") as caught:
            Mconsole(str(guest.socket), guest.umid).sysrq("c")
        assert "Trigger a crash" in (caught.value.said or "")
        assert _next(receiver) == wire.Notification(wire.PANIC, b"sysrq triggered crash")


def _next(receiver: NotifySocket) -> wire.Notification:
    assert select.select([receiver], [], [], scaled(20))[0], "no notification"
    notification = receiver.receive()
    assert notification is not None
    return notification


def _reboot(client: Mconsole, guest: MinimalGuest) -> None:
    before = guest.log.read_bytes().count(READY)
    assert client.reboot() == ""
    wait_until(lambda: guest.log.read_bytes().count(READY) > before, 30, "guest has restarted")
    assert guest.process.poll() is None
    assert client.version().startswith("Linux")
