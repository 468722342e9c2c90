"""Raw socket addresses: what sockets take and return, against the kernel's own sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from umlab.wire import sockaddr

#: As a UML kernel makes it: NUL, padding, pid, time, then what its memory held; it ends in NULs.
UML_NAME = (b"\0\0\0\0\x9c\x78\0\0\x2b\x15\x0c\0" + b"\x20\x80\0\0\x01").ljust(108, b"\0")


def test_pad_path_makes_108_bytes_of_anything_shorter() -> None:
    assert sockaddr.pad_path(b"\0ab") == b"\0ab" + bytes(105)
    assert sockaddr.pad_path("/tmp/x") == b"/tmp/x" + bytes(102)
    assert sockaddr.pad_path("/tmp/\udcff") == b"/tmp/\xff" + bytes(102)
    assert sockaddr.pad_path(UML_NAME) == UML_NAME


def test_pad_path_refuses_109_bytes() -> None:
    with pytest.raises(ValueError, match="109 bytes, at most 108"):
        sockaddr.pad_path(b"\0" + b"x" * 108)


def test_socket_address_of_an_abstract_name_keeps_its_nuls() -> None:
    assert sockaddr.socket_address(UML_NAME) == UML_NAME


def test_socket_address_of_a_pathname_ends_at_its_first_nul() -> None:
    assert sockaddr.socket_address(b"/tmp/x\0garbage".ljust(108, b"\xaa")) == b"/tmp/x"
    assert sockaddr.socket_address(b"x" * 107 + b"\0") == b"x" * 107


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (b"", "of 0 bytes, it has 108"),
        (UML_NAME[:-1], "of 107 bytes"),
        (UML_NAME + b"\0", "of 109 bytes"),
        (bytes(108), "empty"),
        (b"x" * 108, "without an end"),
    ],
)
def test_socket_address_of_something_else_is_refused(path: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sockaddr.socket_address(path)


@pytest.mark.parametrize("name", [UML_NAME, b"\0" + b"\xff" * 107, b"\0x".ljust(108, b"\0")])
def test_abstract_name_goes_through_the_kernel_unchanged(name: bytes) -> None:
    name = name[:-16] + os.urandom(8) + bytes(8) if name[-1:] == b"\0" else name[:-8] + os.urandom(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(sockaddr.socket_address(name))
        assert sockaddr.pad_path(bound.getsockname()) == name


def test_short_abstract_name_is_another_one(short_dir: Path) -> None:
    name = b"\0" + os.fsencode(short_dir)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full,
    ):
        short.bind(name)
        full.bind(sockaddr.pad_path(name))  # no EADDRINUSE


def test_sockaddr_is_110_bytes_with_the_family_first() -> None:
    data = sockaddr.serialize_sockaddr(UML_NAME)
    assert data == b"\x01\x00" + UML_NAME
    assert sockaddr.parse_sockaddr(data) == (socket.AF_UNIX, UML_NAME)
    assert sockaddr.parse_sockaddr(b"\x02\x00" + UML_NAME + b"more") == (socket.AF_INET, UML_NAME)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (bytes(108), "(unnamed)"),
        (b"/tmp/x\0garbage", "/tmp/x"),
        (b"/a b\\\xff\n".ljust(108, b"\0"), r"/a\x20b\x5c\xff\x0a"),
        (b"\0ab\0\x01c".ljust(108, b"\0"), r"@ab\x00\x01c"),
        (b"\0\0\0\0\x9c", r"@\x00\x00\x00\x9c"),
    ],
)
def test_printable_is_one_line_whatever_the_bytes(path: bytes, text: str) -> None:
    assert sockaddr.printable(path) == text
