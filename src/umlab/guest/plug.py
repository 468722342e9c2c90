"""What only the host can tell of a device that is to be plugged into a running guest.

The kernel says little of what it could not open, and some of it not at all: so it is looked for before.
Whether a socket is served is found out with a connection of another type than it takes, which the host
refuses with one error where somebody holds the socket and with another where nobody does: whoever serves
it hears nothing.

Source: Linux net/unix/af_unix.c ``unix_find_other``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.cmdline import DaemonNic
from umlab.guest.device import Console, Disk, LegacyNic, Setting
from umlab.guest.vector import VectorNic
from umlab.wire.cow import MAX_HEADER, parse_cow_header

#: A connection of these types to the other one is refused, and tells whether somebody is there.
_OTHER_TYPE = {socket.SOCK_STREAM: socket.SOCK_SEQPACKET, socket.SOCK_SEQPACKET: socket.SOCK_STREAM}


def check_plug(setting: Setting, writable: Sequence[str] | None) -> None:
    """Refuse a device that a running guest's kernel could not open.

    Args:
        setting: The device.
        writable: Files and folders that the guest may write to, ``None`` where it may write wherever
            its user may.

    Raises:
        LabError: Says what is missing and what would help.
    """
    match setting:
        case DaemonNic():
            _check_served(setting.control_path, socket.SOCK_STREAM)
        case LegacyNic(transport="vde"):
            folder = setting.arguments[0] if setting.arguments else ""
            _check_served(os.path.join(folder or "/var/run/vde.ctl", "ctl"), socket.SOCK_STREAM)
        case VectorNic(transport="fd"):
            raise LabError("a descriptor is inherited, so an fd NIC has to be there when the guest starts")
        case VectorNic(transport="bess"):
            _check_served(setting.get("dst") or "", socket.SOCK_SEQPACKET)
        case Disk():
            _check_disk(setting, writable)
        case Console():
            _check_console(setting, writable)


def _check_served(path: str, kind: socket.SocketKind) -> None:
    """Refuse a path where nobody serves a socket of a type."""
    for other in (socket.SOCK_DGRAM, _OTHER_TYPE[kind]):
        with socket.socket(socket.AF_UNIX, other) as probe:
            # A queue of connections that is full must keep nobody.
            probe.setblocking(False)
            try:
                probe.connect(path)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    continue
                raise LabError(f"nobody listens at {path}: {error.strerror}") from None
            raise LabError(f"the socket {path} is of another kind than this NIC connects to")


def _check_disk(disk: Disk, writable: Sequence[str] | None) -> None:
    if disk.backing is not None:
        _check_image("backing image", disk.backing)
        if not os.path.lexists(disk.file):
            folder = os.path.dirname(disk.file)
            if not os.path.isdir(folder):
                raise LabError(f"there is no folder {folder} for the COW file {disk.file}")
            _check_writable(folder, writable, "make a COW file there")
            return
        _check_image("COW file", disk.file)
        _check_cow(disk.file, disk.backing)
    else:
        _check_image("image", disk.file)
    if not disk.read_only:
        _check_writable(disk.file, writable, "write to it; plug it read-only, or with a COW file")


def _check_cow(path: str, backing: str) -> None:
    """Refuse a COW file that the kernel would refuse with this backing image, or die of."""
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER)
    try:
        header = parse_cow_header(start)
    except RemoteProtocolError as error:
        raise LabError(f"{path} is there and is no COW file of use: {error}; name another one") from None
    status = os.stat(backing)
    if header.size != status.st_size or header.mtime != int(status.st_mtime) & 0xFFFFFFFF:
        raise LabError(
            f"the COW file {path} is of another image than {backing}, or this one was changed since: size "
            f"{header.size} and time {header.mtime} there, {status.st_size} and {int(status.st_mtime)} here"
        )


def _check_image(what: str, path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise LabError(f"{what} {path}: {error.strerror}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise LabError(f"{what} {path} is neither a plain file nor a block device")
    if not os.access(path, os.R_OK):
        raise LabError(f"{what} {path} cannot be read")


def _check_console(console: Console, writable: Sequence[str] | None) -> None:
    for channel in (console.input, console.output or ""):
        kind, _, path = channel.partition(":")
        if kind == "fd":
            raise LabError(f"{channel}: a descriptor is inherited, a running guest cannot be given one")
        if kind == "pty" and not any(name.startswith("pty") for name in os.listdir("/dev")):
            raise LabError("this host has no pseudo-terminals of the BSD kind, which pty is; write pts")
        if kind == "tty":
            if not os.path.exists(path) or not stat.S_ISCHR(os.stat(path).st_mode):
                raise LabError(f"{path} is no terminal")
            _check_writable(path, writable, "write to it")


def _check_writable(path: str, writable: Sequence[str] | None, purpose: str) -> None:
    if not os.access(path, os.W_OK):
        raise LabError(f"{path} does not let this user write: the guest cannot {purpose}")
    if writable is None:
        return
    real = os.path.realpath(path)
    if not any(
        os.path.commonpath((real, os.path.realpath(place))) == os.path.realpath(place) for place in writable
    ):
        raise LabError(
            f"{path} is not among the places that the guest was given: it cannot {purpose}; "
            "guests are given places when they start, by `writable`"
        )
