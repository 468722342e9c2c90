"""Where a socket is, as text: a path, or ``HOST:PORT`` with a numeric address."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable

from umlab.errors import TransportError
from umlab.transports.socketfile import check_socket_path

#: A path, or a host and a port.
Address = str | tuple[str, int]

_HOST_PORT = re.compile(r"(?P<host>[^/\[\]]+|\[[^/\[\]]+\]):(?P<port>[0-9]+)", re.ASCII)


def parse_address(text: str) -> Address:
    """Return what a text names: what ends in ``:NUMBER`` and has no slash is a host and a port.

    Raises:
        TransportError: It is neither; says why.
    """
    if _HOST_PORT.fullmatch(text):
        return parse_host_port(text)
    check_socket_path(text)
    return text


def parse_host_port(text: str) -> tuple[str, int]:
    """Return the host and the port of ``192.0.2.1:4000`` or ``[2001:db8::1]:4000``.

    Names are not looked up: that takes time, and its answer may be another one tomorrow.

    Raises:
        TransportError: It is none.
    """
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise TransportError(f"{text!r} is not ADDRESS:PORT")
    host, port = match["host"].strip("[]"), match["port"]
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        raise TransportError(f"{host!r} is not a numeric address") from None
    if "%" in host:
        raise TransportError(f"{host!r} names an interface; take an address that needs none")
    if (parsed.version == 6) != match["host"].startswith("["):
        raise TransportError(f"write {text!r} with the address in brackets if it is IPv6, else without")
    if len(port) > 5 or not 0 < int(port) < 1 << 16:
        raise TransportError(f"{port} is not a port, 1 to 65535")
    return str(parsed), int(port)


def resolve_address(text: str, absolute: Callable[[str], str]) -> str:
    """Return a text with its path, if it is one, made absolute.

    Raises:
        TransportError: It names nothing.
    """
    return text if isinstance(parse_address(text), tuple) else absolute(text)


def family_of(address: Address) -> socket.AddressFamily:
    """Return which kind of socket an address is for."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def format_address(address: Address) -> str:
    """Write an address as :func:`parse_address` takes it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
