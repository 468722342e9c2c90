"""Whatever is said about VLANs on a console, ports are told what the console shows."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from umlab.compat._vde_console import Console, Setting
from umlab.compat._vde_ports import VdeSwitch
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan

#: VLAN 0, inside.
VID_OF_0 = 4094
END = 4
VLANS = st.sampled_from([0, 1, 2, 3, 4093, 4094, 4095, -1])
PORTS = st.integers(0, END)
COMMANDS = st.one_of(
    st.builds("vlan/create {}".format, VLANS),
    st.builds("vlan/remove {}".format, VLANS),
    st.builds("vlan/addport {} {}".format, VLANS, PORTS),
    st.builds("vlan/delport {} {}".format, VLANS, PORTS),
    st.builds("port/setvlan {} {}".format, PORTS, VLANS),
    st.builds("port/create {}".format, PORTS),
    st.builds("port/remove {}".format, PORTS),
    st.builds("port/sethub {}".format, st.integers(0, 1)),
    st.builds("port/setnumports {}".format, st.integers(0, END)),
)


@given(st.lists(COMMANDS, max_size=40))
def test_ports_are_told_what_is_shown(commands: list[str]) -> None:
    switch = VdeSwitch(SwitchConfig(), [], END)
    console = Console(switch, Setting("/net", 0o660, bytes(6), None, 0o600, 128))
    switch.engine.start()
    try:
        for command in commands:
            console.execute(command)
            told = {number: switch.config.ports.get(number, PortConfig()).vlan for number in switch.table}
            if switch.config.hub or set(told.values()) == {None}:
                assert switch.config.hub or shown(console) == {(0, number, False) for number in switch.table}
            else:
                assert set().union(*itertools.starmap(parts, told.items())) == shown(console)
            assert all(number < switch.end for number in switch.config.ports)
    finally:
        switch.engine.stop()


def parts(number: int, vlan: PortVlan | None) -> set[tuple[int, int, bool]]:
    """Return VLAN, port, and whether with tags, of all whose frames a port both takes and gives."""
    assert vlan is not None
    own = set() if vlan.pvid is None else {(vlan.pvid % VID_OF_0, number, False)}
    assert vlan.pvid is None or vlan.pvid in vlan.untagged
    return own | {(vid, number, True) for vid in vlan.tagged}


def shown(console: Console) -> set[tuple[int, int, bool]]:
    """Return the same as the console has it."""
    found = set()
    vlan = 0
    for line in console.execute("vlan/allprint").reply.decode().splitlines():
        words = line.split()
        if words[0] == "VLAN":
            vlan = int(words[1])
        elif words[0] == "--":
            found.add((vlan, int(words[2]), words[3] == "tagged=1"))
    return found
