"""``uml_switch`` as a service: started by Debian's init script, and by a service manager.

Neither an init nor a systemd is started: the init script runs in a directory of its own, with the real
start-stop-daemon, and systemd's side of a socket and of a notification is played by its own tools.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, attached, frame, mac
from integration.peers.uml_switch import PROGRAMS, is_socket, listens, program_path
from support.deadline import scaled, wait_until
from support.require import ROOT, require_program, unavailable
from umlab._notify import notify
from umlab.client.place import socket_path

pytestmark = pytest.mark.integration

INIT_SCRIPT = Path("/etc/init.d/uml-utilities")
UNITS = ROOT / "packaging/systemd"
#: Ten times the exposure that systemd-analyze finds at most: a switch needs next to nothing, a guest much.
EXPOSURE = {"uml-switch.service": 20, "umlab@.service": 85}
#: The places that the init script has for itself, and what a test puts there.
PLACES = {"/etc/default/uml-utilities": "options", "/var/run/uml-utilities": "run"}


class InitScript:
    """Debian's init script, word for word but for its two places.

    Args:
        which: ``original`` or ``ours``.
        directory: Where those places are.
        options: The value of ``UML_SWITCH_OPTIONS``.
        daemon: The value of ``DAEMON``; by default as docs/howto/run-as-a-service.md has it: what the kernel
            executes is the interpreter, and its first word is the program.

    Attributes:
        control: The switch's control socket.
        pid_file: Where start-stop-daemon keeps the switch's pid.
    """

    def __init__(self, which: str, directory: Path, options: str, daemon: Path | None = None) -> None:
        require_program("uml_switch")
        if not INIT_SCRIPT.exists():
            unavailable(f"{INIT_SCRIPT} is missing: apt-get install uml-utilities")
        text = INIT_SCRIPT.read_text()
        for place, name in PLACES.items():
            assert place in text
            text = text.replace(place, str(directory / name))
        (directory / "run").mkdir()
        self.control = directory / "run/uml_switch.ctl"
        self.pid_file = directory / "run/uml_switch.pid"
        self._script = directory / "init"
        self._script.write_text(text)
        lines = [f"UML_SWITCH_USER={pwd.getpwuid(os.geteuid()).pw_name}"]
        if daemon is None and which == "ours":
            daemon, options = Path(sys.executable), f"{program_path(which)} {options}"
        if daemon is not None:
            lines.append(f"DAEMON={daemon}")
        lines.append(f'UML_SWITCH_OPTIONS="{options}"')
        (directory / "options").write_text("\n".join(lines) + "\n")

    def __call__(self, action: str, *, fails: bool = False) -> None:
        """Run the script and compare its status."""
        done = subprocess.run(
            ["/bin/sh", "-e", self._script, action],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"], "SYSTEMCTL_SKIP_REDIRECT": "1"},
            timeout=scaled(30),
        )
        assert (done.returncode != 0) == fails, done.stdout

    def pid(self) -> int:
        """Return the running switch's process."""
        return int(self.pid_file.read_text())


def command_line(pid: int) -> list[str]:
    """Return the words of a process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def has_ended(pid: int) -> bool:
    """Say whether a process has ended; who has taken it over may leave it a zombie for a while."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def heard_by_a_third(control: Path) -> list[bytes]:
    """Attach three guests and return what the third hears of a frame between the two others.

    A frame to everybody comes last and is the end of the list.
    """
    with attached(control) as one, attached(control) as other, attached(control) as third:
        # Nobody knows where they are at first.
        one.send(frame(mac(2), mac(1)))
        assert other.receive() == third.receive() == frame(mac(2), mac(1))
        other.send(frame(mac(1), mac(2)))
        assert one.receive() == frame(mac(1), mac(2))
        one.send(frame(mac(2), mac(1), b"known"))
        assert other.receive() == frame(mac(2), mac(1), b"known")
        other.send(frame(BROADCAST, mac(2)))
        heard = [third.receive()]
        while heard[-1] != frame(BROADCAST, mac(2)):
            heard.append(third.receive())
    return heard


