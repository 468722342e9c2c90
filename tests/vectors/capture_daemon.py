"""Capture the golden vectors of the attach protocol from the real kernel and the real switches.

Run: ``python tests/vectors/capture_daemon.py`` with the UML kernel, uml_switch, vde_switch and vde_plug
installed.  Writes daemon_*.bin (the bytes on the control stream), .txt (their dissection) and .toml
(what they mean, where they came from and what the C switch did with them) beside this file.

Nothing in use today sends the versions 0, 1 and 2.  Those requests are made here, and what shows that
they are right is what uml_switch does with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from integration.peers.fake_guest import FakeGuest, attach_request  # noqa: E402
from integration.peers.minimal_guest import MinimalGuest  # noqa: E402
from support.deadline import wait_until  # noqa: E402

SWITCH = "uml_switch of uml-utilities 20070815.4"
VDE_SWITCH = "vde_switch of vde2 2.3.2"
VDE_PLUG = "vde_plug with libvdeplug 4.0.1"
BY_HAND = "made by capture_daemon.py"

#: In what uml_switch says when it starts and ends.
_NOT_ABOUT_REQUESTS = (" attached to ", "compatibility", "Caught signal")

Field = tuple[int, str]
ADDRESS: list[Field] = [(2, "family: AF_UNIX"), (108, "path")]
V0: list[Field] = [(4, "type"), (6, "MAC"), *ADDRESS]
V1: list[Field] = [(4, "magic"), (4, "type"), (6, "MAC"), *ADDRESS]
V3: list[Field] = [(4, "magic"), (4, "version"), (4, "type"), *ADDRESS]


def dissection(title: str, data: bytes, fields: list[Field], order: str = "little endian") -> str:
    """Return the bytes as hex, 16 a line, each field with its name on its first line."""
    lines = [f"# {title}; {len(data)} bytes, {order}"]
    at = 0
    rest = len(data) - sum(size for size, _ in fields)
    for size, name in [*fields, (rest, "behind it")]:
        for begin in range(0, size, 16):
            piece = data[at + begin : at + min(size, begin + 16)]
            if begin and not data[at + begin : at + size].strip(b"\0"):
                lines.append(f"{at + begin:04x}  00 * {size - begin}")
                break
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
            label = f"   <- {name}" if not begin else ""
            lines.append(f"{at + begin:04x}  {piece.hex(' '):48}  {shown:16}{label}".rstrip())
        at += size
    return "\n".join(lines) + "\n"


def save(
    name: str,
    data: bytes,
    origin: str,
    layout: list[Field],
    fields: dict[str, object],
    *,
    order: str = "little endian",
    **more: object,
) -> None:
    """Write one vector's three files."""
    kind = name.split("_")[1]
    (HERE / f"{name}.bin").write_bytes(data)
    (HERE / f"{name}.txt").write_text(dissection(f"{name}: {kind} from {origin}", data, layout, order))
    head = [f'kind = "{kind}"', f'origin = "{origin}"', *(f"{key} = {_toml(more[key])}" for key in more)]
    body = [f"{key} = {_toml(value)}" for key, value in fields.items()]
    (HERE / f"{name}.toml").write_text("\n".join([*head, "", "[fields]", *body]) + "\n")
    print(name, len(data))


def _toml(value: object) -> str:
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a directory with a short path for the length of a block."""
    path = Path(tempfile.mkdtemp(prefix="uml"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    """Listen as a switch does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        sock.settimeout(60)
        yield sock


def first_words(sock: socket.socket) -> bytes:
    """Accept a connection and return what it sends at once."""
    connection, _ = sock.accept()
    with connection:
        connection.settimeout(60)
        return connection.recv(4096)


def capture_kernel() -> None:
    """Catch what the kernel's daemon transport sends; it waits for the reply until it is killed."""
    with folder() as work, listener(work / "ctl") as sock:
        guest = MinimalGuest("v0", work, f"eth0=daemon,,unix,{work}/ctl")
        try:
            data = first_words(sock)
            kernel = subprocess.run(["linux.uml", "--version"], capture_output=True, text=True, check=True)
        finally:
            guest.kill()
    fields = {"version": 3, "path": data[14:122], "behind": data[122:]}
    save("daemon_request_v3_kernel", data, f"UML kernel {kernel.stdout.strip()}", V3, fields)


