"""Any text as a fragment of a configuration, or as a kernel tree's list of modules."""

from __future__ import annotations

import contextlib
import posixpath

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.guest.kernel.config import parse_config
from umlab.guest.kernel.option import not_taken, parse_fragment, serialize_fragment
from umlab.guest.kernel.tree import parse_order

NAMES = st.from_regex(r"CONFIG_[A-Z0-9_]{1,8}", fullmatch=True)
VALUES = st.sampled_from(["y", "m", "n", "0x40", '"a b"', ""])
PIECES = st.sampled_from(
    [b"drivers", b"/", b"..", b".o", b".ko", b"\n", b"kernel/", b" ", b"\0", b"\xff", b"a"]
)


@given(st.dictionaries(NAMES, VALUES))
def test_options_that_are_written_are_read(options: dict[str, str]) -> None:
    data = serialize_fragment(options)
    assert parse_fragment(data) == options
    assert not_taken(options, parse_config(data)) == {}


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from([b"CONFIG_A=y", b"# CONFIG_B is not set", b"#", b" ", b"\n", b"=", b"CONFIG_"])
        ).map(b"".join),
    )
)
def test_any_fragment_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        for name, value in parse_fragment(data).items():
            assert name.startswith("CONFIG_")
            assert "\n" not in value


@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=12).map(b"".join)))
def test_no_list_of_modules_leads_out_of_its_tree(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        for path in parse_order(data):
            assert posixpath.normpath(posixpath.join("/tree", path)) == f"/tree/{path}"
            assert path.endswith(".ko")
            assert path.isprintable()
