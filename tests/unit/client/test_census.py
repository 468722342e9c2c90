"""All guests of a machine, whoever started them, however they are."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.deadline import scaled
from support.kernel_process import kernel_process
from support.lab_thread import LabThread
from umlab.client.census import Census, GuestStatus, take_census
from umlab.client.nic import GuestNic
from umlab.daemon.place import KEEPER_LOCK
from umlab.daemon.view import GuestVitals
from umlab.testing.fault import dies, garbage, silent
from umlab.testing.guest import SimulatedGuests

UML, MAC = 4711, "02:00:00:00:00:01"


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def census(*uml_dirs: Path) -> Census:
    return asyncio.run(take_census([str(each) for each in uml_dirs]))


def by_name(taken: Census) -> dict[str, GuestStatus]:
    return {guest.name: guest for guest in taken.guests}


@pytest.mark.usefixtures("guests")
def test_there_may_be_none() -> None:
    assert census() == Census((), (), ())


def test_guests_of_labs_come_first_then_those_that_others_started(
    runtime: Path, guests: SimulatedGuests, held: ExitStack
) -> None:
    guests.add("b")
    elsewhere = runtime / "elsewhere"
    elsewhere.mkdir()
    held.enter_context(SimulatedGuests(elsewhere)).add("a")
    with LabThread(runtime, "lan", guests=("left", "right")), LabThread(runtime, "ring", guests=("left",)):
        taken = census(elsewhere)
    assert [(guest.lab, guest.name, guest.state) for guest in taken.guests] == [
        ("lan", "left", "ready"),
        ("lan", "right", "ready"),
        ("ring", "left", "ready"),
        (None, "b", "answers"),
        (None, "a", "answers"),
    ]


def test_what_kernels_say_is_told(runtime: Path, guests: SimulatedGuests) -> None:
    other = guests.add("other", release="6.6.6")
    with LabThread(runtime, "lan", guests=("left",)) as lan:
        told = lan.call(lambda lab: lab.held("left").vitals)
        taken = by_name(census())
    assert taken["left"].vitals == told
    vitals = taken["other"].vitals
    assert vitals is not None
    assert (vitals.state, vitals.release, vitals.memory_total) == ("answers", "6.6.6", 113324 * 1024)
    assert None not in dataclasses.astuple(vitals)
    assert (taken["other"].pid, taken["other"].path) == (os.getpid(), str(other.path))


def test_guest_that_has_ended_is_not_asked(runtime: Path, guests: SimulatedGuests) -> None:
    guests.add("gone").die()
    with LabThread(runtime, "lan", guests=("left",)) as lan:
        lan.call(lambda lab: lab.held("left").end())
        taken = by_name(census())
    for name, state in (("left", "ended"), ("gone", "dead")):
        status = taken[name]
        assert (status.state, status.vitals, status.nics) == (state, None, None)
    assert taken["left"].pid is None


def test_guests_that_do_not_answer_cost_a_second_together(guests: SimulatedGuests) -> None:
    for number in range(80):
        guests.add(f"bad{number}", fault=silent)
        guests.add(f"good{number}")
    begin = time.monotonic()
    taken = census()
    seconds = time.monotonic() - begin
    states = [(guest.name[:3], guest.state) for guest in taken.guests]
    assert states == [("bad", "silent")] * 80 + [("goo", "answers")] * 80
    assert seconds < scaled(3.5)


def test_guest_that_dies_of_a_question_or_answers_nonsense_harms_nobody(guests: SimulatedGuests) -> None:
    guests.add("dies", fault=dies)
    guests.add("garbage", fault=garbage())
    guests.add("well")
    taken = by_name(census())
    assert {name: guest.state for name, guest in taken.items()} == {
        "dies": "dead",
        "garbage": "garbled",
        "well": "answers",
    }
    vitals = taken["garbage"].vitals
    assert vitals is not None
    assert vitals == GuestVitals("garbage", "garbled", vitals.age)


def test_guest_that_is_stopped_is_told_from_others(guests: SimulatedGuests) -> None:
    guests.add("frozen").kernel.stopped = True
    guests.add("well")
    taken = by_name(census())
    assert {name: guest.state for name, guest in taken.items()} == {"frozen": "stopped", "well": "answers"}
    vitals = taken["frozen"].vitals
    assert vitals is not None
    assert vitals.load == (0.0, 0.0, 0.0)


def test_guest_that_cannot_be_asked_is_not_called_dead(guests: SimulatedGuests) -> None:
    directory = guests.directory / ("long" * 20)
    directory.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.chdir(directory):
        sock.bind("mconsole")
        (guest,) = census().guests
    assert (guest.state, guest.vitals) == ("listening", None)


def test_daemon_that_hangs_is_named_and_its_guests_are_asked_themselves(
    runtime: Path, guests: SimulatedGuests, held: ExitStack
) -> None:
    guests.add("other")
    root = runtime / "umlab/ring/g/left"
    root.mkdir(parents=True)
    held.enter_context(SimulatedGuests(root)).add("left")
    listener = held.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(runtime / "umlab/ring/api.sock"))
    listener.listen()
    taken = census()
    assert (taken.hung, taken.kept) == (("ring",), ())
    assert [(guest.lab, guest.name, guest.state) for guest in taken.guests] == [
        ("ring", "left", "answers"),
        (None, "other", "answers"),
    ]


def test_guests_of_a_lab_without_daemon_are_asked_themselves(
    runtime: Path, guests: SimulatedGuests, held: ExitStack
) -> None:
    root = runtime / "umlab/ring/g/left"
    root.mkdir(parents=True)
    held.enter_context(SimulatedGuests(root)).add("left")
    lock = os.open(root.parents[1] / KEEPER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    held.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    taken = census()
    assert (taken.hung, taken.kept) == ((), ("ring",))
    assert [(guest.lab, guest.name, guest.state) for guest in taken.guests] == [("ring", "left", "answers")]


def test_port_of_a_guest_is_found_whoever_started_it(runtime: Path, guests: SimulatedGuests) -> None:
    with (
        LabThread(runtime, "lan", switches=("lan",)) as lan,
        LabThread(runtime, "ring", switches=("core",), guests=("left",)) as ring,
        kernel_process("umid=x", "eth0=daemon,,unix,/run/lan.ctl", f"eth1=mcast,{MAC}") as pid,
    ):
        guests.add("other", pid=pid)
        # It is no kernel as far as can be seen.
        guests.add("unknown")
        guests.add("hidden", pid=UML)

        lan.call(lambda lab: lab.add_port("lan", 4, pid=pid))
        lan.call(lambda lab: lab.add_port("lan", 7, pid=os.getpid()))
        ring.call(lambda lab: lab.add_port("core", 2, "left"))
        ring.call(lambda lab: lab.held("left").devices.update(eth0="daemon,,unix,/run/core.ctl"))
        taken = by_name(census())
    assert taken["other"].nics == (
        GuestNic("eth0", "daemon", "daemon,,unix,/run/lan.ctl", "lan:4", "02:00:00:00:00:04"),
        GuestNic("eth1", "mcast", f"mcast,{MAC}", None, MAC),
    )
    assert taken["unknown"].nics == (GuestNic(None, "daemon", None, "lan:7", "02:00:00:00:00:07"),)
    assert taken["hidden"].nics is None
    assert taken["left"].nics == (
        GuestNic("eth0", "daemon", "daemon,,unix,/run/core.ctl", "ring/core:2", "02:00:00:00:00:02"),
    )
