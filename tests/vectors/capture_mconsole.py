"""Capture the golden vectors of the management console from the real programs.

Run: ``python tests/vectors/capture_mconsole.py`` with the UML kernel, uml_mconsole and uml_watchdog
installed; takes over a minute, because the watchdog waits that long.  Writes mconsole_*.bin (the
datagram), .txt (its dissection) and .toml (what it means and where it came from) beside this file.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from integration.peers.minimal_guest import minimal_guest  # noqa: E402

CLIENT = "uml_mconsole of uml-utilities 20070815.4"
WATCHDOG = "uml_watchdog of uml-utilities 20070815.4"

Field = tuple[int, str]
REQUEST: list[Field] = [(4, "magic"), (4, "version"), (4, "length")]
REPLY: list[Field] = [(4, "err"), (4, "more"), (4, "length, with the NUL")]
NOTIFY: list[Field] = [(4, "magic"), (4, "version"), (4, "type"), (4, "length")]
WATCHDOG_NOTIFY: list[Field] = [
    (8, "magic, as u64"),
    (4, "version"),
    (4, "type"),
    (4, "length"),
    (4, "padding, not initialised"),
]


def dissection(title: str, data: bytes, fields: list[Field], rest: str) -> str:
    """Return the datagram as hex, one field a line, the rest 16 bytes a line."""
    lines = [f"# {title}; {len(data)} bytes, little endian"]
    at = 0
    for size, name in fields:
        lines.append(f"{at:04x}  {data[at : at + size].hex(' '):48}  {name}")
        at += size
    for begin in range(at, len(data), 16):
        piece = data[begin : begin + 16]
        if not piece.strip(b"\0") and begin > at:
            lines.append(f"{begin:04x}  00 * {len(data) - begin}")
            break
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{begin:04x}  {piece.hex(' '):48}  {shown}" + (f"   <- {rest}" if begin == at else ""))
    return "\n".join(lines) + "\n"


def save(
    name: str, data: bytes, origin: str, kind: str, fields: list[Field], values: dict[str, object]
) -> None:
    """Write one vector's three files."""
    rest = {"request": "text, padded", "reply": "text", "notification": "data"}[kind]
    (HERE / f"{name}.bin").write_bytes(data)
    (HERE / f"{name}.txt").write_text(dissection(f"{name}: {kind} from {origin}", data, fields, rest))
    lines = [f'kind = "{kind}"', f'origin = "{origin}"', "", "[fields]"]
    for key, value in values.items():
        lines.append(f"{key} = {'true' if value is True else 'false' if value is False else _toml(value)}")
    (HERE / f"{name}.toml").write_text("\n".join(lines) + "\n")
    print(name, len(data))


def _toml(value: object) -> str:
    if isinstance(value, bytes):
        assert all(byte < 0x80 for byte in value), value
        text = value.decode().replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'
    return str(value)


def listener(path: Path) -> socket.socket:
    """Return a bound datagram socket whose reads end after two minutes."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(120)
    return sock


def capture_request(folder: Path) -> None:
    """Catch what the C client sends."""
    with listener(folder / "mconsole") as sock:
        client = subprocess.Popen(
            ["uml_mconsole", str(folder / "mconsole"), "version"], stderr=subprocess.DEVNULL
        )
        data = sock.recv(4096)
        client.kill()
        client.wait()
    save("mconsole_request_version", data, CLIENT, "request", REQUEST, {"text": b"version"})


def ask(guest: str, request: bytes) -> list[bytes]:
    """Send raw bytes to a guest and return the datagrams of its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")
        sock.connect(guest)
        sock.settimeout(20)
        sock.send(request)
        answer = [sock.recv(4096)]
        while answer[-1][:4] != b"ERR " and struct.unpack_from("=i", answer[-1], 4)[0]:
            answer.append(sock.recv(4096))
        return answer


def capture_replies(guest: str, kernel: str) -> None:
    """Catch a guest's answers of every form."""

    def request(text: bytes) -> bytes:
        return struct.pack("=III", 0xCAFEBABE, 2, len(text)) + text

    def keep(name: str, data: bytes, *, headed: bool = True) -> None:
        err, more = struct.unpack_from("=ii", data) if headed else (1, 0)
        text = data[12:-1] if headed else data.removeprefix(b"ERR ").removesuffix(b"\0")
        values = {"err": err, "more": bool(more), "text": text}
        save(name, data, kernel, "reply", REPLY if headed else [], values)

    keep("mconsole_reply_version", ask(guest, request(b"version"))[0])
    keep("mconsole_reply_empty", ask(guest, request(b"log vector"))[0])
    keep("mconsole_reply_errno", ask(guest, request(b"remove eth7"))[0])
    keep("mconsole_reply_unknown", ask(guest, request(b"bogus"))[0])
    keep("mconsole_reply_full", ask(guest, request(b"help"))[0])
    first, *_, last = ask(guest, request(b"proc version"))
    keep("mconsole_reply_proc_first", first)
    keep("mconsole_reply_proc_last", last)
    keep("mconsole_reply_version0", ask(guest, struct.pack("=III", 0, 2, 0))[0], headed=False)


def capture_notifications(folder: Path) -> None:
    """Catch what a guest says by itself, from its start to its panic, and the watchdog's cry."""
    path = folder / "notify"
    with listener(path) as sock:
        init = "printf 'from the guest' >/proc/mconsole"
        with minimal_guest("v1", f"mconsole=notify:{path}", extra=init) as guest:
            kernel = ask_version(str(guest.socket))
            start, user = sock.recv(4096), sock.recv(4096)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.bind("")
                client.connect(str(guest.socket))
                client.send(struct.pack("=III", 0xCAFEBABE, 2, 7) + b"sysrq c")
                panic = sock.recv(4096)
            captured = [
                ("mconsole_notify_socket", start, {"kind": 0, "data": start[16:-1]}),
                ("mconsole_notify_user", user, {"kind": 3, "data": user[16:]}),
                ("mconsole_notify_panic", panic, {"kind": 1, "data": panic[16:-1]}),
            ]
            for name, data, values in captured:
                save(name, data, kernel, "notification", NOTIFY, values)
        watchdog = subprocess.Popen(["uml_watchdog", "-mconsole", str(path)], stdin=subprocess.PIPE)
        hang = sock.recv(4096)
        watchdog.kill()
        watchdog.communicate()
        values = {"kind": 2, "data": b""}
        save("mconsole_notify_hang", hang, WATCHDOG, "notification", WATCHDOG_NOTIFY, values)


def ask_version(guest: str) -> str:
    """Return the guest kernel's name and version, for the vectors' origin."""
    text = ask(guest, struct.pack("=III", 0xCAFEBABE, 2, 7) + b"version")[0][12:-1].decode()
    return f"UML kernel {text.split()[2]}"


def main() -> None:
    """Capture all vectors."""
    folder = Path(tempfile.mkdtemp(prefix="uml"))
    try:
        capture_request(folder)
        with minimal_guest("v0") as guest:
            capture_replies(str(guest.socket), ask_version(str(guest.socket)))
        capture_notifications(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    os.umask(0o022)
    main()
