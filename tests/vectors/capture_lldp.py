"""Capture the golden vectors of LLDP from Debian's lldpd: what it says, and its farewell.

Run as root: ``python tests/vectors/capture_lldp.py`` with lldpd installed.  Writes lldp_*.bin, .txt and .toml
beside this file.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from integration.peers.lldpd import lldpd
from integration.peers.namespace import network_namespace
from integration.peers.uplink import cable
from umlab.transports.raw import open_raw
from umlab.wire.lldp import capability_names, chassis_text, is_lldp, parse_frame, port_text
from vectors.capture_daemon import Field, save

HEADER: list[Field] = [(6, "destination"), (6, "source"), (2, "ethertype")]
NAMES = {
    **{0: "end", 1: "chassis", 2: "port", 3: "time to live", 4: "port description", 5: "system name"},
    **{6: "system description", 7: "capabilities", 8: "management address", 127: "an organisation's own"},
}


def layout(frame: bytes) -> list[Field]:
    """Return the TLVs of a frame."""
    fields, at = list(HEADER), 14
    while at < len(frame):
        head = int.from_bytes(frame[at : at + 2], "big")
        fields.append((2 + head % 512, NAMES[head >> 9]))
        at += fields[-1][0]
    return fields


def keep(name: str, frame: bytes, origin: str) -> None:
    """Write a vector."""
    pdu = parse_frame(frame)
    fields: dict[str, object] = {
        "chassis": chassis_text(pdu.chassis_id),
        "port": port_text(pdu.port_id),
        "ttl": pdu.ttl,
        "system_name": pdu.system_name.decode(),
        "capabilities": list(capability_names(pdu.capabilities.enabled)) if pdu.capabilities else [],
        "passed_over": pdu.passed_over,
    }
    save(name, frame, origin, layout(frame), fields, order="big endian")


def capture() -> None:
    """Let an agent speak at one end of a cable, and keep its first frame and its last."""
    version = subprocess.run(["lldpd", "-v"], capture_output=True, text=True, check=True).stdout.strip()
    with network_namespace() as namespace:
        cable(namespace)
        namespace.run("ip", "link", "set", "far", "address", "02:00:00:00:00:01")
        namespace.run("ip", "addr", "add", "10.0.0.1/24", "dev", "far")
        namespace.run("ip", "-6", "addr", "flush", "dev", "far")
        with namespace.entered():
            near = open_raw("near")
        with near, lldpd(namespace, "far", "left.example", 30) as agent:
            near.settimeout(10)
            keep("lldp_lldpd", next_frame(near), f"lldpd {version}")
            agent.end()
            frame = next_frame(near)
            while parse_frame(frame).ttl:
                frame = next_frame(near)
            keep("lldp_lldpd_farewell", frame, f"lldpd {version}")


def next_frame(sock: socket.socket) -> bytes:
    """Return the next frame that is LLDP."""
    while not is_lldp(frame := sock.recv(2000)):
        pass
    return frame


if __name__ == "__main__":
    capture()
