"""What a daemon is told to run: a switch, and the places where it listens."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import umlab.daemon.port_schema  # noqa: F401 (an order is JSON)
from umlab.engine.contract import MAX_CAPTURE, MIN_CAPTURE
from umlab.errors import TransportError
from umlab.guest.cmdline import BessNic, DaemonNic, FdNic, Nic
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import PRIVATE, Access
from umlab.transports.registry import TRANSPORTS
from umlab.transports.socketfile import check_socket_path

#: Where a switch listens that is told nothing else: everywhere where it needs no place.
DEFAULT_KINDS = tuple(each.kind for each in TRANSPORTS.values() if each.default)
#: Bytes of memory of a flight recorder that is told nothing else.
DEFAULT_RECORDER = 16 << 20


@dataclass(frozen=True, slots=True)
class SwitchSpec:
    """One switch of a lab.

    Attributes:
        name: Its name, which is its segment's.
        config: What it is told to be.
        listen: Where guests attach, as :func:`umlab.transports.registry.parse_listen` takes it; paths are
            absolute.
        access: Who may attach there.
        recorder: Bytes of memory for the flight recorder, 0 for none.
        lldp: Whether it tells its neighbours of itself.
    """

    name: str
    config: SwitchConfig
    listen: tuple[str, ...]
    access: Access = PRIVATE
    recorder: int = DEFAULT_RECORDER
    lldp: bool = False

    def __post_init__(self) -> None:
        if self.recorder and not MIN_CAPTURE <= self.recorder <= MAX_CAPTURE:
            raise ValueError(f"recorder must be 0, or between {MIN_CAPTURE} and {MAX_CAPTURE} bytes")


def default_listen(kind: str, segment: str, runtime: Path) -> str:
    """Return where a segment listens for a kind of guest that is given no place.

    Args:
        kind: A transport, such as ``daemon``.
        segment: The segment's name.
        runtime: The lab's directory for sockets.

    Raises:
        TransportError: The kind has no such place, or its path is not usable.
    """
    transport = TRANSPORTS.get(kind)
    if transport is None or not transport.default:
        kinds = ", ".join([*DEFAULT_KINDS, *(each.form for each in TRANSPORTS.values())])
        raise TransportError(f"{kind!r} is no place to listen; write one of {kinds}")
    path = os.path.abspath(runtime / transport.default.format(segment))
    if "," in path:
        raise TransportError(f"the socket path {path} has a comma, which ends it where a guest is told")
    check_socket_path(path)
    return f"{kind}:{path}"


def attached_nic(
    transport: str,
    segment: str,
    listening: tuple[str, ...],
    mac: str | None = None,
    mtu: int | None = None,
) -> Nic | None:
    """Return a NIC on the first of a segment's places that takes it, or ``None`` where there is none.

    Args:
        transport: ``daemon`` or ``bess``, or ``fd``, which needs no place.
        segment: The segment's name.
        listening: Where the segment listens, with absolute paths.
        mac: As in :class:`DaemonNic`.
        mtu: As in :class:`BessNic`; a :class:`DaemonNic` has none.
    """
    if transport == "fd":
        return FdNic(segment, mac, mtu)
    for spec in listening:
        kind, _, place = spec.partition(":")
        if kind == transport:
            return DaemonNic(place.partition(",")[0], mac) if kind == "daemon" else BessNic(place, mac, mtu)
    return None


def resolve_listen(spec: str, segment: str, runtime: Path, folder: str | os.PathLike[str] | None = "") -> str:
    """Return a place to listen with everything that its short form leaves out.

    Args:
        spec: A kind alone, such as ``daemon``, or ``KIND:PLACE``.
        segment: The segment's name.
        runtime: The lab's directory for sockets.
        folder: What relative paths begin at, the current directory unless given; ``None`` where there is
            no such place.

    Raises:
        TransportError: No such kind, no place, a path that no socket address holds, or a relative one
            that begins nowhere; names it.
    """
    kind, _, place = spec.partition(":")
    if kind not in TRANSPORTS or not place:
        return default_listen(spec, segment, runtime)

    def absolute(path: str) -> str:
        if folder is None and not os.path.isabs(path):
            raise TransportError(f"{spec[:200]!r}: {path[:200]!r} is not an absolute path")
        if any(ord(char) < 0x20 or char == "\x7f" for char in path):
            raise TransportError(f"the socket path {path[:200]!r} has a control character")
        if "," in path:
            raise TransportError(
                f"the socket path {path[:200]!r} has a comma, which ends it where a guest is told"
            )
        resolved = os.path.abspath(os.path.join(folder or "", path))
        check_socket_path(resolved)
        return resolved

    return f"{kind}:{TRANSPORTS[kind].resolve(place, absolute)}"
