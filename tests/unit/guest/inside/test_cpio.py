"""The newc archive: exact bytes, what the real cpio reads, and what is refused."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from umlab.errors import (
    BadMagic,
    LocalProtocolError,
    OversizeMessage,
    RemoteProtocolError,
    TruncatedMessage,
)
from umlab.guest.inside.cpio import (
    MAX_NAME,
    Member,
    character_device,
    directory,
    file,
    parse_archive,
    serialize_archive,
    symlink,
)

MEMBERS = [
    directory("bin"),
    file("bin/tool", b"#!/bin/sh\n", 0o755),
    file("empty", b""),
    symlink("link", "bin/tool"),
    character_device("console", 5, 1),
    Member("owned", stat.S_IFREG | 0o600, b"x", uid=7, gid=8, mtime=9),
]


def test_member_has_the_documented_layout() -> None:
    archive = serialize_archive([file("ab", b"cde")])
    numbers = (1, 0o100644, 0, 0, 1, 0, 3, 0, 0, 0, 0, 3, 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers)
    assert archive.startswith(head + b"ab\0" + b"\0" * 3 + b"cde\0" + b"070701")
    assert len(archive) % 4 == 0


def test_parse_gives_back_what_was_serialized() -> None:
    assert list(parse_archive(serialize_archive(MEMBERS))) == MEMBERS


def test_equal_members_give_equal_bytes() -> None:
    assert serialize_archive(MEMBERS) == serialize_archive(list(MEMBERS))


def test_bytes_after_the_trailer_are_ignored() -> None:
    assert list(parse_archive(serialize_archive(MEMBERS[:1]) + b"rest")) == MEMBERS[:1]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="the program cpio is not installed")
def test_real_cpio_lists_and_unpacks_our_archive(tmp_path: Path) -> None:
    archive = serialize_archive([member for member in MEMBERS if not stat.S_ISCHR(member.mode)])
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    assert listed.stdout.decode().split() == ["bin", "bin/tool", "empty", "link", "owned"]
    unpack = ["cpio", "-i", "-d", "--quiet", "--no-preserve-owner"]
    subprocess.run(unpack, input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "link") == "bin/tool"


@pytest.mark.skipif(shutil.which("cpio") is None, reason="the program cpio is not installed")
def test_archive_of_the_real_cpio_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"content")
    names = b"folder\nfolder/file\n"
    made = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], input=names, cwd=tmp_path, capture_output=True, check=True
    )
    members = list(parse_archive(made.stdout))
    assert [(member.name, member.data) for member in members] == [
        ("folder", b""),
        ("folder/file", b"content"),
    ]


@pytest.mark.parametrize(
    "member",
    [
        file("", b""),
        file("a\0b", b""),
        file("x" * MAX_NAME, b""),
        file("TRAILER!!!", b""),
        Member("x", stat.S_IFREG, uid=-1),
        Member("x", stat.S_IFREG, mtime=1 << 32),
    ],
)
def test_member_that_does_not_fit_is_refused(member: Member) -> None:
    with pytest.raises(LocalProtocolError):
        serialize_archive([member])


def test_every_cut_of_an_archive_is_reported() -> None:
    archive = serialize_archive([file("ab", b"cde")])
    # The padding behind the trailer's name is not needed.
    for size in range(len(archive) - 3):
        with pytest.raises(TruncatedMessage) as caught:
            list(parse_archive(archive[:size]))
        assert caught.value.needed > size


@pytest.mark.parametrize(
    ("position", "replacement", "error"),
    [
        (0, b"070702", BadMagic),
        (14, b"0000x1a4", RemoteProtocolError),
        (14, b"+0000001", RemoteProtocolError),
        (94, b"00000000", OversizeMessage),
        (94, b"00001001", OversizeMessage),
        (112, b"x", RemoteProtocolError),
        (110, b"\0", RemoteProtocolError),
    ],
)
def test_broken_header_is_refused(position: int, replacement: bytes, error: type[Exception]) -> None:
    archive = bytearray(serialize_archive([file("ab", b"cde" * 2000)]))
    archive[position : position + len(replacement)] = replacement
    with pytest.raises(error):
        list(parse_archive(bytes(archive)))
