"""The drop-in switch where descriptors run out, and the limits of who is started by us."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, attach_request, attached, frame, mac
from integration.peers.uml_switch import program_path
from support.deadline import scaled, wait_until

pytestmark = pytest.mark.integration

LIMIT = 40
NAMED = f"(the limit is {LIMIT}; raise the hard one".encode()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def exchange(left: FakeGuest, right: FakeGuest) -> None:
    for source, target in ((left, right), (right, left)) * 20:
        source.send(frame(BROADCAST, mac(1)))
        assert target.receive() == frame(BROADCAST, mac(1))


@pytest.mark.parametrize("engine", ["auto", "py"])
def test_drop_in_serves_who_is_there_names_the_limit_once_and_does_not_spin(
    short_dir: Path, engine: str
) -> None:
    control, log = short_dir / "ctl", short_dir / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program_path("ours"), "-unix", control],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"UMLAB_ENGINE": engine},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT // 2, LIMIT)),
        )
    try:
        wait_until(lambda: b"attached to unix socket" in log.read_bytes(), 20, "the switch is up")
        with attached(control) as left, attached(control) as right:
            with contextlib.ExitStack() as stack:
                # Two descriptors each, so the soft limit was raised.
                others = [stack.enter_context(attached(control)) for _ in range(LIMIT // 4)]
                silent = [stack.enter_context(FakeGuest(control)) for _ in range(LIMIT)]
                wait_until(lambda: b"cannot accept" in log.read_bytes(), 10, "it says so")
                late = stack.enter_context(FakeGuest(control))
                late.stream.sendall(attach_request(3, late.name))
                for other in others:
                    other.receive_waiting()
                before = processor_seconds(process.pid)
                time.sleep(1.5)
                assert processor_seconds(process.pid) - before < 0.5
                exchange(left, right)
                for guest in (*silent, *others):
                    guest.close()
                assert len(late.read_reply()) == 110, "it waited, and is served"
                exchange(left, right)
            lines = [line for line in log.read_bytes().splitlines() if b"cannot accept" in line]
            assert len(lines) == 1
            assert NAMED in lines[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(scaled(10))
    assert process.returncode == -signal.SIGTERM


def test_attach_without_a_descriptor_for_its_frames_is_refused_and_the_limit_named(short_dir: Path) -> None:
    """The connection takes the last one; there is none for the port."""
    control, log = short_dir / "ctl", short_dir / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program_path("ours"), "-unix", control],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: b"attached to unix socket" in log.read_bytes(), 20, "the switch is up")
        # From now on: one more than there are.
        limit = len(os.listdir(f"/proc/{process.pid}/fd")) + 1
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        with FakeGuest(control) as guest, pytest.raises(ConnectionRefusedError):
            guest.attach()
        wait_until(lambda: b"Bad request" in log.read_bytes(), 10, "it says so")
        assert f"Too many open files (the limit is {limit}; raise".encode() in log.read_bytes()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(scaled(10))
