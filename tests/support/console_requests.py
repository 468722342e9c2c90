"""Requests whose answers a simulated guest and a real one are compared by, datagram for datagram.

They run in this order on one guest: some need the state that the ones before left.  ``{disk}`` and
``{nowhere}`` stand for the path of a file and for that of none.
"""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path

from support.deadline import scaled

EXACT = [
    *("version", "versionXYZ", "version x", "help", "VERSION", " version", "", "bogus"),
    *("go", "stop", "stop", "version", "help", "proc sys/kernel/ostype", "config mem", "remove eth7", "go"),
    *("stopx", "gox", "log hello\n", "logger\n", "log  hello\n"),
    *("proc version", "proc uname", "proc", "proc ", "proc sys", "proc sys/kernel", "proc ../version"),
    *("proc  version", "procversion", "proc version ", "proc nosuch", "proc nosuch/x", "proc version/x"),
    *("proc self/status", "proc 1/stat", "proc net/dev", "proc net", "proc modules", "proc swaps"),
    *("proc kallsyms", "proc slabinfo", "proc mconsole", "proc bus/input/devices", "proc sysvipc/shm"),
    *("proc consoles", "proc partitions", "proc diskstats"),
    *("proc sys/kernel/osrelease", "proc sys/kernel/version", "proc sys/kernel/hostname"),
    *("proc sys/kernel/panic", "proc sys/kernel/pid_max", "proc sys/net/ipv4/ip_forward"),
    *("config", "config ", "config bogus=1", "config random=1", "remove", "remove bogus"),
    *("config eth0", "config eth0=bogus", "config eth0=daemon,,,/nosuch", "config eth0=daemon,,,/nosuch"),
    *("remove eth0", "config ethx=daemon", "config eth", "remove eth", "config eth0=tuntap,x"),
    *("config eth0=daemon", "config eth0=bogus", "remove eth0", "remove eth0"),
    *("config vec0", "config vec0=transport=x", "config vec=x", "config vec:a=b", "config vecx:a=b"),
    *("config vec0:", "config vec0:transport", "config vec0:transport=bogus", "config vec0:a=b"),
    *("remove vec0", "remove vec0", "remove vec"),
    *("config ubd0", "config ubda", "config ubd3", "config ubd3={nowhere}", "config ubd3={disk}"),
    *("config ubd3={disk}", "config ubd3={nowhere}", "config ubd3", "config ubdd", "config ubd3r"),
    *("config ubd3:{disk}", "config  ubd3", "remove ubd3", "config ubd3", "remove ubd3"),
    *(
        "config ubdd={disk}",
        "config ubd3",
        "remove ubdd",
        "config ubd3r={disk}",
        "config ubd3",
        "remove ubd3",
    ),
    *("config ubd3={nowhere}-cow,{disk}", "config ubd3", "remove ubd3", "config ubd3={disk},,serial"),
    *("config ubd3", "remove ubd3", "config ubd16={disk}", "config ubdz={disk}", "config ubd99"),
    *("remove ubd16", "config ubd", "config ubd=", "remove ubd"),
    *("config con", "config con0", "config con1", "config con0=null", "remove con0", "config con3=null"),
    *("config con3", "config con4=pty,null", "config con4", "config con4=pts", "config con4", "remove con4"),
    *("config con4", "remove con4", "config con4=none", "config con4=fd:0,fd:1", "config con4"),
    *("config con4=bogus", "config con4=xterm", "config con4=tty:/dev/null", "config con4", "config con4x"),
    *("config con=null", "config conx=null", "config con4x=null", "config con16=null", "config con99"),
    *("remove con", "remove con4x", "remove con16", "config ssl0", "config ssl0=pts", "config ssl0"),
    *("remove ssl0", "config ssl64", "config ssl=null", "remove ssl64"),
    *("config mem=-1M", "config mem=+1M", "config mem=x", "config mem=", "config mem=1M", "config mem1"),
    *("remove mem", "config virtio_uml.device=/x:1"),
    *("stack", "stack x", "stack 9999", "stack 0"),
    *("sysrq", "sysrq h", "sysrq x", "sysrq  9", "proc sys/kernel/printk", "sysrq 4", "sysrq m", "sysrq p"),
    *("proc sys/kernel/printk", "sysrq 7", "sysrq s", "sysrq w", "sysrq j", "sysrq n"),
]
"""Compared byte for byte."""

NUMBERS = ["proc uptime", "proc loadavg", "proc stat", "proc meminfo", "proc softirqs", "proc interrupts"]
"""Compared but for the numbers and the blanks before them."""

SHAPES = [
    "proc cpuinfo",
    "proc cmdline",
    "proc mounts",
    "proc zoneinfo",
    "proc filesystems",
    "sysrq m",
    "sysrq p",
]
"""Compared by the first and the last datagram, and by every header."""


def request(text: bytes, *, magic: int = 0xCAFEBABE, version: int = 2, length: int | None = None) -> bytes:
    """Return a request's datagram, well formed or not."""
    return struct.pack("=III", magic, version, len(text) if length is None else length) + text


MALFORMED = {
    "no magic": (request(b"version", magic=0), 1),
    "version 1": (request(b"version", version=1), 2),
    "version 3, unknown command": (request(b"bogus", version=3), 2),
    "512 bytes": (request(b"x" * 512), 1),
    "a length of 512": (request(b"version", length=512), 1),
    "a negative length": (request(b"version", length=0xFFFFFFFF), 1),
    "511 bytes": (request(b"version".ljust(511)), 1),
    "a length that cuts": (request(b"version", length=4), 1),
    "padded": (request(b"version").ljust(524, b"\0"), 1),
    "a NUL in the text": (request(b"version\0bogus"), 1),
    "a whole request, as before": (request(b"help"), 1),
    "the magic again": (request(b"")[:4], 1),
    "nothing again": (b"", 1),
}
"""Datagrams that no client should send, and how many answers each gets.

Without a header, they run once more what came before them.
"""


def ask(path: Path, data: bytes, answers: int = 1) -> list[bytes]:
    """Send a datagram to a console and return the datagrams of its answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")
        client.connect(str(path))
        client.settimeout(scaled(20))
        client.send(data)
        found: list[bytes] = []
        while answers:
            found.append(client.recv(4096))
            answers -= _ends(found[-1])
        return found


def _ends(datagram: bytes) -> bool:
    return datagram.startswith(b"ERR ") or not struct.unpack_from("=i", datagram, 4)[0]


def without_numbers(datagrams: list[bytes]) -> bytes:
    """Return an answer's text with each number, and the blanks before it, as ``0``."""
    return re.sub(rb" *[0-9][0-9.]*", b"0", b"".join(datagram[12:-1] for datagram in datagrams))


def shape(datagrams: list[bytes]) -> tuple[bytes, bytes, set[bytes]]:
    """Return what is the same in two answers of one kind: the ends, and the headers without the lengths."""
    return datagrams[0], datagrams[-1], {datagram[:8] for datagram in datagrams}
