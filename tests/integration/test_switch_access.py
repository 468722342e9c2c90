"""Who may attach to a switch: real other users, refused by the file system and by the switch's list."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, frame, mac
from integration.peers.switch_process import UMLAB, switch_run
from support.deadline import scaled
from umlab.daemon.access import find_group, find_user

pytestmark = [pytest.mark.integration]

NOBODY, DAEMON = find_user("nobody"), find_user("daemon")
#: A group that neither of them is in by itself.
GROUP = find_group("games")
#: A guest that becomes another user, says why it may not open the socket, or each frame that it gets.
GUEST = """
import os, socket, sys
path, user, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setgid(int(user))
os.setuid(int(user))
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    try:
        sock.connect(path)
    except OSError as error:
        sys.exit(f"{error.strerror}")
    while data := sock.recv(2000):
        print(data.hex(), flush=True)
"""


class Guest:
    """A guest of another user."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def receive(self) -> bytes:
        """Return the next frame, nothing at the end."""
        assert self._process.stdout is not None
        return bytes.fromhex(self._process.stdout.readline())

    def refusal(self) -> str:
        """Wait for its end and return why it could not open the socket; empty where it could."""
        return self._process.communicate(timeout=scaled(20))[1].strip()


@contextlib.contextmanager
def guest(path: Path, user: int, *groups: int) -> Iterator[Guest]:
    """Run a guest as a user, whose group has the same number, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", GUEST, str(path), *map(str, (user, *groups))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Guest(process)
        finally:
            process.kill()


@contextlib.contextmanager
def own_guest(path: Path) -> Iterator[socket.socket]:
    """Attach a guest of our own user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(scaled(10))
        sock.connect(str(path))
        yield sock


@pytest.fixture
def place(short_dir: Path) -> Path:
    """Return a path that everybody can reach."""
    short_dir.chmod(0o755)
    return short_dir / "lan.bess"


@pytest.mark.needs_root
def test_by_itself_a_switch_is_for_its_own_user(place: Path) -> None:
    with switch_run("lan", "--listen", f"bess:{place}") as switch:
        switch.wait_for("started")
        assert place.stat().st_mode & 0o777 == 0o600
        with guest(place, NOBODY, GROUP) as stranger:
            assert stranger.refusal() == "Permission denied"
        with own_guest(place):
            assert switch.wait_for("session_opened")["peer"]["uid"] == 0


@pytest.mark.needs_root
def test_group_opens_it_for_its_members(place: Path) -> None:
    options = ("--mode", "0660", "--group", "games")
    with (
        switch_run("lan", "--listen", f"bess:{place}", *options) as switch,
        contextlib.ExitStack() as stack,
    ):
        switch.wait_for("started")
        own = stack.enter_context(own_guest(place))
        switch.wait_for("session_opened")
        with guest(place, NOBODY) as stranger:
            assert stranger.refusal() == "Permission denied"
        with guest(place, NOBODY, GROUP) as member:
            peer = switch.wait_for("session_opened")["peer"]
            assert (peer["uid"], peer["groups"]) == (NOBODY, [GROUP])
            own.send(frame(BROADCAST, mac(1)))
            assert member.receive() == frame(BROADCAST, mac(1))


@pytest.mark.needs_root
def test_who_is_not_listed_is_refused_with_the_reason_and_others_go_on(place: Path, short_dir: Path) -> None:
    control = short_dir / "lan.ctl"
    listen = ("--listen", f"bess:{place}", "--listen", f"daemon:{control}")
    options = ("--mode", "0666", "--allow-user", "daemon", "--allow-group", "games")
    with (
        switch_run("lan", *listen, *options, stderr=subprocess.PIPE) as switch,
        contextlib.ExitStack() as stack,
    ):
        switch.wait_for("started")
        listed = stack.enter_context(guest(place, DAEMON))
        assert switch.wait_for("session_opened")["peer"]["uid"] == DAEMON
        for _ in range(3):
            with guest(place, NOBODY) as stranger:
                refused = switch.wait_for("session_refused")
                assert stranger.receive() == b""
                assert stranger.refusal() == ""
            reason = "user nobody may not attach to switch lan; start it with --allow-user nobody"
            assert (refused["kind"], refused["error"]) == ("bess", reason)
            assert refused["peer"]["uid"] == NOBODY
        member = stack.enter_context(guest(place, NOBODY, GROUP))
        switch.wait_for("session_opened")
        # Root is never on a list, and always may, whatever the transport.
        root = stack.enter_context(FakeGuest(control))
        root.attach()
        switch.wait_for("session_opened")
        root.send(frame(BROADCAST, mac(1)))
        assert listed.receive() == member.receive() == frame(BROADCAST, mac(1))

        shown = subprocess.run(
            [UMLAB, "switch", "show", "lan", "--json"], capture_output=True, check=True, timeout=scaled(20)
        )
        view = json.loads(shown.stdout)
        assert view["switch"]["counters"]["refused_sessions"] == 3
        ports = view["ports"]
        assert [(port["kind"], port["user"]) for port in ports] == [
            ("bess", "daemon"),
            ("bess", "nobody"),
            ("daemon", "root"),
        ]
        switch.process.terminate()
        said = switch.process.communicate(timeout=scaled(20))[1].splitlines()
    # Three times it happened, once it is told.
    assert [line.partition("refused: ")[2] for line in said] == [reason]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--mode", "u+rw"), "write one like 0660"),
        (("--group", "no-such-group"), "there is no group 'no-such-group'"),
        (("--allow-user", "no-such-user"), "there is no user 'no-such-user'"),
        (("--file", "/dev/null", "--mode", "0660"), "a file says itself what its segments are"),
    ],
)
def test_wrong_word_is_a_wrong_command_line(options: tuple[str, ...], says: str) -> None:
    done = subprocess.run(
        [UMLAB, "switch", "run", "lan", *options],
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=False,
    )
    assert done.returncode == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())
