"""Capture the golden vectors of Ethernet frames from a real guest: one ARP request as it is, one tagged.

Run: ``python tests/vectors/capture_ethernet.py`` with the UML kernel and its modules installed.  Writes
ethernet_*.bin, .txt and .toml beside this file.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from integration.peers.uml_kernel import running_guest
from umlab.guest.cmdline import BessNic, TinyRoot
from vectors.capture_daemon import Field, folder, save

MAC = "02:00:00:00:00:01"
HEADER: list[Field] = [(6, "destination"), (6, "source"), (2, "ethertype")]
TAG: list[Field] = [(2, "priority and VLAN id"), (2, "ethertype behind the tag")]
ARP: list[Field] = [(8, "ARP: Ethernet, IPv4, request"), (10, "sender"), (10, "target")]


async def capture() -> None:
    """Let a guest ask for an address on its NIC and on a VLAN of it, and keep the first ARP frame of each."""
    with folder() as work, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(work / "bess"))
        listener.listen()
        nic = BessNic(str(work / "bess"), mac=MAC)
        async with running_guest(work, nics=(nic,), root=TinyRoot(modules=("8021q",))) as guest:
            await guest.run("ip link set vec0 up", 20)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                release = (await guest.run("uname -r", 20)).output.decode().strip()
                await guest.run(
                    "vconfig add vec0 5; ip link set vec0.5 up; ip addr add 10.0.5.1/24 dev vec0.5", 20
                )
                await guest.run("ip addr add 10.0.0.1/24 dev vec0", 20)
                for device, name, ethertype in (
                    ("vec0", "ethernet_arp", 0x0806),
                    ("vec0.5", "ethernet_vlan", 0x8100),
                ):
                    target = "10.0.5.2" if ethertype == 0x8100 else "10.0.0.2"
                    await guest.run(f"arping -c 1 -w 1 -I {device} {target}", 20)
                    frame = connection.recv(2000)
                    while int.from_bytes(frame[12:14], "big") != ethertype:
                        frame = connection.recv(2000)
                    layout = [*HEADER, *(TAG if ethertype == 0x8100 else []), *ARP]
                    fields: dict[str, object] = {"dst": frame[:6], "src": frame[6:12], "ethertype": ethertype}
                    save(name, frame, f"UML kernel {release}", layout, fields, order="big endian")


if __name__ == "__main__":
    asyncio.run(capture())