def capture_vde_plug() -> None:
    """Catch what VDE's library sends: a name of its own in the directory, and a text behind the request."""
    with folder() as work:
        (work / "sw").mkdir()
        with listener(work / "sw/ctl") as sock:
            plug = subprocess.Popen(
                ["vde_plug", f"vde://{work}/sw"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            try:
                data = first_words(sock)
            finally:
                plug.kill()
                plug.communicate()
    fields = {"version": 3, "path": data[14:122], "behind": data[122:]}
    save("daemon_request_v3_vde", data, VDE_PLUG, V3, fields)


class Switch:
    """A running switch of the others; ``said`` is complete after the block."""

    def __init__(self, work: Path, *command: str, control: str = "ctl") -> None:
        self.control = work / control
        self.said: list[str] = []
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=work,
        )

    def sleeps(self) -> bool:
        """Say whether it waits for something."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0] == "S"

    def __enter__(self) -> Switch:
        wait_until(self.control.is_socket, 10, "the switch's socket")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.said = self.process.communicate(timeout=10)[0].splitlines()


def answer(switch: Switch, version: int, work: Path) -> tuple[bytes, bytes]:
    """Attach as a version does; return the request and the answer, empty where the stream just ends."""
    with FakeGuest(switch.control, work / "data") as guest:
        request = attach_request(version, guest.name)
        guest.stream.sendall(request)
        guest.stream.shutdown(socket.SHUT_WR)
        reply = guest.read_reply()
        with contextlib.suppress(ConnectionResetError):
            while guest.stream.recv(4096):
                pass
        wait_until(switch.sleeps, 10, "the switch has said all that it has to say")
        return request, reply


def capture_uml_switch() -> None:
    """Catch the C switch's replies, and what it says to requests of every version."""
    layouts = {0: V0, 1: V1, 2: V3}
    for version, layout in layouts.items():
        with folder() as work:
            command = ["uml_switch", "-compat-v0", "-unix", "ctl", "data"]
            with Switch(work, *command) as switch:
                request, reply = answer(switch, version, work)
        path = sum(size for size, _ in layout) - 108
        fields: dict[str, object] = {"version": version, "path": request[path : path + 108]}
        if version < 2:
            fields["mac"] = request[path - 8 : path - 2]
        fields["behind"] = request[path + 108 :]
        said = [line for line in switch.said if not any(word in line for word in _NOT_ABOUT_REQUESTS)]
        save(
            f"daemon_request_v{version}",
            request,
            BY_HAND,
            layout,
            fields,
            uml_switch=said,
            uml_switch_reply_size=len(reply),
        )
    for name, command in {
        "daemon_reply_v3": ["uml_switch", "-unix", "ctl"],
        "daemon_reply_v3_compat": ["uml_switch", "-compat-v0", "-unix", "ctl", "data"],
    }.items():
        with folder() as work, Switch(work, *command) as switch:
            _, reply = answer(switch, 3, work)
        save(name, reply, SWITCH, ADDRESS, {"path": reply[2:]})
    with folder() as work, Switch(work, "uml_switch", "-unix", "ctl") as switch:
        _, reply = answer(switch, 1, work)
    save("daemon_reply_v1", reply, SWITCH, ADDRESS, {"path": reply[2:]})


def capture_vde_switch() -> None:
    """Catch the reply of vde_switch, which names a path."""
    with folder() as work, Switch(work, "vde_switch", "-s", f"{work}/sw", control="sw/ctl") as switch:
        _, reply = answer(switch, 3, work)
    save("daemon_reply_vde", reply, VDE_SWITCH, ADDRESS, {"path": reply[2:]})


def main() -> None:
    """Capture all vectors."""
    capture_kernel()
    capture_vde_plug()
    capture_uml_switch()
    capture_vde_switch()


if __name__ == "__main__":
    os.umask(0o022)
    main()
