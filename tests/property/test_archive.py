"""Whatever a guest sends as an archive: it is refused or told, and cut in any way it says the same."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.guest.inside.archive import ArchiveReader, Member

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Return an archive, perhaps with some bytes changed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, target, kind in draw(st.lists(st.tuples(NAMES, NAMES, KINDS), max_size=5)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            content = draw(st.binary(max_size=1100)) if kind == tarfile.REGTYPE else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = bytearray(file.getvalue())
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=3)
    ):
        data[at] = value
    return bytes(data)


def read(pieces: list[bytes]) -> tuple[list[tuple[Member, bytes]], bool]:
    """Return members with contents, and whether the archive was refused."""
    reader, members = ArchiveReader(), list[tuple[Member, bytes]]()
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                if isinstance(event, Member):
                    members.append((event, b""))
                else:
                    members[-1] = (members[-1][0], members[-1][1] + event)
        reader.finish()
    except RemoteProtocolError:
        return members, True
    return members, False


@given(archives() | st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=6))
def test_archive_says_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    whole, refused = read([data])
    assert read(pieces) == (whole, refused)
    if not refused:
        assert all(len(content) == member.size for member, content in whole)
