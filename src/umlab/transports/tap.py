"""A tap device of the host as a port.

Source: Linux Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Mapping

from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing, Link
from umlab.transports.contract import Argument, KeptSession, Session, SessionSink, Transport, nothing_to_close

_CLONE_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
#: Bytes of an interface's name, without the NUL.
_MAX_NAME = 15
#: Blanks, what the kernel refuses, and what it would replace by a number.
_NOT_IN_A_NAME = re.compile(rb"[\x00-\x20/:%]")
_FIXES = {
    errno.ENOENT: f"{_CLONE_DEVICE} is missing; load the kernel module tun",
    errno.ENODEV: f"{_CLONE_DEVICE} has no driver; load the kernel module tun",
    errno.EPERM: "not permitted; let root make it for you: ip tuntap add dev {} mode tap user $USER",
    errno.EACCES: f"{_CLONE_DEVICE} may not be opened; let root run: chmod 666 {_CLONE_DEVICE}",
    errno.EBUSY: "another program has it open",
    errno.EINVAL: "it is there and is no tap device for one program",
}


class TapListener:
    """One tap device, which becomes one port at once.

    Args:
        device: Its name; a device that does not exist is made where that is permitted.
    """

    kind = "tap"
    arguments: tuple[Argument, ...] = ()

    def __init__(self, device: str) -> None:
        self.where = device

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open the device and give it a port; see :class:`umlab.transports.contract.Listener`."""
        if kept is not None:
            # Its port is resumed, or somebody had taken it away.
            return
        fd = open_tap(self.where)
        session = self._session(fd)
        try:
            sink.session_opened(session)
        except (SwitchError, StateError) as error:
            os.close(fd)
            raise TransportError(f"tap device {self.where}: {error}") from None

    async def close(self) -> None:
        """Do nothing: the engine closes the device."""

    def descriptors(self) -> dict[str, int]:
        """Return nothing: the port is all there is."""
        return {}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the device."""
        (fd,) = kept.fds
        return self._session(fd)

    def _session(self, fd: int) -> Session:
        return Session(self.kind, Link(fd, Framing.DEVICE), None, self.where, nothing_to_close)


def open_tap(device: str) -> int:
    """Open a tap device without packet information, made if it must be, and return its descriptor.

    Raises:
        TransportError: The name is not usable or the device cannot be had; says what helps.
    """
    name = os.fsencode(device)
    if not 0 < len(name) <= _MAX_NAME or _NOT_IN_A_NAME.search(name) or name in (b".", b".."):
        raise TransportError(f"{device!r} is not the name of an interface")
    fd = -1
    try:
        fd = os.open(_CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", name, _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        reason = _FIXES.get(error.errno or 0, error.strerror or "").format(device)
        raise TransportError(f"tap device {device}: {reason}") from None
    return fd


TRANSPORT = Transport("tap", "tap:DEVICE", lambda place, access: TapListener(place))
