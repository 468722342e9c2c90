"""Headers of COW files: all versions, and those that would kill a kernel."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from support.require import require_program
from umlab.errors import BadMagic, RemoteProtocolError, TruncatedMessage, UnsupportedVersion
from umlab.wire.cow import MAX_HEADER, CowHeader, parse_cow_header

PATH = b"/srv/a.img"
#: Each version as the kernel's sources describe it.
V1 = struct.pack("<II256sIQI", 0x4F4F4F4D, 1, PATH, 7, 1 << 20, 512)
V2 = struct.pack(">II4096sIQI", 0x4F4F4F4D, 2, PATH, 7, 1 << 20, 512)
V3 = struct.pack(">IIIQIII4096s", 0x4F4F4F4D, 3, 7, 1 << 20, 512, 4096, 0, PATH)
BROKEN_V3 = struct.pack(">IIIIQIII4096s", 0x4F4F4F4D, 3, 7, 0, 1 << 20, 512, 4096, 0, PATH)


@pytest.mark.parametrize(("data", "version"), [(V1, 1), (V2, 2), (V3, 3), (BROKEN_V3, 3)])
def test_every_version_is_read(data: bytes, version: int) -> None:
    expected = CowHeader(version, PATH, 7, 1 << 20, 512)
    assert parse_cow_header(data) == parse_cow_header(data + bytes(99)) == expected
    assert len(data) <= MAX_HEADER
    with pytest.raises(TruncatedMessage):
        parse_cow_header(data[:-1])


def test_header_of_the_original_program_is_read(tmp_path: Path) -> None:
    image, cow = tmp_path / "image", tmp_path / "cow"
    image.write_bytes(bytes(1 << 20))
    subprocess.run([require_program("uml_mkcow"), cow, image], check=True, capture_output=True)
    mtime = int(image.stat().st_mtime)
    with cow.open("rb") as file:
        header = parse_cow_header(file.read(MAX_HEADER))
    assert header == CowHeader(3, bytes(image), mtime, 1 << 20, 512)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedMessage),
        (b"OOOM", TruncatedMessage),
        (bytes(5000), BadMagic),
        (struct.pack(">II", 0x4F4F4F4D, 4) + bytes(5000), UnsupportedVersion),
        (V1[:-4] + bytes(4), RemoteProtocolError),
        (V2[:-4] + bytes(4), RemoteProtocolError),
        (V3[:20] + bytes(4) + V3[24:], RemoteProtocolError),
        (V3[:24] + bytes(4) + V3[28:], RemoteProtocolError),
    ],
)
def test_what_no_kernel_can_use_is_refused(data: bytes, error: type) -> None:
    with pytest.raises(error):
        parse_cow_header(data)
