"""Any header of ours reads back as it was, any bytes parse or are refused, any COW file merges as it does."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from support.cow_files import KINDS, SECTOR, merged, places, write_cow
from umlab.errors import RemoteProtocolError
from umlab.guest.disk.cow import CowFile
from umlab.guest.disk.cow_check import cow_problems
from umlab.guest.disk.cow_merge import merge_cow
from umlab.wire.cow import CowHeader, changed_sectors, parse_cow_header, serialize_cow_header

NUMBER = st.integers(1, 0xFFFFFFFF)
PATH = st.binary(min_size=1, max_size=255).filter(lambda path: b"\0" not in path)


@st.composite
def headers(draw: st.DrawFn) -> CowHeader:
    """Return a header of any version."""
    version, sector = draw(st.integers(1, 3)), draw(NUMBER)
    alignment = draw(NUMBER) if version == 3 else sector
    size = draw(st.integers(0, (1 << 64) - 1))
    return CowHeader(
        version, draw(PATH), draw(NUMBER), size, sector, alignment, version == 3 and draw(st.booleans())
    )


@given(headers(), st.binary(max_size=20))
def test_parse_undoes_serialize(header: CowHeader, rest: bytes) -> None:
    data = serialize_cow_header(header)
    assert parse_cow_header(data + rest) == header
    assert header.data_offset >= header.bitmap_offset + header.bitmap_length >= len(data)
    assert 0 <= header.bitmap_length * 8 - header.sectors + 7 < 15


@given(st.binary(max_size=5000) | st.binary(max_size=5000).map(b"OOOM\0\0\0\3".__add__))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        header = parse_cow_header(data)
    except RemoteProtocolError:
        return
    assert header.sector_size
    assert header.alignment
    assert 1 <= header.version <= 3
    assert b"\0" not in header.backing


@given(st.lists(st.sampled_from([0, 0xFF, 1, 0x80, 0x5A]) | st.integers(0, 255), max_size=40), st.data())
def test_runs_are_the_bits_that_are_set(content: list[int], data: st.DataObject) -> None:
    bitmap = bytes(content)
    sectors = data.draw(st.integers(0, len(bitmap) * 8 + 9))
    runs = list(changed_sectors(bitmap, sectors))
    found = [sector for first, count in runs for sector in range(first, first + count)]
    assert found == [n for n in range(min(sectors, len(bitmap) * 8)) if bitmap[n // 8] >> n % 8 & 1]
    assert all(first + count < following for (first, count), (following, _) in pairwise(runs))


@settings(max_examples=40)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 200 * SECTOR),
    st.sets(st.integers(0, 400)),
    st.sets(st.integers(0, 400)),
    st.booleans(),
)
def test_an_image_is_what_both_files_make(
    kind: str, size: int, written: set[int], zeroed: set[int], whole: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cow, backing, new = (Path(directory, name) for name in ("cow", "backing", "new"))
        backing.write_bytes(bytes(n // SECTOR % 251 or 1 for n in range(size)))
        sectors = min(places(kind, size)[1] * 8, -(-size // SECTOR))
        changes = {n: b"C" * SECTOR for n in written if n < sectors}
        changes |= {n: bytes(SECTOR) for n in zeroed if n < sectors}
        if not whole and size % SECTOR and size // SECTOR in changes:
            changes[size // SECTOR] = changes[size // SECTOR][: size % SECTOR]
        write_cow(cow, kind, backing, changes)
        expected = merged(backing.read_bytes(), changes)
        assert merge_cow(str(cow), str(new)) == len(expected)
        assert new.read_bytes() == expected
        with CowFile(str(cow)) as file:
            assert sum(count for _, count in file.changed()) == len(changes)


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.integers(0, 14_000), st.integers(0, 255), st.integers(0, 20_000))
def test_damaged_file_has_problems_or_none(kind: str, position: int, byte: int, length: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cow, backing = Path(directory, "cow"), Path(directory, "backing")
        backing.write_bytes(bytes(5000))
        write_cow(cow, kind, backing, {1: b"C" * SECTOR, 7: b"D" * SECTOR})
        data = bytearray(cow.read_bytes()[:length])
        if position < len(data):
            data[position] = byte
        cow.write_bytes(data)
        for problem in cow_problems(str(cow)):
            assert problem.problem
            assert problem.fix
