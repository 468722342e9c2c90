"""NICs of command lines: whatever stands there, and what our own builder has written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.guest.cmdline import BessNic, DaemonNic, FdNic, GuestSpec, kernel_arguments
from umlab.guest.nic import parse_nics

WORDS = st.text(st.sampled_from("etvch0129=:,.mad/transpobfx\x1b\n\udcff"), max_size=40)
MACS = st.none() | st.integers(0, 2**40 - 1).map(lambda number: "02:" + number.to_bytes(5, "big").hex(":"))
PATHS = st.text("abcXYZ0-_./", min_size=1, max_size=60).map(lambda text: f"/{text}")
NICS = st.lists(
    st.builds(DaemonNic, PATHS, MACS)
    | st.builds(BessNic, PATHS, MACS)
    | st.builds(FdNic, st.just("lan"), MACS),
    max_size=6,
)


@given(st.lists(WORDS, max_size=8))
def test_any_words_are_read_and_each_device_is_named_once(words: list[str]) -> None:
    nics = parse_nics(words)
    assert len({nic.name for nic in nics}) == len(nics)
    for nic in nics:
        sign = ":" if nic.name.startswith("vec") else "="
        assert f"{nic.name}{sign}{nic.setting}" in words


@given(NICS)
def test_what_the_builder_writes_is_read(nics: list[DaemonNic | BessNic | FdNic]) -> None:
    spec = GuestSpec("left", nics=tuple(nics))
    read = parse_nics(kernel_arguments(spec, uml_dir="/run/x", initrd="/run/x/root", share="/run/x/share"))
    kinds = {DaemonNic: "daemon", BessNic: "bess", FdNic: "fd"}
    expected = [
        (kinds[type(nic)], nic.mac, getattr(nic, "control_path", getattr(nic, "path", None))) for nic in nics
    ]
    eth = [each for each in expected if each[0] == "daemon"]
    vec = [each for each in expected if each[0] != "daemon"]
    assert [(nic.transport, nic.mac, nic.path) for nic in read] == eth + vec