@pytest.mark.parametrize("options", ["", "-hub -tap {device}"])
@pytest.mark.parametrize("which", PROGRAMS)
def test_init_script_starts_a_switch_that_serves_and_stops_it(
    short_dir: Path, which: str, options: str
) -> None:
    device = f"umls{os.getpid()}"
    words = options.format(device=device).split()
    script = InitScript(which, short_dir, " ".join(words))
    script("start")
    pid = script.pid()
    try:
        assert stat.S_IMODE(script.control.stat().st_mode) == 0o777
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert command_line(pid) == [str(program_path(which)), *words, "-unix", str(script.control)]
        # A plain user's switch goes on without the device.
        has_tap = device in words and os.geteuid() == 0
        assert Path(f"/sys/class/net/{device}").exists() == has_tap
        between = [frame(mac(1), mac(2)), frame(mac(2), mac(1), b"known")] if "-hub" in words else []
        assert heard_by_a_third(script.control) == [*between, frame(BROADCAST, mac(2))]
    finally:
        script("stop")
        wait_until(lambda: has_ended(pid), 10, "the switch has ended")
    assert not script.control.exists()
    assert not script.pid_file.exists()


@pytest.mark.parametrize("which", PROGRAMS)
def test_init_script_does_not_start_a_second_switch(short_dir: Path, which: str) -> None:
    script = InitScript(which, short_dir, "")
    script("start")
    pid = script.pid()
    try:
        script("start", fails=True)
        assert script.pid() == pid
        assert listens(script.control)
    finally:
        script("stop")
        wait_until(lambda: has_ended(pid), 10, "the switch has ended")


def test_init_script_with_the_program_itself_starts_it_and_does_not_find_it_again(short_dir: Path) -> None:
    script = InitScript("ours", short_dir, "", daemon=program_path("ours"))
    script("start")
    pid = script.pid()
    try:
        assert heard_by_a_third(script.control) == [frame(BROADCAST, mac(2))]
        script("stop")
        assert not has_ended(pid)
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: has_ended(pid), 10, "the switch has ended")


class ServiceManager:
    """The socket on which a service manager is told about its service.

    Args:
        path: Where the socket is.

    Attributes:
        environment: What the service finds in its environment.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(scaled(15))
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path)}

    def receive(self) -> bytes:
        """Return the next message."""
        return self._socket.recv(1000)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture
def manager(short_dir: Path) -> Iterator[ServiceManager]:
    with contextlib.closing(ServiceManager(short_dir / "notify")) as each:
        yield each


@contextlib.contextmanager
def service(command: Sequence[str | Path], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a service for the length of a block, at the end of which it has ended, by force if need be."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_our_message_is_the_one_of_systemd_notify(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = require_program("systemd-analyze").with_name("systemd-notify")
    subprocess.run([reference, "--no-block", "--ready", "--status=up"], env=manager.environment, check=True)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environment["NOTIFY_SOCKET"])
    assert notify("READY=1\nSTATUS=up")
    assert manager.receive() == manager.receive() == b"READY=1\nSTATUS=up"


def test_switch_says_when_it_serves_and_when_it_ends(short_dir: Path, manager: ServiceManager) -> None:
    control = short_dir / "ctl"
    with service([program_path("ours"), "-unix", control], manager.environment) as switch:
        assert manager.receive() == b"READY=1"
        with attached(control):
            switch.terminate()
            assert manager.receive() == b"STOPPING=1"
        assert switch.wait(scaled(10)) == -signal.SIGTERM
    assert not control.exists()


@contextlib.contextmanager
def activated(path: Path, *options: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run our switch as systemd-socket-activate starts it: with the first connection to a socket."""
    command = [require_program("systemd-socket-activate"), "-l", path, program_path("ours"), *options]
    with service(command, {**os.environ}) as process:
        wait_until(lambda: listens(path), 10, "systemd's side listens")
        yield process


@pytest.mark.parametrize("options", [[], ["-hub"], ["{}.data"]])
def test_switch_takes_its_control_socket_from_the_service_manager(
    short_dir: Path, options: list[str]
) -> None:
    control = short_dir / "ctl"
    words = [word.format(control) for word in options]
    with activated(control, "-unix", control, *words) as switch:
        identity = control.stat().st_ino
        between = [frame(mac(1), mac(2)), frame(mac(2), mac(1), b"known")] if words == ["-hub"] else []
        assert heard_by_a_third(control) == [*between, frame(BROADCAST, mac(2))]
        assert control.stat().st_ino == identity
        assert command_line(switch.pid) == [str(program_path("ours")), "-unix", str(control), *words]
        switch.terminate()
        assert switch.wait(scaled(10)) == -signal.SIGTERM
        # The next one is started on the same socket.
        assert control.stat().st_ino == identity
        assert not Path(f"{control}.data").exists()


