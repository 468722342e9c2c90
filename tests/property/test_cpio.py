"""Any archive of ours reads back as it was, and any bytes either parse or are refused as documented."""

from __future__ import annotations

import contextlib
import stat

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.guest.inside.cpio import Member, parse_archive, serialize_archive

NUMBER = st.integers(0, 0xFFFFFFFF)
NAME = st.binary(min_size=1, max_size=80).filter(lambda name: b"\0" not in name and name != b"TRAILER!!!")
MEMBER = st.builds(
    Member,
    name=NAME.map(lambda name: name.decode("utf-8", "surrogateescape")),
    mode=st.builds(
        lambda kind, bits: kind | bits,
        st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO]),
        st.integers(0, 0o7777),
    ),
    data=st.binary(max_size=200),
    device=st.tuples(NUMBER, NUMBER),
    uid=NUMBER,
    gid=NUMBER,
    mtime=NUMBER,
)


@given(st.lists(MEMBER, max_size=6), st.binary(max_size=20))
def test_parse_undoes_serialize(members: list[Member], rest: bytes) -> None:
    archive = serialize_archive(members)
    assert len(archive) % 4 == 0
    assert list(parse_archive(archive + rest)) == members


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        list(parse_archive(data))


@given(st.lists(MEMBER, min_size=1, max_size=3), st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_archive_is_parsed_or_refused(members: list[Member], position: int, byte: int) -> None:
    archive = bytearray(serialize_archive(members))
    archive[position % len(archive)] = byte
    with contextlib.suppress(RemoteProtocolError):
        list(parse_archive(bytes(archive)))
