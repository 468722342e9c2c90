"""Devices of guests: what is written is read, anything else is refused in one short line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import LabError
from umlab.guest.cmdline import DaemonNic
from umlab.guest.device import (
    Console,
    DeviceName,
    Disk,
    Memory,
    Setting,
    parse_device,
    parse_setting,
    request,
    serialize_setting,
)
from umlab.guest.vector import VectorNic

NAMES = st.one_of(
    st.builds(DeviceName, st.sampled_from(("eth", "vec")), st.integers(0, 999)),
    st.builds(DeviceName, st.sampled_from(("ubd", "con")), st.integers(0, 15)),
    st.builds(DeviceName, st.just("ssl"), st.integers(0, 63)),
    st.just(DeviceName("mem")),
)
PATHS = st.text("abc0.-_/", min_size=1, max_size=30).map("/".__add__)
MACS = st.binary(min_size=5, max_size=5).map(lambda octets: "02:" + octets.hex(":"))
CHANNELS = st.one_of(
    st.sampled_from(("null", "pty", "pts", "xterm")),
    PATHS.map("tty:".__add__),
    st.integers(1, 65535).map("port:{}".format),
    st.integers(0, 99).map("fd:{}".format),
)
SETTINGS: dict[str, st.SearchStrategy[Setting]] = {
    "eth": st.builds(DaemonNic, PATHS, st.none() | MACS, st.none() | PATHS),
    "vec": st.builds(
        lambda path, mac, mtu: VectorNic("bess", (("dst", path), ("mac", mac), ("mtu", str(mtu)))),
        *(PATHS, MACS, st.integers(576, 65534)),
    ),
    "ubd": st.builds(
        Disk,
        *(
            PATHS,
            st.none() | PATHS,
            st.booleans(),
            st.booleans(),
            st.just(False),
            st.booleans(),
            st.booleans(),
        ),
        serial=st.none() | st.text("aB0._-", min_size=1, max_size=20),
    ),
    "con": st.builds(Console, CHANNELS, st.none() | CHANNELS),
    "ssl": st.builds(Console, CHANNELS, st.none() | CHANNELS),
    "mem": st.builds(
        Memory, st.integers(1, 1 << 20).map(lambda n: n * 4096), st.sampled_from(("", "+", "-"))
    ),
}
#: Text that comes near to being a setting.
NEAR = st.lists(
    st.sampled_from(
        [
            *("daemon", "vde", "mcast", "unix", "/x", "02:00:00:00:00:01", "transport", "bess", "dst", "mtu"),
            *(
                "pty",
                "null",
                "tty:",
                "port:",
                "fd:",
                "9",
                "+",
                "16",
                "M",
                "r",
                "sd",
                "=",
                ",",
                ":",
                "\n",
                "\0",
            ),
        ]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@given(NAMES)
def test_name_is_read_back(name: DeviceName) -> None:
    assert parse_device(str(name)) == (name, "")


@given(NAMES.flatmap(lambda name: st.tuples(st.just(name), SETTINGS[name.kind])))
def test_setting_is_read_back(case: tuple[DeviceName, Setting]) -> None:
    name, setting = case
    assert parse_setting(name, serialize_setting(setting)) == setting


@given(NAMES, st.text(max_size=600) | NEAR)
def test_any_text_is_a_setting_or_refused_in_one_short_line(name: DeviceName, text: str) -> None:
    refusal = "?"
    try:
        setting = parse_setting(name, text)
    except LabError as error:
        refusal = str(error)
    else:
        assert parse_setting(name, serialize_setting(setting)) == setting
        sent = request(name, setting).encode()
        assert len(sent) <= 511
        assert not set(sent) & {0, 10}
    assert 0 < len(refusal) < 600
    assert "\n" not in refusal


@given(st.text(max_size=12) | st.from_regex(r"(eth|vec|ubd|con|ssl|mem)[a-z0-9]{0,4}", fullmatch=True))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name, letters = parse_device(text)
    except LabError:
        return
    assert parse_device(f"{name}{letters}") == (name, letters)