def test_socket_of_another_path_is_not_taken_and_that_is_said(short_dir: Path) -> None:
    other, control = short_dir / "other", short_dir / "ctl"
    with activated(other, "-unix", control) as switch, socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(other))
        wait_until(lambda: listens(control), 10, "the switch has its own socket")
        with attached(control):
            switch.terminate()
            output, _ = switch.communicate(timeout=scaled(10))
    assert f"The service manager's descriptor 3 does not listen at '{control}'" in output
    assert not control.exists()
    assert is_socket(other)


def test_lab_keeps_its_managers_socket_through_an_upgrade(short_dir: Path, manager: ServiceManager) -> None:
    path = short_dir / "umlab/lan/api.sock"
    path.parent.mkdir(mode=0o700, parents=True)
    path.parent.parent.chmod(0o700)
    variables = {"XDG_RUNTIME_DIR": str(short_dir), "XDG_STATE_HOME": f"{short_dir}/state"}
    lab = [sys.executable, "-m", "umlab.api.run", "lan"]
    command = [require_program("systemd-socket-activate"), "-l", path]
    for name in (*variables, "NOTIFY_SOCKET"):
        command += ["-E", name]
    with service([*command, *lab], {**manager.environment, **variables}) as daemon:
        wait_until(lambda: listens(path), 10, "systemd's side listens")
        identity = path.stat().st_ino
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            assert manager.receive() == b"READY=1"
        daemon.send_signal(signal.SIGUSR2)
        assert manager.receive().startswith(b"RELOADING=1\n")
        assert manager.receive() == b"READY=1"
        assert path.stat().st_ino == identity
        assert answers(path)
        daemon.terminate()
        assert manager.receive() == b"STOPPING=1"
        output, _ = daemon.communicate(timeout=scaled(15))
        assert daemon.returncode == 0, output
    assert path.stat().st_ino == identity


def answers(path: Path) -> bool:
    """Say whether a lab's API answers on a socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(scaled(10))
        client.connect(str(path))
        client.sendall(b"GET /v1/labs HTTP/1.1\r\nHost: umlab\r\nConnection: close\r\n\r\n")
        return client.recv(13) == b"HTTP/1.1 200 "


@pytest.fixture
def units(short_dir: Path) -> Path:
    """Return a directory with the units as they are installed, their programs where ours are."""
    for unit in UNITS.iterdir():
        text = re.sub(
            r"(?m)^ExecStart=(\S+)", lambda found: f"ExecStart={own_program(found[1])}", unit.read_text()
        )
        (short_dir / unit.name).write_text(text)
    return short_dir


def own_program(name: str) -> Path:
    """Return the path of a program that umlab installs."""
    return Path(sys.executable).with_name(name)


def analyze(directory: Path, *words: str | Path) -> None:
    """Run systemd-analyze, which must find nothing; it leaves what it makes in the directory."""
    done = subprocess.run(
        [require_program("systemd-analyze"), "--user", "--no-pager", *words],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(unit.name for unit in UNITS.iterdir()))
def test_unit_is_what_systemd_understands(units: Path, name: str) -> None:
    analyze(units, "--man=no", "verify", units / name)


@pytest.mark.parametrize("name", sorted(EXPOSURE))
def test_service_is_exposed_no_more_than_it_must_be(units: Path, name: str) -> None:
    analyze(units, "--offline=true", f"--threshold={EXPOSURE[name]}", "security", units / name)


def setting(unit: str, key: str) -> str:
    """Return the value of a setting that a unit has once."""
    (value,) = re.findall(rf"(?m)^{key}=(.*)", (UNITS / unit).read_text())
    return str(value)


def test_lab_has_its_socket_where_clients_look(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    listen = setting("umlab@.socket", "ListenStream").replace("%t", str(short_dir)).replace("%i", "lan")
    assert Path(listen) == socket_path("lan")


def test_switch_is_told_the_path_of_its_socket() -> None:
    command = setting("uml-switch.service", "ExecStart").split()
    assert command[command.index("-unix") + 1] == setting("uml-switch.socket", "ListenStream")


def test_every_service_has_its_bound() -> None:
    assert sorted(EXPOSURE) == sorted(unit.name for unit in UNITS.glob("*.service"))
