"""Throw bytes at the reader of a guest's archives: only `RemoteProtocolError` may come out.

Run: ``python tests/fuzz/fuzz_archive.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys
import tarfile

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.guest.inside.archive import BLOCK, ArchiveReader, Member


def one_input(data: bytes) -> None:
    """Read an archive as it is, and with checksums that are right."""
    _read(data)
    _read(b"".join(_summed(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)))


def _summed(block: bytes) -> bytes:
    """Return a header with its checksum, which no fuzzer would find."""
    if len(block) < BLOCK or not any(block):
        return block
    return block[:148] + b"%06o\0 " % tarfile.calc_chksums(block)[0] + block[156:]


def _read(data: bytes) -> None:
    """Read an archive in two pieces; no member has more contents than it says."""
    reader, left = ArchiveReader(), 0
    cut = data[0] if data else 0
    try:
        for piece in (data[:cut], data[cut:]):
            for event in reader.feed(piece):
                if isinstance(event, Member):
                    assert not left
                    left = event.size
                else:
                    left -= len(event)
                    assert left >= 0
        reader.finish()
    except RemoteProtocolError:
        return
    assert not left


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
