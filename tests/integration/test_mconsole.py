"""The console library against a real kernel: every command, long answers, a hung guest, notifications."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from integration.peers.minimal_guest import READY, MinimalGuest, minimal_guest
from support.deadline import scaled, wait_until
from umlab.errors import MconsoleError, MconsoleTimeout, MconsoleUnreachable
from umlab.guest.process import HALT_STATUSES
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.endpoint import open_console
from umlab.mconsole.notify import NotifySocket
from umlab.mconsole.session import Answer, MconsoleSession
from umlab.mconsole.sync import Mconsole
from umlab.wire import mconsole as wire

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

Call = Callable[..., str]


MOUNTS = 60
LONG_NAME = "a-file-system-with-a-name-that-makes-proc-mounts-an-answer-of-over-twenty-fragments-" + "x" * 120
MOUNT_LOOP = f"i=0; while [ $i -lt {MOUNTS} ]; do mount -t tmpfs {LONG_NAME}-$i /tmp; i=$((i+1)); done"


@pytest.fixture(scope="module")
def guest() -> Iterator[MinimalGuest]:
    with minimal_guest("lib1", extra=MOUNT_LOOP) as running:
        yield running


def _blocking(guest: MinimalGuest) -> Call:
    client = Mconsole(str(guest.socket), guest.umid)
    return lambda method, *args: getattr(client, method)(*args)


def _asyncio(guest: MinimalGuest) -> Call:
    async def call(method: str, args: tuple[object, ...]) -> str:
        result: str = await getattr(AsyncMconsole(str(guest.socket), guest.umid), method)(*args)
        return result

    return lambda method, *args: asyncio.run(call(method, args))


@pytest.fixture(params=[_blocking, _asyncio], ids=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, guest: MinimalGuest) -> Call:
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


def test_disk_is_plugged_shown_and_unplugged(call: Call, guest: MinimalGuest) -> None:
    disk = guest.uml_dir / "disk"
    disk.write_bytes(bytes(8192))
    assert call("config_set", "ubd3", str(disk)) == ""
    with pytest.raises(MconsoleError) as caught:
        call("config_set", "ubd3", str(disk))
    assert (caught.value.err, caught.value.output) == (-16, "Device is already configured")
    assert call("config_get", "ubd3") == str(disk)
    assert call("remove", "ubd3") == ""
    assert call("config_get", "ubd3") == ""


def test_vector_device_takes_its_own_sign(call: Call, guest: MinimalGuest) -> None:
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


def test_log_reaches_the_kernel_log(call: Call, guest: MinimalGuest) -> None:
    text = f"logged at {time.monotonic_ns()}"
    assert call("log", text) == ""
    wait_until(lambda: text.encode() in guest.log.read_bytes(), 10, "text in the guest's log")


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


def test_long_proc_file_is_whole(call: Call) -> None:
    names = [line.split()[0] for line in call("proc", "mounts").splitlines()]
    assert names[-MOUNTS:] == [f"{LONG_NAME}-{at}" for at in range(MOUNTS)]


@pytest.mark.parametrize("text", [b"proc mounts", b"sysrq m"])
def test_slow_reader_of_a_connected_socket_loses_nothing(guest: MinimalGuest, text: bytes) -> None:
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


async def test_many_tasks_share_a_guest_in_order(guest: MinimalGuest) -> None:
    client = AsyncMconsole(str(guest.socket), guest.umid)
    marks = [f"mark {time.monotonic_ns()} {at}" for at in range(20)]
    asked = [client.log(mark) for mark in marks]
    answers = await asyncio.gather(*asked, *(client.proc("zoneinfo") for _ in range(3)))
    assert answers[:20] == [""] * 20
    assert all("Node 0" in answer for answer in answers[20:])
    log = guest.log.read_bytes()
    places = [log.index(mark.encode()) for mark in marks]
    assert places == sorted(places)


def test_hung_guest_is_given_up_and_answers_later(call: Call, guest: MinimalGuest) -> None:
    guest.pause()
    try:
        with pytest.raises(MconsoleTimeout, match="did not answer 'version' in time"):
            call("raw", "version", 0.3)
    finally:
        guest.resume()
    assert call("help").startswith("Commands:")


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
        with pytest.raises(MconsoleUnreachable, match="guest lib3 does not run"):
            Mconsole(str(guest.socket), guest.umid).sysrq("c")
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
