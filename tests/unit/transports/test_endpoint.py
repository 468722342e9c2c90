"""Addresses as text."""

from __future__ import annotations

import socket

import pytest

from umlab.errors import TransportError
from umlab.transports._endpoint import Address, family_of, format_address, parse_address, resolve_address


@pytest.mark.parametrize(
    ("text", "address", "family"),
    [
        ("/run/lan.qemu", "/run/lan.qemu", socket.AF_UNIX),
        ("lan.qemu", "lan.qemu", socket.AF_UNIX),
        ("./127.0.0.1:4000", "./127.0.0.1:4000", socket.AF_UNIX),
        ("a:b", "a:b", socket.AF_UNIX),
        ("127.0.0.1:4000", ("127.0.0.1", 4000), socket.AF_INET),
        ("0.0.0.0:65535", ("0.0.0.0", 65535), socket.AF_INET),
        ("[2001:DB8:0::1]:1", ("2001:db8::1", 1), socket.AF_INET6),
    ],
)
def test_text_is_a_path_or_a_host_and_a_port(
    text: str, address: Address, family: socket.AddressFamily
) -> None:
    assert parse_address(text) == address
    assert family_of(address) is family
    assert parse_address(format_address(address)) == address
    resolved = resolve_address(text, "/there/".__add__)
    assert resolved == (text if isinstance(address, tuple) else f"/there/{text}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not the path of a socket"),
        ("/" + "x" * 107, "at most 107 fit"),
        ("localhost:4000", "'localhost' is not a numeric address"),
        ("256.0.0.1:4000", "is not a numeric address"),
        ("127.0.0.1:0", "0 is not a port"),
        ("127.0.0.1:65536", "65536 is not a port"),
        ("127.0.0.1:" + "9" * 5000, "is not a port"),
        ("::1:4000", "in brackets if it is IPv6"),
        ("[fe80::1%eth0]:1", "'fe80::1%eth0' names an interface"),
        ("[127.0.0.1]:4000", "in brackets if it is IPv6"),
    ],
)
def test_text_that_is_neither_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(TransportError, match=reason):
        parse_address(text)
    with pytest.raises(TransportError, match=reason):
        resolve_address(text, lambda path: path)
