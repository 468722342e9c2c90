"""A tap device of the host as a port.

Source: Linux Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h; RFC 4861, section 4.1.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Mapping

from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing, Link
from umlab.transports._bpf import (
    JUMP_IF_EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_WORD,
    PACKET_TYPE,
    RETURN,
    WHOLE,
    Instruction,
    attach_tap_filter,
)
from umlab.transports.contract import Argument, KeptSession, Session, SessionSink, Transport, nothing_to_close
from umlab.transports.interface import interface_name

_CLONE_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP = 0x0002
#: Also IFF_NOFILTER: a lasting device does not give us the filter of who had it open before.
_IFF_NO_PI = 0x1000
# Where a frame has what, and the values that make it a router solicitation of the host.
_ETHER_TYPE_AT, _NEXT_HEADER_AT, _ICMPV6_TYPE_AT = 12, 20, 54
_PACKET_HOST, _IPV6, _ICMPV6, _ROUTER_SOLICITATION = 0, 0x86DD, 58, 133
_FIXES = {
    errno.ENOENT: f"{_CLONE_DEVICE} is missing; load the kernel module tun",
    errno.ENODEV: f"{_CLONE_DEVICE} has no driver; load the kernel module tun",
    errno.EPERM: "not permitted; let root make it for you: ip tuntap add dev {} mode tap user $USER",
    errno.EACCES: f"{_CLONE_DEVICE} may not be opened; let root run: chmod 666 {_CLONE_DEVICE}",
    errno.EBUSY: "another program has it open",
    errno.EINVAL: "it is there and is no tap device for one program",
}
#: A host solicits on every interface that comes up, and would take a guest that is a router for its own.
#: What a bridge forwards here has another packet type than what this host sends: the solicitations of
#: others pass.
_NO_SOLICITATIONS_OF_THE_HOST = (
    Instruction(LOAD_WORD, PACKET_TYPE),
    Instruction(JUMP_IF_EQUAL, _PACKET_HOST, if_false=7),
    Instruction(LOAD_HALF, _ETHER_TYPE_AT),
    Instruction(JUMP_IF_EQUAL, _IPV6, if_false=5),
    Instruction(LOAD_BYTE, _NEXT_HEADER_AT),
    Instruction(JUMP_IF_EQUAL, _ICMPV6, if_false=3),
    Instruction(LOAD_BYTE, _ICMPV6_TYPE_AT),
    Instruction(JUMP_IF_EQUAL, _ROUTER_SOLICITATION, if_false=1),
    Instruction(RETURN, 0),
    Instruction(RETURN, WHOLE),
)


class TapListener:
    """One tap device, which becomes one port at once.

    Args:
        device: Its name; a device that does not exist is made where that is permitted.
        solicitations: Whether the host's own IPv6 router solicitations come through.
    """

    kind = "tap"
    arguments: tuple[Argument, ...] = ()

    def __init__(self, device: str, *, solicitations: bool = False) -> None:
        self.where = device
        self._solicitations = solicitations

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open the device and give it a port; see :class:`umlab.transports.contract.Listener`."""
        if kept is not None:
            # Its port is resumed, or somebody had taken it away.
            return
        fd = open_tap(self.where, solicitations=self._solicitations)
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


def open_tap(device: str, *, solicitations: bool = False) -> int:
    """Open a tap device without packet information, made if it must be, and return its descriptor.

    Args:
        device: Its name.
        solicitations: Whether the host's own IPv6 router solicitations come through.

    Raises:
        TransportError: The name is not usable or the device cannot be had; says what helps.
    """
    name = interface_name(device)
    fd = -1
    try:
        fd = os.open(_CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", name, _IFF_TAP | _IFF_NO_PI))
        # A lasting device has those of who had it open before, and frames would come without checksums.
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
        if not solicitations:
            attach_tap_filter(fd, _NO_SOLICITATIONS_OF_THE_HOST)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        reason = _FIXES.get(error.errno or 0, error.strerror or "").format(device)
        raise TransportError(f"tap device {device}: {reason}") from None
    return fd


TRANSPORT = Transport("tap", "tap:DEVICE", lambda place, access: TapListener(place))
