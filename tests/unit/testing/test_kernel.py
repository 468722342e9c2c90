"""The simulated kernel says what a real one was recorded saying to ``uml_mconsole``."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from support.console_requests import without_numbers
from support.mconsole_cases import CASES, Place
from umlab.testing.kernel import Effect, SimulatedKernel

RECORDINGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "integration/recorded/uml_mconsole/recordings.json").read_text()
)


@pytest.fixture
def kernel() -> SimulatedKernel:
    return SimulatedKernel("6.1.176", "(none)", 113324 * 1024)


def test_every_recorded_answer_is_given_again(kernel: SimulatedKernel, short_dir: Path) -> None:
    place = Place(short_dir / "p")
    root = bytes(place.root)
    compared = 0
    for case in CASES:
        for exchange in RECORDINGS[case.name]["exchanges"]:
            replies = [reply.encode("latin-1") for reply in exchange["replies"]]
            request = exchange["request"].encode("latin-1").replace(b"{root}", root)
            datagrams, _ = kernel.run(request)
            answers = [datagram.replace(root, b"{root}") for datagram in datagrams]
            if case.volatile:
                assert without_numbers(answers) == without_numbers(replies)
            elif replies:
                # The length on the wire was that of the path there and then.
                assert list(map(_without_length, answers)) == list(map(_without_length, replies)), request
            compared += bool(replies)
    assert compared > 80


def _without_length(reply: bytes) -> bytes:
    return reply[:8] + reply[12:]


@pytest.mark.parametrize(
    ("request_text", "effect"),
    [
        (b"version", Effect.NONE),
        (b"halt", Effect.HALT),
        (b"reboot", Effect.REBOOT),
        (b"cad", Effect.REBOOT),
        (b"sysrq o", Effect.HALT),
        (b"sysrq c", Effect.PANIC),
        (b"sysrq t", Effect.CRASH),
        (b"sysrq b", Effect.WEDGE),
    ],
)
def test_what_a_command_does_to_the_machine(
    kernel: SimulatedKernel, request_text: bytes, effect: Effect
) -> None:
    assert kernel.run(request_text)[1] is effect


def test_long_file_is_read_in_pieces(kernel: SimulatedKernel) -> None:
    """A read of 4095 bytes ends a fragment, as one of 511 does."""
    kernel.files["long"] = "x" * 5000
    datagrams, _ = kernel.run(b"proc long")
    lengths = [len(datagram) - 13 for datagram in datagrams]
    assert lengths == [1, *[511] * 8, 7, 511, 394, 0]
    assert [datagram[4] for datagram in datagrams] == [1] * 12 + [0]


def test_file_may_be_made_when_it_is_read(kernel: SimulatedKernel) -> None:
    texts = iter(["first", "second"])
    kernel.files["turn"] = lambda: next(texts)
    assert [kernel.run(b"proc turn")[0][1][12:-1] for _ in range(2)] == [b"first", b"second"]


def test_facts_are_in_every_file_that_has_them(kernel: SimulatedKernel) -> None:
    kernel.facts.load = (1.5, 0.25, 0.0)
    kernel.facts.nodename = "web"
    kernel.facts.memory = 1 << 30
    kernel.facts.memory_free = 1 << 29
    assert b"1.50 0.25 0.00 " in kernel.run(b"proc loadavg")[0][1]
    assert kernel.run(b"version")[0][0][12:].startswith(b"Linux web 6.1.176 ")
    meminfo = b"".join(datagram[12:-1] for datagram in kernel.run(b"proc meminfo")[0])
    assert b"MemTotal:        1048576 kB\nMemFree:          524288 kB\n" in meminfo


def test_nic_whose_switch_listens_is_there(kernel: SimulatedKernel, short_dir: Path) -> None:
    control = short_dir / "ctl"
    setting = f"config eth0=daemon,,unix,{control}".encode()
    assert kernel.run(setting)[0] == kernel.run(setting)[0]
    assert kernel.devices.values.keys() == {"ubd0"}
    with socket.socket(socket.AF_UNIX) as switch:
        switch.bind(str(control))
        kernel.run(setting)
    assert "eth0" in kernel.devices.values
    assert b"Device already configured" in kernel.run(setting)[0][0]
    kernel.devices.open.add("eth0")
    assert b"Device is currently open" in kernel.run(b"remove eth0")[0][0]


def test_boot_forgets(kernel: SimulatedKernel) -> None:
    boot_id = kernel.facts.boot_id
    kernel.run(b"stop")
    kernel.run(b"sysrq 9")
    kernel.run(b"config con4=pts")
    kernel.boot()
    assert not kernel.stopped
    assert kernel.facts.console_level == 7
    assert kernel.devices.values.keys() == {"ubd0"}
    assert kernel.facts.boot_id != boot_id
