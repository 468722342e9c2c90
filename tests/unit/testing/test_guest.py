"""Simulated guests: sockets and files as a kernel makes them, faults that come and go, one thread for all."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.console_requests import ask, request
from support.deadline import scaled, wait_until
from umlab.errors import MconsoleProtocolError, MconsoleTimeout, MconsoleUnreachable
from umlab.mconsole.notify import NotifySocket
from umlab.mconsole.sync import Mconsole
from umlab.testing import SimulatedGuest, SimulatedGuests
from umlab.testing.fault import (
    DEATH,
    HOSTILE,
    Fault,
    Step,
    dies,
    endless,
    escapes,
    garbage,
    late,
    silent,
    slow,
    wrong_length,
)
from umlab.wire import mconsole as wire


@pytest.fixture
def guests(short_dir: Path) -> Iterator[SimulatedGuests]:
    with SimulatedGuests(short_dir) as guests:
        yield guests


def _client(guest: SimulatedGuest) -> Mconsole:
    return Mconsole(str(guest.path), guest.umid)


def test_run_directory_is_like_a_kernels(guests: SimulatedGuests, short_dir: Path) -> None:
    web = guests.add("web", pid=4711)
    assert web.path == short_dir / "web" / "mconsole"
    assert stat.S_ISSOCK(web.path.stat().st_mode)
    assert (web.run_directory / "pid").read_text() == "4711\n"
    assert {each.name for each in web.run_directory.iterdir()} == {"mconsole", "pid"}


def test_nothing_is_left(short_dir: Path) -> None:
    threads = threading.active_count()
    with SimulatedGuests(short_dir) as guests:
        guests.add("running")
        guests.add("dead").die()
        guests.add("ended").end()
        assert threading.active_count() == threads + 1
    assert list(short_dir.iterdir()) == []


def test_requests_are_kept_in_order(guests: SimulatedGuests) -> None:
    web = guests.add("web")
    client = _client(web)
    client.version()
    client.log("hello")
    assert web.requests == [b"version", b"log hello\n"]
    assert web.kernel.log == ["hello"]


def test_halt_ends_it_in_order(guests: SimulatedGuests) -> None:
    web = guests.add("web")
    assert _client(web).halt() == ""
    wait_until(lambda: not web.run_directory.exists(), 5, "the run directory is gone")
    assert not web.running
    with pytest.raises(MconsoleUnreachable, match="nothing at"):
        _client(web).version()
    again = guests.add("web")
    assert _client(again).version().startswith("Linux")


@pytest.mark.parametrize("command", ["reboot", "cad"])
def test_restart_forgets(guests: SimulatedGuests, command: str) -> None:
    web = guests.add("web")
    client = _client(web)
    client.stop()
    getattr(client, command)()
    wait_until(lambda: web.boots == 2, 5, "it has restarted")
    assert client.version().startswith("Linux")
    assert not web.kernel.stopped


def test_panic_says_so_and_leaves_the_directory(guests: SimulatedGuests, short_dir: Path) -> None:
    with NotifySocket(str(short_dir / "n")) as receiver:
        web = guests.add("web", notify=receiver.path)
        assert receiver.receive() == wire.Notification(wire.SOCKET, os.fsencode(web.path))
        with pytest.raises(MconsoleUnreachable):
            _client(web).sysrq("c")
        wait_until(lambda: not web.running, 5, "it is dead")
        assert receiver.receive() == wire.Notification(wire.PANIC, b"sysrq triggered crash")
        assert web.path.exists()


def test_notifications_have_both_layouts(guests: SimulatedGuests, short_dir: Path) -> None:
    with NotifySocket(str(short_dir / "n")) as receiver:
        web = guests.add("web", notify=receiver.path)
        web.notify(wire.USER, b"hello")
        web.notify(wire.HANG)
        kinds = [receiver.receive() for _ in range(3)][1:]
        assert kinds == [wire.Notification(wire.USER, b"hello"), wire.Notification(wire.HANG, b"")]
    # Nobody listens any more: a guest does not mind.
    web.notify(wire.USER, b"hello")


def test_wedged_guest_listens_and_is_silent(guests: SimulatedGuests) -> None:
    web = guests.add("web")
    assert _client(web).sysrq("b") == ""
    with pytest.raises(MconsoleTimeout):
        _client(web).raw("version", 0.1)


def test_deaf_guest_answers_later(guests: SimulatedGuests) -> None:
    web = guests.add("web")
    web.pause()
    with pytest.raises(MconsoleTimeout):
        _client(web).raw("version", 0.1)
    assert web.requests == []
    web.resume()
    assert _client(web).help().startswith("Commands:")
    assert web.requests == [b"version", b"help"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (silent, MconsoleTimeout),
        (endless, (MconsoleTimeout, MconsoleProtocolError)),
        (garbage(), MconsoleProtocolError),
        (wrong_length(-1), MconsoleProtocolError),
        (wrong_length(4000), MconsoleProtocolError),
        (slow(10), MconsoleTimeout),
    ],
    ids=["silent", "endless", "garbage", "negative", "too long", "slow"],
)
def test_fault_comes_and_goes(
    guests: SimulatedGuests, fault: Fault, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    web = guests.add("web", fault=fault)
    with pytest.raises(error):
        _client(web).raw("version", 0.2)
    web.set_fault(None)
    # One that was in the middle of an answer starts anew.
    web.start()
    assert _client(web).version().startswith("Linux")


def test_dead_guest_leaves_its_socket(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=dies)
    with pytest.raises(MconsoleUnreachable, match="left behind"):
        _client(web).version()
    assert web.path.exists()
    web.start()
    assert web.running


def test_late_answer_goes_to_who_asked(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=late(0.3))
    with pytest.raises(MconsoleTimeout):
        _client(web).raw("version", 0.1)
    web.set_fault(None)
    assert _client(web).help().startswith("Commands:")


def test_wait_of_an_earlier_life_does_not_cut_another_one_short(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=late(0.1))
    with _asker("web", guests):
        wait_until(lambda: web.requests, 5, "the request")
    web.start()
    web.set_fault(late(0.3))
    began = time.monotonic()
    assert _client(web).version().startswith("Linux")
    assert time.monotonic() - began > 0.29


def test_slow_answer_is_whole(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=slow(0.01))
    assert _client(web).help().endswith("specified pid\n")


def test_escape_sequences_are_in_every_fragment(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=escapes)
    datagrams = ask(web.path, request(b"proc loadavg"))
    assert len(datagrams) == 3
    assert all(datagram[12:].startswith(HOSTILE) for datagram in datagrams)


def test_fault_of_a_tests_own(guests: SimulatedGuests) -> None:
    seen = []

    def fault(text: bytes, answer: list[bytes]) -> list[bytes | float]:
        seen.append(text)
        return [0.01, *answer]

    web = guests.add("web", fault=fault)
    assert _client(web).log("x") == ""
    assert seen == [b"log x\n"]
    web.set_fault(lambda _, answer: [answer[0], DEATH])
    assert _client(web).version().startswith("Linux")
    wait_until(lambda: not web.running, 5, "it is dead")


def test_busy_guest_does_not_keep_the_others_waiting(guests: SimulatedGuests) -> None:
    guests.add("late", fault=late(60))
    guests.add("endless", fault=endless)
    web = guests.add("web")
    with _asker("late", guests), _asker("endless", guests):
        began = time.monotonic()
        for _ in range(100):
            _client(web).version()
        assert time.monotonic() - began < scaled(5)


def _asker(umid: str, guests: SimulatedGuests) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client.bind("")
    client.connect(str(guests.directory / umid / "mconsole"))
    client.send(request(b"version"))
    return client


def test_unconnected_client_loses_what_its_queue_does_not_hold(guests: SimulatedGuests) -> None:
    """As with a kernel, which does not wait for anybody."""
    web = guests.add("web")
    web.kernel.files["long"] = "x" * 511 * 60
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")
        client.sendto(request(b"proc long"), str(web.path))
        # Requests are served one after another: with this answer, all of the other is on its way.
        assert _client(web).version().startswith("Linux")
        client.setblocking(False)
        got = 0
        with contextlib.suppress(BlockingIOError):
            while client.recv(4096):
                got += 1
    assert 0 < got < 40


def test_client_without_a_name_is_not_answered(guests: SimulatedGuests) -> None:
    web = guests.add("web")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(request(b"log nameless"), str(web.path))
        wait_until(lambda: web.requests, 5, "the request")
    assert _client(web).version().startswith("Linux")


def test_name_is_used_once(guests: SimulatedGuests) -> None:
    guests.add("web")
    with pytest.raises(ValueError, match="guest web runs already"):
        guests.add("web")


def test_somebody_elses_guest_is_left_alone(short_dir: Path) -> None:
    path = short_dir / "web" / "mconsole"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with SimulatedGuests(short_dir) as guests, pytest.raises(FileExistsError, match="another guest"):
            guests.add("web")
        assert path.exists()


def test_thousands_of_answers_a_second(guests: SimulatedGuests) -> None:
    """The goal for the library is 5000 on a quiet machine; this is about the order of magnitude."""
    client = _client(guests.add("web"))
    began = time.monotonic()
    for _ in range(2000):
        client.version()
    assert time.monotonic() - began < scaled(4)


def test_fault_that_raises_ends_its_guest_alone_and_is_told_at_the_end(short_dir: Path) -> None:
    def at_once(request: bytes, answer: list[bytes]) -> list[Step]:
        raise ValueError("a slip in a fault")

    def later(request: bytes, answer: list[bytes]) -> Iterator[Step]:
        yield 0.01
        pytest.fail("a test's own check")

    held = contextlib.ExitStack()
    guests = held.enter_context(SimulatedGuests(short_dir))
    bad, worse, good = guests.add("bad", fault=at_once), guests.add("worse", fault=later), guests.add("good")
    for guest in (bad, worse):
        with pytest.raises(MconsoleUnreachable):
            Mconsole(str(guest.path)).version()
    assert Mconsole(str(good.path)).version().startswith("Linux")
    assert (str(bad.failure), str(worse.failure)) == ("a slip in a fault", "a test's own check")
    assert good.failure is None
    bad.set_fault(None)
    bad.start()
    assert Mconsole(str(bad.path)).version().startswith("Linux")
    with pytest.raises(ValueError, match="a slip in a fault"):
        held.close()


def test_error_of_the_test_itself_counts_more_than_a_faults(short_dir: Path) -> None:
    def slip(request: bytes, answer: list[bytes]) -> list[Step]:
        raise ValueError("a slip in a fault")

    def test() -> None:
        with SimulatedGuests(short_dir) as guests:
            Mconsole(str(guests.add("bad", fault=slip).path)).version()

    with pytest.raises(MconsoleUnreachable):
        test()
