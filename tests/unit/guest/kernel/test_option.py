"""Options of a kernel: ours, those of a fragment, and which of them a source has taken."""

from __future__ import annotations

import pytest

from umlab.errors import RemoteProtocolError
from umlab.guest.kernel.config import features_of, parse_config, transports_of
from umlab.guest.kernel.option import not_taken, parse_fragment, serialize_fragment, wanted_options

FRAGMENT = b"""\
# Lock debugging
CONFIG_PROVE_LOCKING=y

# CONFIG_MODULES is not set
  CONFIG_DUMMY=m \r
CONFIG_LOCALVERSION="-mine and yours"
CONFIG_EMPTY=
CONFIG_DUMMY=y
"""


def test_last_line_of_an_option_counts() -> None:
    assert parse_fragment(FRAGMENT) == {
        "CONFIG_PROVE_LOCKING": "y",
        "CONFIG_MODULES": "n",
        "CONFIG_DUMMY": "y",
        "CONFIG_LOCALVERSION": '"-mine and yours"',
        "CONFIG_EMPTY": "",
    }


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"CONFIG_A=y\nPROVE_LOCKING=y", 2), (b"\x7fELF\0", 1), (b"#\n\nCONFIG_A", 3), (b"CONFIG_A =y", 1)],
)
def test_line_that_is_no_option_is_named(data: bytes, line: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"line {line} is no option"):
        parse_fragment(data)


def test_what_was_not_taken_is_told_with_what_there_is() -> None:
    config = parse_config(b"CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n")
    wanted = {"CONFIG_A": "y", "CONFIG_B": "y", "CONFIG_C": "y", "CONFIG_D": "n"}
    assert not_taken(wanted, config) == {"CONFIG_B": "m", "CONFIG_C": "n"}


def test_kernel_of_ours_has_every_transport_but_the_libraries_and_every_feature() -> None:
    config = parse_config(serialize_fragment(wanted_options(gcov=True))) | {"release": "6.12"}
    assert {each.kind for each in transports_of(config) if each.missing} == {"vde"}
    assert [each.kind for each in features_of(config) if each.missing] == []


def test_symbols_are_for_those_who_ask() -> None:
    assert wanted_options()["CONFIG_DEBUG_INFO_NONE"] == "y"
    for symbols in (wanted_options(debug=True), wanted_options(gcov=True)):
        assert symbols["CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT"] == "y"
        assert "CONFIG_DEBUG_INFO_NONE" not in symbols
    assert "CONFIG_GCOV" not in wanted_options(debug=True)


def test_feature_that_is_a_module_is_there() -> None:
    config = {"CONFIG_OVERLAY_FS": "m", "CONFIG_VIRTIO_UML": "y", "CONFIG_HOSTFS": "n"}
    missing = {each.kind: each.missing for each in features_of(config)}
    assert missing["overlay"] == ()
    assert missing["virtio"] == ("CONFIG_VIRTIO_NET",)
    assert missing["hostfs"] == ("CONFIG_HOSTFS",)
    assert missing["time-travel"] == ("CONFIG_UML_TIME_TRAVEL_SUPPORT",)
