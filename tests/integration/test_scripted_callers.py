"""What scripts of others do with ``uml_switch``, done to both programs.

netkit starts a hub with its output piped through a filter into a log, waits for the socket's file, finds
the process by its full command line, takes the last word as the socket's path and counts the process's
unix sockets at that path: one is the listening socket, each more is a guest.  Debian's init script runs
the switch as another user and opens its socket to a group or to everybody.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, attach_request, attached, frame, mac
from integration.peers.uml_switch import PROGRAMS, is_socket, listens, program_command, program_path
from support.deadline import scaled, wait_until
from support.require import require_program

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

ETH_P_ALL = socket.htons(3)
NOBODY = 65534


def command_line(pid: int) -> list[str]:
    """Return the words of a process's command line, byte for byte as the kernel has them."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def pgrep(pattern: str) -> list[int]:
    """Return the processes whose full command line matches."""
    found = subprocess.run(
        [require_program("pgrep"), "-f", pattern], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def sockets_at(pid: int, path: Path) -> int:
    """Count a process's unix sockets that carry a path, as lsof shows them."""
    command = [require_program("lsof"), "-n", "-P", "-w", "-a", "-U", "-p", str(pid), "-F", "n"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return sum(line.startswith(f"n{path} ") or line == f"n{path}" for line in found.stdout.splitlines())


class Hub:
    """A hub as netkit starts one.

    Attributes:
        socket: Its control socket.
        log: The file that its output goes to.
    """

    def __init__(self, which: str, directory: Path, *options: str) -> None:
        self.socket = directory / "vhub_lab_A.cnct"
        self.log = directory / "hub.log"
        self.program = program_path(which)
        words = [str(self.program), "-hub", "-unix", str(self.socket), *options]
        buffered = shlex.join(program_command(which)[:-1])
        # Each line of the log gets a mark, which shows that the filter had it at once.
        line = f"{buffered} {shlex.join(words)} < /dev/null 2>&1 | stdbuf -oL sed 's/^/log: /' > {self.log}"
        self._shell = subprocess.Popen(["/bin/sh", "-c", line], start_new_session=True)
        self.pattern = f"^{re.escape(str(self.program))} .*{re.escape(str(self.socket))}"

    def pid(self) -> int:
        """Return the process, found as netkit finds it."""
        (pid,) = wait_until(lambda: pgrep(self.pattern), 10, "pgrep finds the hub")
        return pid

    def wait_log(self, text: str) -> None:
        """Wait for a line of the log that is just this text."""
        # The shell makes the file in its own time.
        shown = f"log: {text}\n"
        wait_until(lambda: self.log.exists() and shown in self.log.read_text(), 10, f"{text!r} in {self.log}")

    def kill_filter(self) -> None:
        """Kill whatever reads the hub's output, and wait until nobody does."""
        own = self.pid()
        readers = [pid for pid in pgrep("^sed s/") if os.getpgid(pid) == self._shell.pid and pid != own]
        assert len(readers) == 1, readers
        os.kill(readers[0], signal.SIGKILL)
        wait_until(lambda: readers[0] not in pgrep("^sed s/"), 10, "the filter is gone")

    def wait_end(self) -> None:
        """Wait until the hub and its filter have ended."""
        self._shell.wait(scaled(15))

    def close(self) -> None:
        """End it, by force if need be."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGTERM)
        try:
            self.wait_end()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()


StartHub = Callable[..., Hub]


@pytest.fixture
def start_hub(short_dir: Path) -> Iterator[StartHub]:
    with contextlib.ExitStack() as hubs:

        def start(which: str, *options: str) -> Hub:
            hub = Hub(which, short_dir, *options)
            hubs.callback(hub.close)
            wait_until(lambda: is_socket(hub.socket), 15, "the hub's socket file appears")
            wait_until(lambda: listens(hub.socket), 5, "the hub listens")
            return hub

        yield start


@pytest.mark.parametrize("which", PROGRAMS)
def test_netkit_finds_its_hub_and_the_socket_in_its_command_line(start_hub: StartHub, which: str) -> None:
    hub = start_hub(which)
    pid = hub.pid()
    assert command_line(pid) == [str(hub.program), "-hub", "-unix", str(hub.socket)]
    shown = subprocess.run(
        [require_program("ps"), "-ww", "-o", "args=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.rstrip("\n") == f"{hub.program} -hub -unix {hub.socket}"
    assert shown.split()[-1] == str(hub.socket)
    assert Path(f"/proc/{pid}/comm").read_text() == "uml_switch\n"


@pytest.mark.parametrize("which", PROGRAMS)
def test_netkit_tells_a_used_hub_by_its_sockets(start_hub: StartHub, which: str) -> None:
    hub = start_hub(which)
    pid = hub.pid()
    hub.wait_log(f"{hub.program} attached to unix socket '{hub.socket}'")
    assert sockets_at(pid, hub.socket) == 1
    with attached(hub.socket), attached(hub.socket):
        assert sockets_at(pid, hub.socket) == 3
    wait_until(lambda: sockets_at(pid, hub.socket) == 1, 10, "the hub is unused again")


@pytest.mark.parametrize("which", PROGRAMS)
def test_netkit_reads_the_hub_log_line_by_line(start_hub: StartHub, which: str) -> None:
    hub = start_hub(which)
    hub.wait_log(f"{hub.program} will be a hub instead of a switch")
    hub.wait_log(f"{hub.program} attached to unix socket '{hub.socket}'")
    with attached(hub.socket):
        hub.wait_log("New connection")
    hub.wait_log("Disconnect")


@pytest.mark.parametrize("which", PROGRAMS)
def test_netkit_kills_an_unused_hub(start_hub: StartHub, which: str) -> None:
    hub = start_hub(which)
    os.kill(hub.pid(), signal.SIGTERM)
    hub.wait_end()
    # netkit removes what the original leaves.
    assert is_socket(hub.socket) == (which == "original")


def test_hub_survives_the_end_of_its_log(start_hub: StartHub) -> None:
    hub = start_hub("ours")
    pid = hub.pid()
    hub.wait_log(f"{hub.program} attached to unix socket '{hub.socket}'")
    hub.kill_filter()
    with attached(hub.socket) as first, attached(hub.socket) as second:
        first.send(frame(BROADCAST, mac(1)))
        assert second.receive() == frame(BROADCAST, mac(1))
    wait_until(lambda: sockets_at(pid, hub.socket) == 1, 10, "both have left")
    assert pgrep(hub.pattern) == [pid]


@pytest.mark.parametrize("which", PROGRAMS)
def test_dump_client_of_netkits_fork_harms_nobody(start_hub: StartHub, which: str) -> None:
    hub = start_hub(which)
    with attached(hub.socket) as first, attached(hub.socket) as second, FakeGuest(hub.socket) as dump:
        dump.stream.sendall(attach_request(3, dump.name, request_type=1))
        if which == "original":
            dump.wait_closed()
            hub.wait_log("Bad request type : 1")
        else:
            assert len(dump.read_reply()) == 110
        first.send(frame(BROADCAST, mac(1)))
        assert second.receive() == frame(BROADCAST, mac(1))
        if which == "ours":
            assert dump.receive() == frame(BROADCAST, mac(1))


@pytest.mark.needs_root
@pytest.mark.parametrize("which", PROGRAMS)
def test_netkit_plugs_a_tap_device_into_its_hub(start_hub: StartHub, which: str) -> None:
    device = f"umlt{os.getpid()}"
    hub = start_hub(which, "-tap", device)
    hub.wait_log(f"{hub.program} attached to unix socket '{hub.socket}' tap device '{device}'")
    hub.wait_log("New connection")
    assert command_line(hub.pid())[1:] == ["-hub", "-unix", str(hub.socket), "-tap", device]
    subprocess.run([require_program("ip"), "link", "set", device, "up"], check=True)
    with attached(hub.socket) as guest, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL) as host:
        host.bind((device, 0))
        host.setblocking(False)

        def guest_hears() -> bool:
            host.send(frame(mac(1), mac(2)))
            return frame(mac(1), mac(2)) in guest.receive_waiting()

        def host_hears() -> bool:
            guest.send(frame(mac(2), mac(1)))
            with contextlib.suppress(BlockingIOError):
                while heard := host.recv(2000):
                    if heard == frame(mac(2), mac(1)):
                        return True
            return False

        # A device that has just come up may lose frames, and the host says more on it than this test does.
        wait_until(guest_hears, 10, "the guest hears the host")
        wait_until(host_hears, 10, "the host hears the guest")


@pytest.fixture(params=PROGRAMS)
def init_script(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Path]:
    """Start a switch as an init script does and yield its socket."""
    socket_path = short_dir / "uml_switch.ctl"
    short_dir.chmod(0o755)
    process = subprocess.Popen(
        [str(program_path(request.param)), "-unix", str(socket_path)],
        umask=0o022,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: listens(socket_path), 15, "the socket appears")
        yield socket_path
    finally:
        process.terminate()
        process.wait(scaled(10))


def test_init_script_finds_the_socket_as_its_umask_has_it(init_script: Path) -> None:
    status = init_script.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o755)


@pytest.mark.needs_root
def test_init_script_opens_the_socket_to_other_users(init_script: Path) -> None:
    assert as_nobody(lambda: attach_and_leave(init_script)) == "PermissionError"
    init_script.chmod(0o777)
    with attached(init_script) as other:
        assert as_nobody(lambda: attach_and_talk(init_script, other)) == "done"


def attach_and_leave(path: Path) -> None:
    """Attach, nothing more."""
    with attached(path):
        pass


def attach_and_talk(path: Path, other: FakeGuest) -> None:
    """Attach and send a frame that a guest of the parent gets; it is the child's as well after the fork."""
    with attached(path) as guest:
        guest.send(frame(BROADCAST, mac(1)))
        assert other.receive() == frame(BROADCAST, mac(1))


def as_nobody(what: Callable[[], None]) -> str:
    """Run something in a child process without privileges; returns ``done`` or the exception's name."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "done"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            what()
        except BaseException as error:
            outcome = type(error).__name__
        os.write(write_end, outcome.encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as result:
        text = result.read()
    os.waitpid(child, 0)
    return text
