"""Socket addresses: no byte is lost between a request and a socket call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.wire.sockaddr import (
    is_unnamed,
    pad_path,
    parse_sockaddr,
    printable,
    serialize_sockaddr,
    socket_address,
)

PATHS = st.binary(min_size=108, max_size=108)
ABSTRACT = st.binary(min_size=1, max_size=107).filter(lambda rest: rest.strip(b"\0")).map(b"\0".__add__)


@given(PATHS, st.binary(max_size=20))
def test_sockaddr_is_read_as_made_with_anything_behind_it(path: bytes, trailing: bytes) -> None:
    assert parse_sockaddr(serialize_sockaddr(path) + trailing) == (1, path)


@given(ABSTRACT)
def test_abstract_name_that_a_socket_returns_is_what_it_takes(name: bytes) -> None:
    assert socket_address(pad_path(name)) == name.ljust(108, b"\0")


@given(st.binary(min_size=1, max_size=107).filter(lambda name: b"\0" not in name))
def test_pathname_that_a_socket_returns_is_what_it_takes(name: bytes) -> None:
    assert socket_address(pad_path(name)) == name


@given(PATHS)
def test_path_field_is_usable_exactly_when_it_has_a_name_and_an_end(path: bytes) -> None:
    try:
        address = socket_address(path)
    except ValueError:
        assert is_unnamed(path) or b"\0" not in path
    else:
        assert address == path or (path[0] != 0 and address == path[: path.index(0)])


@given(st.binary(max_size=108))
def test_printable_is_printable(path: bytes) -> None:
    assert printable(path).isascii()
    assert printable(path).isprintable()
