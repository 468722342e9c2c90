"""Whatever a file begins with: that tells what it is, without an error, and what lies behind does not."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from umlab.guest.disk.apt_source import parse_deb822, parse_list
from umlab.wire.magic import HEAD_SIZE, block_size, file_kind

HEADS = st.builds(
    lambda before, magic, after: bytes(before) + magic + after,
    st.sampled_from([0, 64, 257, 510, 1024, 1080, 32_769, 65_600]),
    st.sampled_from([b"\x53\xef", b"QFI\xfb", b"ustar", b"\x1f\x8b", b"OOOM", b"_BHRfS_M", b""]),
    st.binary(max_size=100),
)


@given(HEADS, st.binary(max_size=20))
@example(bytes(1080) + b"\x53\xef", b"")
def test_only_the_beginning_counts(head: bytes, rest: bytes) -> None:
    whole = head.ljust(HEAD_SIZE, b"\0")
    assert file_kind(whole + rest) == file_kind(whole)
    assert isinstance(file_kind(head), str)
    assert block_size(head) in (None, *(1024 << shift for shift in range(7)))


@given(st.text(alphabet="deb[]=# :/\nTypesURIs\t-\0", max_size=200))
def test_files_of_apts_sources_are_read_as_far_as_they_are_understood(text: str) -> None:
    for source in [*parse_list(text), *parse_deb822(text)]:
        assert source.uri
        assert source.suite
        assert not set(f"{source.uri}{source.suite}{source.signed_by or ''}") & set(" \n\t")
